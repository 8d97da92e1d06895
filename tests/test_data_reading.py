"""The fast reader gives what `kmatting.images` gives, and leaves to it what is not plain."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from kmatting.data import reading
from kmatting.data.reading import (
    read_training_alpha,
    read_training_cutout,
    read_training_image,
    reduced,
)
from kmatting.errors import ImageError
from kmatting.images import read_alpha, read_image, read_photo


def photo(height=90, width=123, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX)


def encoded(pixels, kind, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    exif[0x010F] = "a camera"
    return exif


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
COLOURS, GREY = photo()[..., :3].copy(), photo()[..., 0].copy()
PLAIN = {
    "jpeg": encoded(COLOURS, "JPEG"),
    "full colours": encoded(COLOURS, "JPEG", subsampling=0, quality=97),
    "progressive": encoded(COLOURS, "JPEG", progressive=True),
    "grey jpeg": encoded(GREY, "JPEG"),
    "upright": encoded(COLOURS, "JPEG", exif=orientation(1)),
    "no orientation": encoded(COLOURS, "JPEG", exif=orientation(0)),
    "comment": encoded(COLOURS, "JPEG", comment=b"a comment", dpi=(300, 300)),
    "png": encoded(COLOURS, "PNG"),
    "grey png": encoded(GREY, "PNG"),
    "black and white png": encoded(GREY > 128, "PNG"),
}
OTHER = {
    **{f"turned {n}": encoded(COLOURS, "JPEG", exif=orientation(n)) for n in range(2, 9)},
    "profile": encoded(COLOURS, "JPEG", icc_profile=SRGB),
    "png profile": encoded(COLOURS, "PNG", icc_profile=SRGB),
    "16 bits": encoded(GREY.astype(np.uint16) * 257, "PNG"),
    "transparent": encoded(photo(), "PNG"),
    "turned png": encoded(COLOURS, "PNG", exif=orientation(6)),
    "webp": encoded(COLOURS, "WEBP", lossless=True),
    "gif": encoded(GREY, "GIF"),
}


@pytest.fixture
def slow_reads(monkeypatch):
    """Counts what is left to `kmatting.images`."""
    calls = []
    for name in ("read_image", "read_alpha", "read_photo"):
        original = getattr(reading, name)
        monkeypatch.setattr(reading, name, lambda x, f=original, n=name: calls.append(n) or f(x))
    return calls


@pytest.mark.parametrize("name", PLAIN)
def test_plain_photos_are_read_fast_and_alike(tmp_path, slow_reads, name):
    path = tmp_path / "photo"
    path.write_bytes(PLAIN[name])
    expected = read_image(path).astype(int)
    for source in (path, PLAIN[name]):
        pixels, factor = read_training_image(source)
        assert factor == 1
        assert np.abs(pixels - expected).max() <= 1
    assert slow_reads == []


@pytest.mark.parametrize("name", OTHER)
def test_other_photos_are_left_to_images(slow_reads, name):
    pixels, factor = read_training_image(OTHER[name])
    np.testing.assert_array_equal(pixels, read_image(OTHER[name]))
    assert (factor, slow_reads) == (1, ["read_image"])


def test_cmyk_is_left_to_images(slow_reads):
    file = io.BytesIO()
    Image.fromarray(COLOURS).convert("CMYK").save(file, "JPEG")
    np.testing.assert_array_equal(
        read_training_image(file.getvalue())[0], read_image(file.getvalue())
    )
    assert slow_reads == ["read_image"]


@pytest.mark.parametrize("harm", ["cut", "cut late", "header", "empty", "huge", "no file"])
@pytest.mark.parametrize("name", ["jpeg", "png"])
def test_what_is_wrong_with_a_file_is_said_as_by_images(tmp_path, name, harm):
    data = PLAIN[name]
    size = data.find(b"IHDR") + 4 if name == "png" else data.find(b"\xff\xc0") + 5
    harmed = {
        "cut": data[: len(data) // 2],
        "cut late": data[:-20],
        "header": data[:10] + b"?????" + data[15:],
        "empty": b"",
        "huge": data[:size] + b"\x7f\xff\x7f\xff" + data[size + 4 :],
        "no file": data,
    }[harm]
    path = tmp_path / "photo"
    if harm != "no file":
        path.write_bytes(harmed)
    try:
        expected = read_image(path).astype(int)
    except ImageError as error:
        with pytest.raises(ImageError) as raised:
            read_training_image(path)
        assert str(raised.value) == str(error)
    else:
        assert np.abs(read_training_image(path)[0] - expected).max() <= 1


@pytest.mark.parametrize("least", [None, (40, 40), (20, 20), (11, 15), (5, 5)])
def test_a_large_jpeg_keeps_twice_the_size_that_is_needed(least):
    pixels, factor = read_training_image(PLAIN["jpeg"], least)
    assert factor == {None: 1, (40, 40): 1, (20, 20): 2, (11, 15): 4, (5, 5): 8}[least]
    assert pixels.shape[:2] == (-(-90 // factor), -(-123 // factor))
    exact = reduced(read_image(PLAIN["jpeg"]), factor).astype(int)
    assert np.abs(pixels - exact).mean() < 2
    assert read_training_image(PLAIN["png"], least)[1] == 1


def test_reduced_pixels_are_means_of_squares():
    pixels = np.arange(36, dtype=np.uint8).reshape(6, 6) * 4
    np.testing.assert_array_equal(reduced(pixels, 3), [[28, 40], [100, 112]])
    assert reduced(pixels[:5, :4], 3).shape == (2, 2)
    assert reduced(pixels, 1) is pixels


MATTES = {
    "soft": GREY,
    "hard": np.where(GREY > 128, 255, 0).astype(np.uint8),
    "faint": (GREY // 8 + 2).astype(np.uint8),
}
NOT_SO_PLAIN = {
    "mask of 0 and 1": np.where(GREY > 128, 1, 0).astype(np.uint8),
    "empty": np.zeros_like(GREY),
    "16 bits": GREY.astype(np.uint16) * 257,
    "colours": np.dstack([GREY] * 3),
    "cutout": photo(),
}


@pytest.mark.parametrize("name", [*MATTES, *NOT_SO_PLAIN])
def test_mattes_are_read_alike(slow_reads, name):
    data = encoded({**MATTES, **NOT_SO_PLAIN}[name], "PNG")
    np.testing.assert_array_equal(read_training_alpha(data), read_alpha(data))
    assert slow_reads == ([] if name in MATTES else ["read_alpha"])


def test_a_map_of_labels_is_refused():
    labels = np.where(GREY > 140, 15, 0).astype(np.uint8)
    labels[:, :2] = 255
    with pytest.raises(ImageError, match="map of labels"):
        read_training_alpha(encoded(labels, "PNG"))


def test_cutouts_keep_the_colours_of_transparent_pixels(tmp_path, slow_reads):
    path = tmp_path / "cutout.png"
    pixels = photo()
    pixels[:30, :, 3] = 0
    path.write_bytes(encoded(pixels, "PNG"))
    expected = read_photo(path)
    rgb, opacity = read_training_cutout(path)
    np.testing.assert_array_equal(rgb, expected.rgb)
    np.testing.assert_array_equal(opacity, expected.opacity)
    assert slow_reads == []
    path.write_bytes(encoded(COLOURS, "PNG"))
    assert read_training_cutout(path)[1] is None
