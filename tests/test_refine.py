"""A matte at full resolution: what is flat stays flat, what has edges gets the photo's."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from kmatting.inference import refine as module
from kmatting.inference.refine import refine


def textured(height, width, seed=0):
    """A photo of noise, the worst guide for a flat matte."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def rays(side=256, count=12):
    """A star of thin soft rays over a shaded background, and its alpha."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side - 0.5
    angle, radius = np.arctan2(y, x), np.hypot(y, x)
    alpha = np.clip(np.cos(count * angle) * 3 + 0.5, 0, 1) * np.clip((0.4 - radius) * 40, 0, 1)
    alpha = np.maximum(alpha, np.clip((0.15 - radius) * 60, 0, 1)).astype(np.float32)
    subject = np.array([200, 120, 60]) + 30 * np.dstack([x, y, x * y])
    behind = np.array([40, 70, 130]) + 60 * np.dstack([y, x, x + y])
    image = alpha[..., None] * subject + (1 - alpha[..., None]) * behind
    return np.rint(image).astype(np.uint8), alpha


def reduced(alpha, factor, sigma):
    size = (alpha.shape[1] // factor, alpha.shape[0] // factor)
    small = np.asarray(Image.fromarray(alpha).resize(size, Image.Resampling.BOX))
    return ndimage.gaussian_filter(small, sigma).clip(0, 1) if sigma else small


def stretched(alpha, shape):
    return np.asarray(Image.fromarray(alpha).resize(shape[::-1], Image.Resampling.BILINEAR))


@pytest.mark.parametrize("sigma", [0, 0.6, 1.0])
def test_gets_the_edges_of_the_photo(sigma):
    image, truth = rays()
    small = reduced(truth, 4, sigma)
    error = np.abs(refine(small, image) - truth).mean()
    assert error < 0.4 * np.abs(stretched(small, truth.shape) - truth).mean()


def defocused(sigma, noise=50, height=240, width=320):
    """An edge out of focus by a Gaussian over textured layers, and its alpha."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:height, :width]
    sharp = (np.hypot(y - height / 2, x - width / 2) < 80 + 20 * np.sin(x / 15)).astype(float)
    alpha = ndimage.gaussian_filter(sharp, sigma).astype(np.float32)
    textures = ndimage.gaussian_filter(rng.normal(0, noise, (2, height, width, 3)), (0, 2, 2, 0))
    subject, behind = textures[0] + (200, 150, 90), textures[1] + (60, 90, 120)
    image = alpha[..., None] * subject + (1 - alpha[..., None]) * behind
    return np.rint(image.clip(0, 255)).astype(np.uint8), alpha


@pytest.mark.parametrize("blur", [0, 0.8])
@pytest.mark.parametrize("factor", [2, 5])
@pytest.mark.parametrize("noise", [7, 14, 50])
@pytest.mark.parametrize("sigma", [2, 3, 4, 5, 6, 8])
def test_as_good_as_bilinear_out_of_focus(sigma, noise, factor, blur):
    image, truth = defocused(sigma, noise)
    small = np.rint(reduced(truth, factor, blur) * 255) / np.float32(255)
    error = np.abs(refine(small, image) - truth).mean()
    assert error < 1.02 * np.abs(stretched(small, truth.shape) - truth).mean()


@pytest.mark.parametrize(("sigma", "share"), [(1.3, 0.3), (1.6, 0.8)])
def test_sharpens_a_soft_matte_of_a_sharp_photo(sigma, share):
    image, truth = defocused(0.5, noise=20)
    small = reduced(truth, 4, sigma)
    error = np.abs(refine(small, image) - truth).mean()
    assert error < share * np.abs(stretched(small, truth.shape) - truth).mean()


def test_stays_bilinear_where_colours_say_nothing():
    truth = rays()[1]
    small = reduced(truth, 4, 0)
    error = np.abs(refine(small, textured(*truth.shape)) - truth).mean()
    assert error < 1.4 * np.abs(stretched(small, truth.shape) - truth).mean()


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_a_flat_matte_stays_flat(level):
    refined = refine(np.full((20, 30), level, np.float32), textured(173, 260))
    assert refined.shape == (173, 260)
    assert refined.dtype == np.float32
    np.testing.assert_allclose(refined, level, atol=1e-6)
    if level == 0:
        assert not refined.any()


