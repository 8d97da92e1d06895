"""Estimated foreground colours against known ones."""

import importlib.util
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kmatting.data import synthetic
from kmatting.pictures import foreground as module
from kmatting.pictures.foreground import estimate_foreground

EXAMPLES = Path(__file__).parent.parent / "examples/data"
METHODS = ("ml", "fast", "none")


def scene(height=96, width=128):
    """A soft disc over a background of another colour: image, alpha, true foreground."""
    y, x = np.mgrid[:height, :width]
    radius = np.hypot(y - height / 2, x - width / 2)
    alpha = np.clip((height * 0.3 - radius) / (height * 0.12) + 0.5, 0, 1).astype(np.float32)
    subject = np.stack([190 + 0 * x, 60 + x * 60 / width, 30 + y * 60 / height], -1)
    behind = np.stack([20 + 30 * x / width, 90 + 0 * x, 200 - y * 50 / height], -1)
    return mixed(subject, behind, alpha), alpha, subject


def mixed(subject, behind, alpha):
    share = alpha[..., None]
    return np.rint(share * subject + (1 - share) * behind).astype(np.uint8)


@pytest.fixture(scope="module")
def known():
    """Synthetic photos with hair, holes and textures: image, alpha, true foreground."""
    photos = []
    for index in range(10):
        subject, behind, levels = synthetic.layers(3, index, (192, 256))
        alpha = levels / np.float32(255)
        photos.append((mixed(255 * subject, 255 * behind, alpha), alpha, 255 * subject))
    return photos


@pytest.fixture(scope="module")
def rendered():
    """Renders of hair and fur, with their true colours, over photos: image, alpha, foreground."""
    photos = []
    behind = sorted((EXAMPLES / "backgrounds").iterdir())
    for index, name in enumerate(("fur-cat", "fur-rabbit", "hair-curly", "hair-long", "hair-wind")):
        cutout = np.asarray(Image.open(EXAMPLES / "foregrounds" / f"{name}.png"))
        alpha = cutout[..., 3] / np.float32(255)
        background = np.asarray(Image.open(behind[index]).resize(alpha.shape[::-1]))
        truth = cutout[..., :3].astype(float)
        photos.append((mixed(truth, background, alpha), alpha, truth))
    return photos


def error(colours, alpha, truth):
    """Mean absolute error at soft pixels, weighted by alpha, in levels of 255."""
    soft = (alpha > 0) & (alpha < 1)
    difference = np.abs(colours[soft].astype(float) - truth[soft]).mean(-1)
    return np.average(difference, weights=alpha[soft])


@pytest.mark.parametrize("reduction", [1, 2, 5])
def test_soft_edges_get_the_colour_of_the_subject(monkeypatch, reduction):
    image, alpha, truth = scene()
    monkeypatch.setattr(module, "ESTIMATE_PIXELS", alpha.size // reduction**2)
    assert error(image, alpha, truth) > 30
    assert error(estimate_foreground(image, alpha), alpha, truth) < 2


def test_error_on_known_foregrounds(known):
    photo = np.mean([error(image, alpha, truth) for image, alpha, truth in known])
    ours = np.mean(
        [error(estimate_foreground(image, alpha), alpha, truth) for image, alpha, truth in known]
    )
    assert photo > 25
    assert ours < 5.8


def test_error_on_rendered_hair_and_fur(rendered):
    errors = [
        [error(estimate_foreground(image, alpha, method), alpha, truth) for method in METHODS]
        for image, alpha, truth in rendered
    ]
    ours, fast, photo = np.mean(errors, axis=0)
    assert photo > 15
    assert ours < fast < 8.1
    assert ours < 7.6


def test_the_fast_method_costs_little_quality(monkeypatch, known):
    monkeypatch.setattr(module, "_FAST_PIXELS", 160 * 120)  # the photos have 256 x 192
    errors = {
        method: np.mean(
            [
                error(estimate_foreground(image, alpha, method), alpha, truth)
                for image, alpha, truth in known
            ]
        )
        for method in ("ml", "fast", "none")
    }
    assert errors["ml"] < errors["fast"] < 0.35 * errors["none"]


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (0, 255, 0)])
def test_no_halo_over_new_backgrounds(known, colour):
    halos = []
    for image, alpha, truth in known:
        soft = (alpha > 0) & (alpha < 1)
        wanted = mixed(truth, np.array(colour), alpha)[soft].astype(int)
        halos.append(
            [
                np.abs(mixed(colours, np.array(colour), alpha)[soft] - wanted).mean()
                for colours in (image, estimate_foreground(image, alpha))
            ]
        )
    photo, ours = np.mean(halos, axis=0)
    assert ours < 0.25 * photo


