"""What a `Matte` offers beside the alpha itself."""

import numpy as np
import pytest
from PIL import Image

from kmatting.images import Photo
from kmatting.inference.matte import Matte


def make_matte(alpha, opacity=None):
    """A matte over a photo of random colours."""
    alpha = np.asarray(alpha, np.float32)
    rgb = np.random.default_rng(0).integers(0, 256, (*alpha.shape, 3), dtype=np.uint8)
    return Matte(Photo(rgb, opacity), alpha)


@pytest.fixture
def disc():
    """A soft disc of radius 10 in the middle of 60x80 pixels."""
    rows, columns = np.mgrid[:60, :80]
    return make_matte(np.clip(10 - np.hypot(rows - 30, columns - 40), 0, 1))


def test_arrays_are_read_only(disc):
    for array in (disc.alpha, disc.prediction):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1
    given = np.zeros((4, 4), np.float32)
    with_opacity = make_matte(given, np.full((4, 4), 255, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        with_opacity.alpha[0, 0] = 1
    given[0, 0] = 1  # the caller's own array stays theirs


def test_repr_is_short(disc):
    assert repr(disc) == f"<Matte of 80x60 pixels, mean alpha {disc.alpha.mean():.3f}>"


def test_is_empty(disc):
    assert not disc.is_empty
    assert make_matte(np.full((60, 80), 0.45)).is_empty  # a grey veil is no subject
    speck = np.zeros((100, 100))
    speck[:3, :3] = 1
    assert make_matte(speck[:50, :50]).is_empty is False  # 9 of 2,500 pixels
    speck[1:3] = 0
    speck[0, 2] = 0
    assert make_matte(np.tile(speck, (2, 2)) * (np.indices((200, 200)).sum(0) < 100)).is_empty
    hidden = make_matte(np.ones((60, 80)), np.zeros((60, 80), np.uint8))
    assert hidden.is_empty  # the photo itself is transparent there


def test_alpha_image(disc):
    for bits, dtype in ((8, np.uint8), (16, np.uint16)):
        levels = np.asarray(disc.alpha_image(bits))
        assert levels.dtype == dtype
        expected = np.rint(disc.alpha * (2**bits - 1))
        np.testing.assert_array_equal(levels, expected)
    with pytest.raises(ValueError, match="bits: expected 8 or 16, received 12"):
        disc.alpha_image(12)


@pytest.mark.parametrize("name", ["a.png", "sub/a.webp", "a.tif", "A.TIFF"])
def test_save(disc, tmp_path, name):
    disc.save(tmp_path / name, "none")
    saved = Image.open(tmp_path / name)
    expected = disc.cutout("none")
    assert (saved.mode, saved.size) == ("RGBA", expected.size)
    np.testing.assert_array_equal(saved.getchannel("A"), expected.getchannel("A"))
    if not name.endswith("webp"):
        np.testing.assert_array_equal(saved, expected)


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.bmp", "a"])
def test_save_refuses_formats_without_transparency(disc, tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name}: expected a format with transparency .*\.png"):
        disc.save(tmp_path / name, "none")
    assert not list(tmp_path.iterdir())
