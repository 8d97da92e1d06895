import io

import numpy as np
import pytest
from PIL import Image

from kmatting.images import png, save_image


def pixels(channels, height=23, width=37):
    shape = (height, width) if channels == 1 else (height, width, channels)
    noise = np.random.default_rng(channels).integers(0, 256, shape, dtype=np.uint8)
    noise[5:15, 10:30] = 255
    return noise


def written(image, **options):
    file = io.BytesIO()
    png.write_png(file, image, **options)
    return file.getvalue()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("strip", [1, 300, 2**18])
def test_pixels_are_kept_whatever_the_strips(channels, strip, monkeypatch):
    monkeypatch.setattr(png, "_STRIP", strip)
    image = Image.fromarray(pixels(channels))
    with Image.open(io.BytesIO(written(image))) as read:
        assert read.mode == image.mode
        np.testing.assert_array_equal(np.asarray(read), np.asarray(image))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)])
def test_the_smallest_images(size):
    image = Image.fromarray(pixels(4, *size))
    with Image.open(io.BytesIO(written(image))) as read:
        read.verify()
    with Image.open(io.BytesIO(written(image))) as read:
        np.testing.assert_array_equal(np.asarray(read), np.asarray(image))


def test_metadata_are_kept():
    image = Image.fromarray(pixels(3))
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    options = {"exif": exif.tobytes(), "icc_profile": b"profile" * 50}
    with Image.open(io.BytesIO(written(image, **options))) as read:
        assert read.getexif()[0x010F] == "a camera"
        assert read.info["icc_profile"] == options["icc_profile"]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_is_as_the_line_above_takes_no_room(channels):
    line = pixels(channels, height=1, width=500)
    image = Image.fromarray(np.repeat(line, 300, axis=0))
    assert len(written(image)) < np.asarray(image).size / 50


def test_other_depths_and_options_are_left_to_pillow():
    deep = Image.fromarray(pixels(1).astype(np.uint16) * 257)
    file = io.BytesIO()
    save_image(file, deep, ".png")
    with Image.open(file) as read:
        np.testing.assert_array_equal(np.asarray(read), np.asarray(deep))
    file = io.BytesIO()
    save_image(file, Image.fromarray(pixels(1)), ".PNG", dpi=(254, 254))
    with Image.open(file) as read:
        assert read.info["dpi"] == pytest.approx((254, 254), abs=1)
