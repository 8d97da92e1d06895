"""Cutouts and composites."""

import numpy as np
import pytest
from PIL import Image

from kmatting.errors import ImageError
from kmatting.inference import compose as module
from kmatting.inference.compose import composite, cutout, read_background


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
    rng = np.random.default_rng(0)
    image, behind = rng.integers(0, 256, (2, 96, 128, 3), dtype=np.uint8)
    alpha = rng.random((96, 128), np.float32)
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
