"""Foreground colours, cutouts and composites."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kmatting.images import ImageError
from kmatting.inference import cutout as module
from kmatting.inference.cutout import composite, cutout, estimate_foreground, read_background


def scene(height=96, width=128):
    """A soft disc over a background of another colour: image, alpha, true foreground."""
    y, x = np.mgrid[:height, :width]
    radius = np.hypot(y - height / 2, x - width / 2)
    alpha = np.clip((height * 0.3 - radius) / (height * 0.12) + 0.5, 0, 1).astype(np.float32)
    subject = np.stack([190 + 0 * x, 60 + x * 60 / width, 30 + y * 60 / height], -1)
    behind = np.stack([20 + 30 * x / width, 90 + 0 * x, 200 - y * 50 / height], -1)
    image = alpha[..., None] * subject + (1 - alpha[..., None]) * behind
    return np.rint(image).astype(np.uint8), alpha, subject


def soft_error(foreground, alpha, truth):
    soft = (alpha > 0.1) & (alpha < 1)
    return np.abs(foreground[soft].astype(float) - truth[soft]).mean()


@pytest.mark.parametrize("reduction", [1, 2, 5])
def test_soft_edges_get_the_subjects_colour(monkeypatch, reduction):
    image, alpha, truth = scene()
    monkeypatch.setattr(module, "_ESTIMATE_PIXELS", alpha.size // reduction**2)
    assert soft_error(image, alpha, truth) > 40
    assert soft_error(estimate_foreground(image, alpha), alpha, truth) < 4


def test_opaque_pixels_keep_their_colours_and_transparent_ones_lose_them():
    image, alpha, _ = scene()
    foreground = estimate_foreground(image, alpha)
    np.testing.assert_array_equal(foreground[alpha == 1], image[alpha == 1])
    assert not foreground[alpha == 0].any()


def test_none_keeps_the_photos_colours():
    image, alpha, _ = scene()
    foreground = estimate_foreground(image, alpha, "none")
    np.testing.assert_array_equal(foreground[alpha > 0.01], image[alpha > 0.01])


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3)])
@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
def test_photos_of_a_few_pixels(shape, level):
    image = np.full((*shape, 3), 77, np.uint8)
    foreground = estimate_foreground(image, np.full(shape, level, np.float32))
    assert foreground.shape == (*shape, 3)
    if level == 1:
        assert (foreground == 77).all()


def test_unknown_methods_are_refused():
    with pytest.raises(ValueError, match="'ml' or 'none', received 'knn'"):
        estimate_foreground(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2)), "knn")


def test_without_pymatting_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymatting", None)
    image, alpha, _ = scene()
    with pytest.raises(ValueError, match=r"kmatting\[foreground\].*--foreground none"):
        estimate_foreground(image, alpha)
    assert estimate_foreground(image, alpha, "none").shape == image.shape


def test_pymatting_is_not_loaded_as_a_whole():
    code = """
import sys
from kmatting.inference.cutout import load_estimator
assert not any(name.startswith(("pymatting", "numba")) for name in sys.modules)
load_estimator()
loaded = {name for name in sys.modules if name.startswith("pymatting")}
assert loaded == {"pymatting.foreground.estimate_foreground_ml"}, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_cutout_joins_colours_and_matte():
    foreground = np.full((1, 4, 3), 200, np.uint8)
    alpha = np.float32([[0, 0.001, 0.6, 1]])
    picture = cutout(foreground, alpha)
    assert picture.mode == "RGBA"
    expected = [[0, 0, 0, 0], [0, 0, 0, 0], [200, 200, 200, 153], [200, 200, 200, 255]]
    assert np.asarray(picture)[0].tolist() == expected


def test_composite_over_a_colour():
    foreground = np.full((1, 3, 3), [200, 100, 0], np.uint8)
    alpha = np.float32([[0, 0.25, 1]])
    picture = np.asarray(composite(foreground, alpha, (0, 0, 255)))
    assert picture[0].tolist() == [[0, 0, 255], [50, 25, 191], [200, 100, 0]]


def test_composite_covers_the_photo_with_the_middle_of_the_background():
    stripes = np.zeros((10, 60, 3), np.uint8)
    stripes[:, :20], stripes[:, 20:40], stripes[:, 40:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    nothing = np.zeros((30, 45, 3), np.uint8)
    picture = np.asarray(composite(nothing, np.zeros((30, 45), np.float32), stripes))
    # Enlarged by three to 30 x 180, of which the columns 67 to 112 lie in the green stripe.
    assert picture.shape == (30, 45, 3)
    np.testing.assert_array_equal(picture, np.broadcast_to([0, 255, 0], picture.shape))


def test_composite_in_tiles(monkeypatch):
    image, alpha, _ = scene()
    rng = np.random.default_rng(0)
    behind = rng.integers(0, 256, image.shape, dtype=np.uint8)
    whole = np.asarray(composite(image, alpha, behind))
    expected = alpha[..., None] * image + (1 - alpha[..., None]) * behind
    assert np.abs(whole - expected).max() <= 0.51
    monkeypatch.setattr(module, "_TILE", 29)
    np.testing.assert_array_equal(np.asarray(composite(image, alpha, behind)), whole)


def test_backgrounds(tmp_path):
    assert read_background("white") == (255, 255, 255)
    assert read_background("#00ff7f") == (0, 255, 127)
    assert read_background("rgb(1, 2, 3)") == (1, 2, 3)
    assert read_background((4, 5, 6)) == (4, 5, 6)
    Image.new("RGB", (3, 2), "red").save(tmp_path / "red.png")
    for source in (tmp_path / "red.png", str(tmp_path / "red.png"), Image.new("RGB", (3, 2))):
        assert read_background(source).shape == (2, 3, 3)


def test_backgrounds_that_are_none(tmp_path):
    with pytest.raises(ImageError, match=r"'gren': neither a colour .* nor an image"):
        read_background("gren")
    with pytest.raises(ImageError, match="without transparency"):
        read_background("#ff000080")


@pytest.mark.parametrize("of", [tuple, list])
def test_colours_of_numbers(of):
    assert read_background(of([0, np.uint8(128), 255])) == (0, 128, 255)
    wrong = ([1.0, 0.5, 0.0], [0.2] * 3, [256, 0, 0], [-1, 0, 0], [1, 2], [1, 2, 3, 4], [], "abc")
    for colour in wrong:  # floats in [0, 1] would come out black
        with pytest.raises(ImageError, match=r"three integers from 0 to 255, received a .* by 255"):
            read_background(of(colour))
    with pytest.raises(ImageError) as caught:
        read_background(of([np.zeros(10_000)] * 9))
    assert len(str(caught.value)) < 250
