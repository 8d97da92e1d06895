"""Compositing: the formula, the place, the edge."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmatting.data.compositing import composite


def floats(*arguments):
    """Returns the composite as floats (H, W, 4) in [0, 1]."""
    image, alpha = composite(*arguments)
    assert image.dtype == alpha.dtype == np.uint8
    return np.dstack([image, alpha]) / 255


RED, BLUE = np.array([200, 20, 10]), np.array([10, 40, 180])


def plain(colour, height, width):
    return np.broadcast_to(colour.astype(np.uint8), (height, width, 3))


def soft_disc(height, width, radius=0.4):
    y, x = np.mgrid[:height, :width]
    distance = np.hypot((y + 0.5) / height - 0.5, (x + 0.5) / width - 0.5)
    return (np.clip((radius - distance) * 8 + 0.5, 0, 1) * 255).astype(np.uint8)


@settings(deadline=None, max_examples=80)
@given(
    st.integers(0, 10_000),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.sampled_from([(32, 32), (24, 40)]),
)
def test_of_plain_colours_the_composite_is_exact(seed, foreground_size, background_size, size):
    sample = floats(
        plain(RED, *foreground_size),
        soft_disc(*foreground_size),
        plain(BLUE, *background_size),
        size,
        np.random.default_rng(seed),
    )
    assert sample.shape == (*size, 4)
    alpha = sample[..., 3:]
    np.testing.assert_allclose(
        sample[..., :3], (alpha * RED + (1 - alpha) * BLUE) / 255, atol=1 / 255
    )


def test_colours_behind_an_alpha_of_zero_do_not_bleed_into_the_edge():
    foreground = np.array(plain(RED, 400, 400))
    alpha = soft_disc(400, 400)
    foreground[alpha == 0] = (0, 255, 0)
    for seed in range(10):  # shrunk about tenfold
        random = np.random.default_rng(seed)
        sample = floats(foreground, alpha, plain(BLUE, 50, 50), (32, 32), random)
        exact = sample[..., 3:] * RED + (1 - sample[..., 3:]) * BLUE
        np.testing.assert_allclose(sample[..., :3] * 255, exact, atol=1.5)


def test_shrinking_keeps_the_coverage():
    # Every second column is foreground: however small it gets, half of it is covered.
    alpha = np.zeros((600, 600), np.uint8)
    alpha[:, ::2] = 255
    for seed in range(10):
        random = np.random.default_rng(seed)
        sample = floats(plain(RED, 600, 600), alpha, plain(BLUE, 9, 9), (40, 40), random)
        np.testing.assert_allclose(sample[18:22, 18:22, 3], 0.5, atol=0.05)


def test_a_foreground_is_placed_at_random_and_mostly_whole():
    alpha = np.zeros((100, 100), np.uint8)
    alpha[40:60, 30:70] = 255  # touches no border
    centres, widths = [], []
    for seed in range(80):
        random = np.random.default_rng(seed)
        cover = floats(plain(RED, 100, 100), alpha, plain(BLUE, 9, 9), (64, 64), random)[..., 3]
        rows, columns = np.nonzero(cover > 0.5)
        centres.append((rows.mean(), columns.mean()))
        widths.append(columns.max() - columns.min() + 1)
    assert 30 <= min(widths) < 40  # half of what fits
    assert max(widths) == 64
    assert np.ptp([y for y, _ in centres]) > 20


def test_a_scale_bounds_the_size():
    widths = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        alpha = np.zeros((100, 100), np.uint8)
        alpha[40:60, 30:70] = 255
        photo = plain(RED, 100, 100), alpha, plain(BLUE, 9, 9)
        _, levels = composite(*photo, (64, 64), random, (0.25, 0.5))
        widths.append(np.ptp(np.nonzero(levels.max(axis=0) > 127)) + 1)
    assert min(widths) in (16, 17)
    assert max(widths) in (31, 32)


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_what_its_picture_cut_off_is_cut_off_by_the_same_border(side):
    turns = ["left", "top", "right", "bottom"].index(side)
    alpha = np.zeros((60, 60), np.uint8)
    alpha[20:40, :30] = 255  # touches the left border
    alpha = np.rot90(alpha, -turns)
    for seed in range(40):
        random = np.random.default_rng(seed)
        sample = floats(plain(RED, 60, 60), alpha, plain(BLUE, 9, 9), (48, 48), random)
        cover = np.rot90(sample[..., 3], turns)
        assert cover[:, 0].max() > 0.99
        assert cover.sum() > 20


def test_a_band_through_its_picture_goes_through_the_new_one():
    alpha = np.zeros((60, 80), np.uint8)
    alpha[25:35] = 255
    for seed in range(20):
        random = np.random.default_rng(seed)
        cover = floats(plain(RED, 60, 80), alpha, plain(BLUE, 9, 9), (48, 48), random)[..., 3]
        assert cover[:, 0].max() > 0.99
        assert cover[:, -1].max() > 0.99


def test_an_empty_foreground_leaves_the_background():
    random = np.random.default_rng(0)
    alpha = np.zeros((20, 30), np.uint8)
    sample = floats(plain(RED, 20, 30), alpha, plain(BLUE, 9, 9), (16, 16), random)
    np.testing.assert_array_equal(sample[..., 3], 0)
    np.testing.assert_allclose(sample[..., :3] * 255, np.broadcast_to(BLUE, (16, 16, 3)), atol=1e-4)


def test_the_part_of_the_background_is_not_distorted():
    y, x = np.mgrid[:90, :200]
    ramp = np.stack([x, y, 0 * x], axis=-1).astype(np.uint8)
    alpha = np.zeros((9, 9), np.uint8)
    steps = []
    for seed in range(30):
        random = np.random.default_rng(seed)
        sample = floats(plain(RED, 9, 9), alpha, ramp, (30, 40), random) * 255
        across = np.diff(sample[15, 5:35, 0]).mean()
        down = np.diff(sample[5:25, 20, 1]).mean()
        assert abs(across) == pytest.approx(down, abs=0.1)
        steps.append(across)
    # Between half and all of the height, some of them mirrored.
    assert min(map(abs, steps)) < 2
    assert max(map(abs, steps)) > 2.5
    assert min(steps) < 0 < max(steps)