def test_invents_nothing_away_from_the_edge():
    alpha = np.zeros((40, 40), np.float32)
    alpha[:, 20:] = 1
    refined = refine(alpha, textured(400, 400))
    assert not refined[:, : 10 * (20 - 4)].any()
    np.testing.assert_allclose(refined[:, 10 * (20 + 4) :], 1, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    alpha=arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        elements=st.floats(0, 1, width=32),
    ),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)
def test_any_shape_stays_within_the_range_of_the_matte(alpha, height, width):
    refined = refine(alpha, textured(height, width))
    assert refined.shape == (height, width)
    assert refined.min() >= alpha.min() - 1e-6
    assert refined.max() <= alpha.max() + 1e-6


def test_the_photos_own_size_is_returned_as_it_is():
    alpha = np.random.default_rng(0).random((12, 18), np.float32)
    np.testing.assert_array_equal(refine(alpha, textured(12, 18)), alpha)


def test_a_larger_matte_is_averaged():
    alpha = np.indices((16, 16)).sum(0).astype(np.float32) % 2  # a chequerboard
    np.testing.assert_allclose(refine(alpha, textured(4, 4)), 0.5, atol=0.02)


def test_tiles_leave_no_seams(monkeypatch):
    image, truth = rays()
    small = reduced(truth, 5, 0.8)
    whole = refine(small, image)
    monkeypatch.setattr(module, "_TILE", (37, 23))
    np.testing.assert_allclose(refine(small, image), whole, atol=1e-6)


def test_tiles_of_the_fit_leave_no_seams(monkeypatch):
    image, truth = rays()
    small = reduced(truth, 3, 0.8)
    monkeypatch.setattr(module, "JUDGED_TILES", 1000)
    whole = refine(small, image)
    monkeypatch.setattr(module, "FIT_TILE", 17)
    np.testing.assert_allclose(refine(small, image), whole, atol=1e-6)


def test_the_fit_is_a_ridge_regression_in_each_window():
    rng = np.random.default_rng(1)
    guide, alpha = rng.random((9, 10, 3)), rng.random((9, 10))

    def windows(values):
        return np.lib.stride_tricks.sliding_window_view(values, (3, 3)).reshape(7, 8, 9)

    colours = np.stack([windows(guide[..., channel]) for channel in range(3)], -1)
    slopes, offsets = np.empty((7, 8, 3)), np.empty((7, 8))
    for row, column in np.ndindex(7, 8):
        # He et al. 2013, equation 14: least squares with a penalty on the slope alone.
        x, y = colours[row, column], windows(alpha)[row, column]
        penalty = np.sqrt(9 * module.EPSILON) * np.eye(4)[:3]
        system = np.vstack([np.column_stack([x, np.ones(9)]), penalty])
        solution = np.linalg.lstsq(system, np.concatenate([y, np.zeros(3)]), rcond=None)[0]
        slopes[row, column], offsets[row, column] = solution[:3], solution[3]
    slope, offset = module._window_fit(alpha, np.moveaxis(guide, -1, 0))

    def mean(values):
        return ndimage.uniform_filter(values, 3)[1:-1, 1:-1]

    np.testing.assert_allclose(offset, mean(offsets))
    for channel in range(3):
        np.testing.assert_allclose(slope[channel], mean(slopes[..., channel]), atol=1e-9)


@pytest.mark.parametrize(
    ("alpha", "image"),
    [
        (np.zeros((4, 4, 1), np.float32), textured(8, 8)),
        (np.zeros((4, 4), np.float32), textured(8, 8)[..., 0]),
        (np.zeros((4, 4), np.float32), textured(8, 8).astype(np.float32)),
    ],
)
def test_other_shapes_are_refused(alpha, image):
    with pytest.raises(ValueError, match="Expected a matte"):
        refine(alpha, image)


def test_rounding_leads_to_no_column_beyond_the_photo():
    matte = np.random.default_rng(0).random((17, 695), np.float32)
    image = np.random.default_rng(1).integers(0, 256, (17, 1003, 3), dtype=np.uint8)
    assert 695 * (1003 / 695) > 1003
    assert refine(matte, image).shape == (17, 1003)