def pymatting_estimator():
    """Loads one module of pymatting: the whole package compiles for more than a minute."""
    package = importlib.util.find_spec("pymatting")
    if package is None:
        pytest.skip("pymatting is not installed")
    path = Path(package.origin).parent / "foreground" / "estimate_foreground_ml.py"
    spec = importlib.util.spec_from_file_location("estimate_foreground_ml", path)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # numba's cache looks for it by name, in the next run too
    spec.loader.exec_module(loaded)
    return loaded.estimate_foreground_ml


@pytest.mark.parametrize("photos", ["known", "rendered"])
def test_as_good_as_pymatting(photos, request):
    known = request.getfixturevalue(photos)
    estimate = pymatting_estimator()
    ours, theirs = [], []
    for image, alpha, truth in known:
        ours.append(error(estimate_foreground(image, alpha), alpha, truth))
        theirs.append(error(255 * estimate(image / 255, alpha), alpha, truth))
    assert np.mean(ours) < 1.05 * np.mean(theirs)


def test_the_full_photo_completes_the_reduced_estimate(monkeypatch):
    # A texture of single pixels, which no reduced photo shows, under an opacity of 0.9.
    rng = np.random.default_rng(0)
    texture = rng.integers(60, 200, (64, 64, 1)) + np.zeros(3)
    alpha = np.full((64, 64), 0.9, np.float32)
    alpha[:, :8], alpha[:, 8:16] = 0, 1
    image = mixed(texture, np.array([20, 30, 90]), alpha)
    monkeypatch.setattr(module, "ESTIMATE_PIXELS", alpha.size // 16)
    assert error(estimate_foreground(image, alpha), alpha, texture) < 8
    monkeypatch.setattr(module, "_completed", lambda layers, shares, photo: layers)
    assert error(estimate_foreground(image, alpha), alpha, texture) > 24


def test_completed_layers_mix_to_the_photo():
    rng = np.random.default_rng(0)
    layers = rng.uniform(100, 150, (2, 50, 3)).astype(np.float32)
    alpha = rng.random((50, 1), np.float32)
    photo = rng.uniform(100, 150, (50, 3)).astype(np.float32)
    foreground, background = module._completed(layers, np.stack([alpha, 1 - alpha]), photo)
    np.testing.assert_allclose(alpha * foreground + (1 - alpha) * background, photo, rtol=1e-5)


def test_tiles_leave_no_seams(monkeypatch):
    image, alpha, _ = scene()
    monkeypatch.setattr(module, "ESTIMATE_PIXELS", alpha.size // 9)
    whole = estimate_foreground(image, alpha)
    monkeypatch.setattr(module, "_TILE", 29)
    np.testing.assert_allclose(estimate_foreground(image, alpha), whole, atol=1)


def test_opaque_pixels_keep_their_colours_and_transparent_ones_lose_them():
    image, alpha, _ = scene()
    colours = estimate_foreground(image, alpha)
    np.testing.assert_array_equal(colours[alpha == 1], image[alpha == 1])
    assert not colours[alpha == 0].any()


def test_none_keeps_the_colours_of_the_photo():
    image, alpha, _ = scene()
    colours = estimate_foreground(image, alpha, "none")
    np.testing.assert_array_equal(colours[alpha > 0.01], image[alpha > 0.01])


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3), (1, 2000), (3, 999)])
@pytest.mark.parametrize("level", [0.0, 0.004, 0.4, 1.0])
def test_one_colour_stays_that_colour(shape, level):
    image = np.full((*shape, 3), 77, np.uint8)
    colours = estimate_foreground(image, np.full(shape, level, np.float32))
    np.testing.assert_array_equal(colours, np.full_like(image, 77 if level else 0))


def test_large_photos_take_little_memory(monkeypatch):
    monkeypatch.setattr(module, "ESTIMATE_PIXELS", 64 * 64)
    image = np.zeros((2000, 3000, 3), np.uint8)
    alpha = np.ones((2000, 3000), np.float32)
    alpha[:, :100] = 0.5
    tracemalloc.start()
    try:
        estimate_foreground(image, alpha)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.4 * image.nbytes  # the result alone is once the photo


def test_wrong_arguments_are_refused():
    image, alpha = np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.float32)
    with pytest.raises(ValueError, match="'ml', 'fast' or 'none', received 'knn'"):
        estimate_foreground(image, alpha, "knn")
    for wrong in (image.astype(np.float32), image[..., 0], image[:3]):
        with pytest.raises(ValueError, match="Expected a uint8 image"):
            estimate_foreground(wrong, alpha)


def test_the_fast_method_takes_the_colours_of_nearly_opaque_pixels_as_they_are():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (32, 48, 3), np.uint8)
    alpha = np.zeros((32, 48), np.float32)
    alpha[:, 20:22] = 128 / 255
    alpha[:, 22:] = 251 / 255
    nearly = alpha == np.float32(251 / 255)
    fast, exact = (estimate_foreground(image, alpha, method) for method in ("fast", "ml"))
    np.testing.assert_array_equal(fast[nearly], image[nearly])
    assert (exact[nearly] != image[nearly]).any()
