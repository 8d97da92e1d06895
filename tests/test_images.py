"""The image reader: each kind of file that a photo or a matte comes in, and broken ones."""

import io
import os
import re
import struct
import subprocess
import sys
import time
import types
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms
from PIL.TiffImagePlugin import IFDRational
from tiff_files import tiff_bytes

from kmatting.errors import ImageError, ImageWarning
from kmatting.images import (
    faint_set,
    formats,
    image_size,
    image_suffixes,
    list_images,
    opening,
    photos,
    read_alpha,
    read_image,
    read_photo,
    scan_folder,
    write_image,
    written_suffixes,
)

# Each pixel another, so that a turned or mirrored picture is noticed.
COLOURS = np.uint8(
    [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[10, 20, 30], [200, 210, 220], [128, 128, 128]]]
)
GREYS = np.uint8([[0, 60, 120], [180, 230, 255]])


def saved(path, pixels, **options):
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(path, **options)
    return path


def png_16_bits(path, pixels, transparent=None):
    """Writes a 16-bit PNG by the specification (W3C PNG, 2003), as Pillow writes no colour ones.

    `transparent` is the value that is transparent, one number a channel.
    """
    colour_type = {2: 0, 3: {2: 4, 3: 2, 4: 6}.get(pixels.shape[-1])}[pixels.ndim]
    height, width = pixels.shape[:2]

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + (b"" if transparent is None else chunk(b"tRNS", np.array(transparent, ">u2").tobytes()))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return path


def tiff(path, pixels, sample_format, premultiplied=False):
    """Writes an uncompressed TIFF in the dtype of `pixels` by the specification (TIFF 6.0)."""
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    bits, after = 8 * pixels.dtype.itemsize, 8 + len(data)
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, channels, bits if channels == 1 else after),
        (259, 3, 1, 1),
        (262, 3, 1, 2 if channels >= 3 else 1),
        (273, 4, 1, 8),
        (277, 3, 1, channels),
        (278, 4, 1, height),
        (279, 4, 1, len(data)),
        *([(338, 3, 1, 1)] if premultiplied else []),
        (339, 3, channels, sample_format if channels == 1 else after + 2 * channels),
    ]
    values = struct.pack(f"<{channels}H", *[bits] * channels)
    values += struct.pack(f"<{channels}H", *[sample_format] * channels)
    directory = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    path.write_bytes(
        struct.pack("<2sHI", b"II", 42, after + len(values))
        + data
        + values
        + struct.pack("<H", len(tags))
        + directory
        + bytes(4)
    )
    return path


# Photos


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_plain_colours(tmp_path, suffix):
    options = {"lossless": True} if suffix == ".webp" else {}
    path = saved(tmp_path / f"a{suffix}", COLOURS, **options)
    pixels = read_image(path)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, COLOURS)
    assert read_photo(path).opacity is None


def test_a_jpeg_is_read_closely(tmp_path):
    y, x = np.mgrid[:64, :64]
    smooth = np.stack([4 * x, 4 * y, 128 + 0 * x], axis=-1).astype(np.uint8)
    path = saved(tmp_path / "a.jpg", smooth, quality=95)
    assert np.abs(read_image(path).astype(int) - smooth).mean() < 2


# What each EXIF orientation says of the stored pixels (Exif 2.32, tag 0x0112), undone.
ORIENTATIONS = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_photos_are_turned_upright(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    large = COLOURS.repeat(16, axis=0).repeat(16, axis=1)  # so that a JPEG keeps the colours
    options = {".webp": {"lossless": True}, ".jpg": {"quality": 100, "subsampling": 0}}
    path = saved(tmp_path / f"a{suffix}", large, exif=exif, **options.get(suffix, {}))
    expected = ORIENTATIONS[orientation](large)
    pixels = read_image(path)
    assert pixels.shape == expected.shape
    assert image_size(path) == expected.shape[:2]
    np.testing.assert_allclose(pixels, expected, atol=8 if suffix == ".jpg" else 0)


@pytest.mark.parametrize("orientation", [1, 6])
def test_mattes_are_turned_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.png", GREYS, exif=exif)
    np.testing.assert_array_equal(read_alpha(path), ORIENTATIONS[orientation](GREYS))


@pytest.mark.parametrize("transparent", [False, True])
def test_palette(tmp_path, transparent):
    picture = Image.fromarray(COLOURS).quantize(6)
    index = picture.getpixel((2, 0))  # the blue one
    options = {"transparency": index} if transparent else {}
    photo = read_photo(saved(tmp_path / "a.png", picture, **options))
    np.testing.assert_array_equal(photo.rgb, COLOURS)
    if not transparent:
        assert photo.opacity is None
        return
    np.testing.assert_array_equal(photo.opacity, [[255, 255, 0], [255, 255, 255]])
    assert (photo.flatten()[0, 2] == 255).all()
    assert (photo.flatten(0)[0, 2] == 0).all()
    np.testing.assert_array_equal(photo.flatten()[1], COLOURS[1])


@pytest.mark.filterwarnings("error")
def test_palette_with_opacities(tmp_path):
    picture = Image.fromarray(COLOURS).quantize(6)
    opacity = np.uint8([[255, 128, 0], [1, 254, 255]])
    indices = np.asarray(picture).ravel().tolist()
    levels = dict(zip(indices, opacity.ravel().tolist(), strict=True))
    path = saved(tmp_path / "a.png", picture, transparency=bytes(levels[i] for i in sorted(levels)))
    photo = read_photo(path)
    np.testing.assert_array_equal(photo.rgb, COLOURS)
    np.testing.assert_array_equal(photo.opacity, opacity)


def test_grey(tmp_path):
    path = saved(tmp_path / "a.png", GREYS)
    np.testing.assert_array_equal(read_image(path), GREYS[..., None].repeat(3, axis=2))


def test_grey_with_transparency(tmp_path):
    opacity = np.uint8([[255, 255, 0], [128, 0, 255]])
    picture = Image.merge("LA", [Image.fromarray(GREYS), Image.fromarray(opacity)])
    photo = read_photo(saved(tmp_path / "a.png", picture))
    np.testing.assert_array_equal(photo.rgb, GREYS[..., None].repeat(3, axis=2))
    np.testing.assert_array_equal(photo.opacity, opacity)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_transparent_colours(tmp_path, suffix):
    opacity = np.uint8([[255, 51, 1], [128, 204, 255]])
    options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    path = saved(tmp_path / f"a{suffix}", np.dstack([COLOURS, opacity]), **options)
    photo = read_photo(path)
    np.testing.assert_array_equal(photo.rgb, COLOURS)
    np.testing.assert_array_equal(photo.opacity, opacity)
    share = opacity[..., None] / 255
    np.testing.assert_allclose(read_image(path), COLOURS * share + 255 * (1 - share), atol=0.51)


def test_an_opaque_alpha_channel_is_no_transparency(tmp_path):
    opaque = np.dstack([COLOURS, np.full((2, 3), 255, np.uint8)])
    assert read_photo(saved(tmp_path / "a.png", opaque)).opacity is None


def test_one_bit(tmp_path):
    picture = Image.fromarray(GREYS > 100)
    assert picture.mode == "1"
    expected = np.where(GREYS > 100, 255, 0)
    for suffix in (".png", ".tif"):
        path = saved(tmp_path / f"a{suffix}", picture)
        np.testing.assert_array_equal(read_alpha(path), expected)
        np.testing.assert_array_equal(read_image(path)[..., 1], expected)


def test_cmyk(tmp_path):
    # Red is no cyan, all magenta and yellow; half of the light goes with half of the black.
    inks = np.uint8([[[0, 255, 255, 0], [0, 0, 0, 128], [255, 0, 0, 0], [0, 0, 0, 0]]])
    expected = [[[255, 0, 0], [127, 127, 127], [0, 255, 255], [255, 255, 255]]]
    picture = Image.fromarray(inks, "CMYK")
    np.testing.assert_allclose(read_image(saved(tmp_path / "a.tif", picture)), expected, atol=1)
    large = picture.resize((64, 16), Image.Resampling.NEAREST)
    path = saved(tmp_path / "a.jpg", large, quality=100, subsampling=0)
    assert Image.open(path).mode == "CMYK"
    np.testing.assert_allclose(read_image(path)[8:9, 8::16], expected, atol=4)


def test_16_bit_grey_png(tmp_path):
    levels = np.uint16([[0, 128, 129, 257 * 77, 32768, 65535]])
    for path in (
        png_16_bits(tmp_path / "a.png", levels),
        saved(tmp_path / "b.png", levels),
        saved(tmp_path / "c.tif", levels),
    ):
        # Rounded, and scaled so that 65535 is 255: a reader that clips would give 255 for most.
        np.testing.assert_array_equal(read_alpha(path), [[0, 0, 1, 77, 128, 255]])
        np.testing.assert_array_equal(read_image(path)[..., 0], [[0, 0, 1, 77, 128, 255]])


def test_16_bit_colours(tmp_path):
    levels = COLOURS.astype(np.uint16) * 257
    for path in (
        png_16_bits(tmp_path / "a.png", levels),
        tiff(tmp_path / "a.tif", levels, sample_format=1),
    ):
        np.testing.assert_array_equal(read_image(path), COLOURS)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_colours_are_rounded(tmp_path, channels):
    levels = np.random.default_rng(0).integers(0, 65536, (9, 7, channels)).astype(np.uint16)
    levels[0, 0] = 65535 - 100  # 254.6 of 255: opaque when rounded, not when cut off
    expected = np.rint(levels / 257).astype(np.uint8)
    photo = read_photo(png_16_bits(tmp_path / "a.png", levels))
    if channels == 2:
        np.testing.assert_array_equal(photo.rgb, expected[..., :1].repeat(3, axis=2))
        np.testing.assert_array_equal(photo.opacity, expected[..., 1])
    else:
        np.testing.assert_array_equal(photo.rgb, expected[..., :3])
    if channels == 4:
        np.testing.assert_array_equal(photo.opacity, expected[..., 3])
    if channels == 3:
        for order in "<>":
            path = tiff(tmp_path / "a.tif", levels.astype(f"{order}u2"), sample_format=1)
            np.testing.assert_array_equal(read_image(path), expected)


def test_premultiplied_16_bit_tiffs_are_rounded(tmp_path):
    random = np.random.default_rng(0)
    opacity = random.integers(2**15, 65536, (9, 7, 1))
    opacity[0, 0], opacity[0, 1] = 0, 65535 - 100  # 254.6 of 255
    colours = random.integers(0, 65536, (9, 7, 3))
    stored = np.dstack([np.rint(colours * (opacity / 65535)), opacity]).astype(np.uint16)
    path = tiff(tmp_path / "a.tif", stored, sample_format=1, premultiplied=True)
    photo = read_photo(path)
    np.testing.assert_array_equal(photo.opacity, np.rint(opacity[..., 0] / 257))
    # Half a level of 65535 more or less may round to the other side.
    np.testing.assert_allclose(photo.rgb, np.rint(colours / 257 * (opacity > 0)), atol=1)
    assert (photo.rgb == np.rint(colours / 257 * (opacity > 0))).mean() > 0.98


def test_a_transparent_level_of_16_bits(tmp_path):
    # 65535 and 65280 have the same upper byte, and 0x1234 is no colour of 8 bits.
    grey = np.uint16([[65280, 65535, 0x1234, 257 * 77]])
    photo = read_photo(png_16_bits(tmp_path / "a.png", grey, transparent=[0x1234]))
    np.testing.assert_array_equal(photo.opacity, [[255, 255, 0, 255]])
    np.testing.assert_array_equal(photo.rgb[..., 0], [[254, 255, 18, 77]])
    colours = grey[..., None].repeat(3, axis=2)
    photo = read_photo(png_16_bits(tmp_path / "b.png", colours, transparent=[65280] * 3))
    np.testing.assert_array_equal(photo.opacity, [[0, 255, 255, 255]])
    np.testing.assert_array_equal(photo.rgb[..., 0], [[254, 255, 18, 77]])


def test_16_bit_colours_with_transparency(tmp_path):
    opacity = np.uint8([[255, 51, 0], [128, 204, 255]])
    levels = np.dstack([COLOURS, opacity]).astype(np.uint16) * 257
    photo = read_photo(png_16_bits(tmp_path / "a.png", levels))
    np.testing.assert_array_equal(photo.rgb, COLOURS)
    np.testing.assert_array_equal(photo.opacity, opacity)


@pytest.mark.parametrize("white", [1, 255, 65535])
def test_float_tiffs_count_to_whatever_white_they_need(tmp_path, white):
    values = np.float32([[0, 0.5, 1, 0.2]]) * white
    path = tiff(tmp_path / "a.tif", values, sample_format=3)
    np.testing.assert_array_equal(read_alpha(path), [[0, 128, 255, 51]])


def test_a_float_tiff_with_nan_and_negative_values(tmp_path):
    values = np.float32([[np.nan, -1, 1, 0.2]])
    path = tiff(tmp_path / "a.tif", values, sample_format=3)
    np.testing.assert_array_equal(read_alpha(path), [[0, 0, 255, 51]])


def test_lab(tmp_path):
    # The red of sRGB under the D50 of ICC is L* 54.3, a* 80.8, b* 69.9; Pillow adds 128 to a and b.
    picture = Image.new("LAB", (1, 1), (round(54.3 * 2.55), 81 + 128, 70 + 128))
    red, green, blue = read_image(saved(tmp_path / "a.tif", picture))[0, 0].astype(int)
    assert red > 250
    assert green < 12
    assert blue < 12


def test_an_icc_profile_is_applied(tmp_path):
    # The profile of sRGB with its red and blue primaries exchanged: its red is our blue.
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")
    path = saved(tmp_path / "a.png", COLOURS, icc_profile=swapped)
    np.testing.assert_allclose(read_image(path), COLOURS[..., ::-1], atol=2)
    # The numbers of a matte are coverage: no profile changes them.
    matte = saved(tmp_path / "b.png", GREYS, icc_profile=swapped)
    np.testing.assert_array_equal(read_alpha(matte), GREYS)


@pytest.mark.parametrize("profile", [b"no profile at all", b"\0" * 200])
def test_a_broken_icc_profile_is_ignored(tmp_path, profile):
    path = saved(tmp_path / "a.png", COLOURS, icc_profile=profile)
    np.testing.assert_array_equal(read_image(path), COLOURS)


def test_a_profile_for_another_mode_is_ignored(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = saved(tmp_path / "a.png", GREYS, icc_profile=profile)
    np.testing.assert_array_equal(read_image(path)[..., 0], GREYS)


def test_of_an_animation_the_first_frame_is_read(tmp_path):
    first, second = Image.fromarray(COLOURS), Image.new("RGB", (3, 2), "white")
    path = tmp_path / "a.webp"
    first.save(path, save_all=True, append_images=[second], lossless=True)
    np.testing.assert_array_equal(read_image(path), COLOURS)


# Mattes


def test_the_alpha_of_a_cutout_is_its_transparency(tmp_path):
    path = saved(tmp_path / "a.png", np.dstack([COLOURS, GREYS]))
    np.testing.assert_array_equal(read_alpha(path), GREYS)


def test_the_alpha_of_an_opaque_file_is_its_grey_level(tmp_path):
    grey_as_colours = GREYS[..., None].repeat(3, axis=2)
    opaque = np.dstack([grey_as_colours, np.full((2, 3), 255, np.uint8)])
    for name, pixels in [("a.png", GREYS), ("b.png", grey_as_colours), ("c.png", opaque)]:
        alpha = read_alpha(saved(tmp_path / name, pixels))
        assert alpha.dtype == np.uint8
        np.testing.assert_array_equal(alpha, GREYS)


def test_masks_of_zero_and_one_are_understood(tmp_path):
    mask = np.uint8([[0, 1, 1], [1, 0, 0]])
    grey_palette = Image.fromarray(mask)
    grey_palette.putpalette([level for level in range(256) for _ in range(3)])
    for path in (
        saved(tmp_path / "a.png", mask),
        saved(tmp_path / "b.png", mask[..., None].repeat(3, axis=2)),
        saved(tmp_path / "c.png", grey_palette),
        png_16_bits(tmp_path / "d.png", mask.astype(np.uint16)),
        saved(tmp_path / "e.tif", Image.fromarray(mask.astype(np.int32))),
        tiff(tmp_path / "f.tif", mask.astype(np.float32), sample_format=3),
    ):
        np.testing.assert_array_equal(read_alpha(path), 255 * mask, str(path))
    np.testing.assert_array_equal(read_alpha(mask), 255 * mask)
    np.testing.assert_array_equal(read_alpha(mask > 0), 255 * mask)


def test_16_bit_masks_of_8_bit_levels_are_understood(tmp_path):
    path = png_16_bits(tmp_path / "a.png", GREYS.astype(np.uint16))
    np.testing.assert_array_equal(read_alpha(path), GREYS)


def test_an_exact_matte_may_be_nearly_empty(tmp_path):
    faint = np.uint8([[0, 1, 0]])
    np.testing.assert_array_equal(read_alpha(faint, exact=True), faint)
    path = png_16_bits(tmp_path / "a.png", np.uint16([[0, 255, 1]]))
    np.testing.assert_array_equal(read_alpha(path, exact=True), [[0, 1, 0]])


@pytest.mark.parametrize("white", [1, 255, 65535])
def test_floats_may_overshoot_white(tmp_path, white):
    values = np.float32([[0, 0.5, 1, 1 + 2e-7, 1.1, np.inf]]) * white
    path = tiff(tmp_path / "a.tif", values, sample_format=3)
    np.testing.assert_array_equal(read_alpha(path), [[0, 128, 255, 255, 255, 255]])
    np.testing.assert_array_equal(read_image(path)[..., 0], [[0, 128, 255, 255, 255, 255]])


def test_float_photos_may_have_highlights(tmp_path):
    path = tiff(tmp_path / "a.tif", np.float32([[0, 0.5, 1, 7.5]]), sample_format=3)
    np.testing.assert_array_equal(read_image(path)[..., 0], [[0, 128, 255, 255]])


def test_colours_are_no_matte(tmp_path):
    labels = Image.fromarray(np.uint8([[0, 1, 15], [15, 15, 0]]))
    labels.putpalette([0, 0, 0, 128, 0, 0] + [0] * 39 + [192, 128, 128])
    for picture, found in (
        (labels, "a palette of colours"),
        (labels.convert("RGB"), "colours"),
        (Image.fromarray(np.dstack([COLOURS, np.full((2, 3), 255, np.uint8)])), "colours"),
    ):
        path = saved(tmp_path / "a.png", picture)
        with pytest.raises(
            ImageError, match=f"a.png: expected a matte .* received {found}"
        ) as error:
            read_alpha(path)
        assert "255 for foreground" in str(error.value)


@pytest.mark.parametrize("void", [255, 65535])
def test_labels_with_void_are_no_matte(tmp_path, void):
    labels = np.zeros((40, 40), np.uint16 if void > 255 else np.uint8)
    labels[5:30, 5:30] = void
    labels[6:29, 6:29] = 15
    labels[10:20, 31:39] = 1
    path = tmp_path / "a.png"
    _ = png_16_bits(path, labels) if void > 255 else saved(path, labels)
    with pytest.raises(ImageError, match=rf"a\.png: .* levels 1, 15 and {void} \(void\)") as error:
        read_alpha(path)
    assert "255 for foreground" in str(error.value)
    read_alpha(path, exact=True)  # a prediction is what it is


def test_hard_mattes_with_a_little_noise_are_mattes():
    matte = np.zeros((40, 40), np.uint8)
    matte[5:30, 5:30] = 255
    matte[0, :30] = 3
    np.testing.assert_array_equal(read_alpha(matte), matte)
    soft = np.zeros((40, 40), np.uint8)
    soft[:, :30] = 12  # a veil with an opaque part, and an edge between
    soft[:4, 30:], soft[4, 30:] = 255, 128
    np.testing.assert_array_equal(read_alpha(soft), soft)


def test_palettes_and_jpegs_of_greys_are_mattes(tmp_path):
    palette = Image.fromarray(np.uint8([[0, 1, 2], [3, 2, 1]]))
    palette.putpalette([0, 0, 0, 80, 80, 80, 160, 160, 160, 255, 255, 255, 9, 99, 9])  # one unused
    path = saved(tmp_path / "a.png", palette)
    np.testing.assert_array_equal(read_alpha(path), [[0, 80, 160], [255, 160, 80]])
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None].repeat(64, 0).repeat(3, 2)
    path = saved(tmp_path / "a.jpg", ramp, quality=60)
    np.testing.assert_allclose(read_alpha(path), ramp[..., 0], atol=16)


def test_a_set_that_is_never_opaque_is_named():
    assert faint_set("mattes", 255) is None
    assert faint_set("mattes", 128) is None
    assert "mattes: no matte is above level 38" in faint_set("mattes", 38)
    assert "mattes: all mattes are black" in faint_set("mattes", 0)


# Sources


def test_all_sources_give_the_same_pixels(tmp_path):
    path = saved(tmp_path / "a.png", COLOURS)
    picture = Image.open(path)
    for source in (path, str(path), path.read_bytes(), picture, COLOURS):
        np.testing.assert_array_equal(read_image(source), COLOURS)


def test_a_picture_that_is_passed_in_stays_as_it_is():
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(COLOURS).save(buffer, "PNG", exif=exif)
    picture = Image.open(buffer)
    assert read_image(picture).shape == (3, 2, 3)
    assert picture.size == (3, 2)
    assert picture.getexif()[0x0112] == 6


@pytest.mark.parametrize("kind", ["bytearray", "memoryview", "BytesIO", "file", "column"])
def test_whatever_holds_an_encoded_photo_is_read(tmp_path, kind):
    path = saved(tmp_path / "a.png", COLOURS)
    data = path.read_bytes()
    with path.open("rb") as file:
        source = {
            "bytearray": bytearray(data),
            "memoryview": memoryview(data),
            "BytesIO": io.BytesIO(data),
            "file": file,
            "column": GREYS[..., None],
        }[kind]
        expected = GREYS[..., None].repeat(3, axis=2) if kind == "column" else COLOURS
        np.testing.assert_array_equal(read_image(source), expected)


def test_a_damaged_open_file_is_named(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"no image")
    with path.open("rb") as file, pytest.raises(ImageError, match=r"a\.png: not an image"):
        read_image(file)
    with pytest.raises(ImageError, match="closed file"):
        read_image(file)


@pytest.mark.parametrize("source", [[[1, 2, 3]] * 100_000, 7, None, {"a": 1}, io.StringIO("text")])
@pytest.mark.parametrize("read", [read_photo, read_image, read_alpha, image_size])
def test_objects_that_are_no_photo_are_refused_in_one_line(read, source):
    with pytest.raises(TypeError, match="Expected a photo as a path, encoded bytes") as error:
        read(source)
    assert len(str(error.value)) < 300
    kind = "opened as text" if isinstance(source, io.StringIO) else type(source).__name__
    assert kind in str(error.value)


def test_a_text_that_is_no_path_gives_a_short_message():
    for text in ("data:image/png;base64," + "A" * 1_000_000, "a\0b.png"):
        with pytest.raises(ImageError) as error:
            read_image(text)
        assert len(str(error.value)) < 700
        assert "damaged" not in str(error.value)


@pytest.mark.parametrize(
    "array",
    [
        COLOURS.astype(np.float32),
        np.zeros((2, 3, 5), np.uint8),
        np.zeros((0, 3, 3), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_arrays_of_other_kinds_are_refused(array):
    with pytest.raises(ImageError, match="expected uint8 of shape"):
        read_image(array)


def test_other_dtypes_say_how_to_convert():
    floats = COLOURS / np.float32(255)
    with pytest.raises(ImageError) as error:
        read_image(floats)
    code = str(error.value).split("pass ")[1].removesuffix(".")
    converted = eval(code, {"np": np, "array": floats})
    np.testing.assert_array_equal(read_image(converted), COLOURS)
    with pytest.raises(ImageError) as error:
        read_image(COLOURS.astype(np.uint16) * 257)
    assert "np.rint(array / 257).astype(np.uint8)" in str(error.value)


# Broken files


def broken_files(folder):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for suffix in (".jpg", ".png", ".webp", ".tif", ".bmp"):
        whole = saved(folder / f"whole{suffix}", noise).read_bytes()
        (folder / f"cut{suffix}").write_bytes(whole[: len(whole) // 2])
        (folder / f"header{suffix}").write_bytes(whole[:20])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("not a photo")
    (folder / "folder.png").mkdir()
    names = [f"{how}{suffix}" for how in ("cut", "header") for suffix in (".jpg", ".png", ".webp")]
    return [*names, "cut.tif", "cut.bmp", "empty.png", "text.jpg", "folder.png", "missing.png"]


def test_broken_files_are_named_in_one_line(tmp_path):
    reasons = {
        "empty.png": "empty file",
        "text.jpg": "not an image",
        "folder.png": "is a folder",
        "missing.png": "no such file",
        "cut.jpg": "truncated",
    }
    for name in broken_files(tmp_path):
        for read in (read_photo, read_image, read_alpha):
            with pytest.raises(ImageError) as error:
                read(tmp_path / name)
            message = str(error.value)
            assert message.startswith(str(tmp_path / name))
            assert "\n" not in message
            assert reasons.get(name, "") in message


def test_huge_images_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", COLOURS)
    monkeypatch.setattr(opening, "MAX_PIXELS", 5)
    for read in (read_image, read_alpha, image_size):
        with pytest.raises(ImageError, match=r"more than 5 pixels"):
            read(path)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path):
    path = saved(tmp_path / "a.png", COLOURS)
    path.chmod(0)
    with pytest.raises(ImageError, match="no permission"):
        read_image(path)


def test_a_size_needs_no_more_than_the_header(tmp_path):
    path = saved(
        tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (90, 40, 3), np.uint8)
    )
    path.write_bytes(path.read_bytes()[:100])
    assert image_size(path) == (90, 40)


# The host's settings


def test_large_photos_give_no_warning_and_filters_stay(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", COLOURS)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)  # warns from 5, refuses from 9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filters = list(warnings.filters)
        assert image_size(path) == (2, 3)
        np.testing.assert_array_equal(read_image(path), COLOURS)
        assert warnings.filters == filters


def test_importing_leaves_the_filters_alone():
    code = """
import warnings, numpy, PIL.Image
before = list(warnings.filters)
import kmatting.images
assert warnings.filters == before
PIL.Image.MAX_IMAGE_PIXELS = 4
PIL.Image._decompression_bomb_check((5, 1))
"""
    run = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "DecompressionBombWarning" in run.stderr


def test_too_little_memory_is_an_error_of_the_photo(tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError

    path = saved(tmp_path / "a.png", COLOURS)
    monkeypatch.setattr(photos, "_to_srgb", fail)
    for read in (read_image, read_photo):
        with pytest.raises(ImageError, match=r"a\.png: there is not enough memory"):
            read(path)


# Folders


def test_images_of_a_folder(tmp_path):
    names = (
        "b.PNG",
        "a.jpeg",
        "c.txt",
        ".d.png",
        "._b.PNG",
        "e.tiff",
        "f.gif",
        "raw.DNG",
        "README",
    )
    names = (*names, "g.jfif", "h.avif", "sub/i.webp", ".hidden/j.png", "sub/k.dng")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    found = scan_folder(tmp_path)
    expected = ["a.jpeg", "b.PNG", "e.tiff", "f.gif", "g.jfif", "h.avif"]
    assert [path.name for path in found.photos] == expected
    assert found.left_out == {".txt": 1, ".dng": 1, "": 1}
    assert found.note() == (
        "left out 1 without a suffix, 1 .dng, 1 .txt: not photos that can be read; did not search "
        "2 folders in it"
    )
    found = scan_folder(tmp_path, recursive=True)
    assert [path.name for path in found.photos] == [*expected, "i.webp"]
    assert found.left_out == {".txt": 1, ".dng": 2, "": 1}
    assert found.subfolders == 0
    assert list_images(tmp_path) == scan_folder(tmp_path).photos
    assert scan_folder(tmp_path / "folder.png").note() == ""


def test_every_listed_suffix_is_read(tmp_path):
    kinds = {".jfif": "jpeg", ".jpe": "jpeg", ".apng": "png", ".mpo": "mpo", ".pfm": None}
    for suffix in image_suffixes():
        if suffix in (".heic", ".heif", ".hif"):  # below
            continue
        if suffix == ".pfm":
            picture = Image.fromarray(np.float32([[0, 0.5, 1]]))
        else:
            picture = Image.fromarray(GREYS).resize((16, 16))
        picture = picture.convert("1") if suffix == ".pbm" else picture
        path = tmp_path / f"a{suffix}"
        picture.save(path, kinds.get(suffix) or Image.registered_extensions()[suffix])
        assert read_image(path).shape[2] == 3


def test_heic_is_read_where_its_library_is_installed(tmp_path, monkeypatch):
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic")
    monkeypatch.setattr(formats, "_is_found", lambda module: False)
    assert ".heic" not in image_suffixes()
    assert "left out 1 .heic: not photos that can be read; HEIC files need pillow-heif" in (
        scan_folder(tmp_path).note()
    )
    with pytest.raises(ImageError, match="HEIC files need pillow-heif"):
        read_image(path)

    library = types.SimpleNamespace(HeifImageFile=lambda data, name: Image.fromarray(COLOURS))
    monkeypatch.setitem(sys.modules, "pillow_heif", library)
    monkeypatch.setattr(formats, "_is_found", lambda module: True)
    assert scan_folder(tmp_path).photos == [path]
    np.testing.assert_array_equal(read_image(path), COLOURS)


def test_a_real_heic(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    large = COLOURS.repeat(32, axis=0).repeat(32, axis=1)
    picture = Image.fromarray(large)
    heif.from_pillow(picture).save(tmp_path / "a.heic", quality=100, chroma=444)
    assert np.abs(read_image(tmp_path / "a.heic").astype(int) - large).mean() < 4
    assert image_size(tmp_path / "a.heic") == large.shape[:2]


@pytest.mark.parametrize("kind", ["heic", "text", "isobmff"])
def test_pillow_of_the_host_learns_no_format(tmp_path, kind):
    heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "a.heic"
    if kind == "heic":
        heif.from_pillow(Image.fromarray(COLOURS).resize((64, 64))).save(path)
    else:
        path.write_bytes(b"no photo" if kind == "text" else b"\0\0\0\x18ftypqt  " + bytes(99))
    code = """
import contextlib, sys
import PIL.Image
from kmatting.errors import ImageError
from kmatting.images import image_size, read_photo
for read in (read_photo, image_size):
    with contextlib.suppress(ImageError):
        read(sys.argv[1])
assert "HEIF" not in PIL.Image.OPEN and ".heic" not in PIL.Image.EXTENSION, PIL.Image.OPEN
assert sys.argv[2] == "heic" or "pillow_heif" not in sys.modules
"""
    command = [sys.executable, "-c", code, str(path), kind]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_a_folder_that_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageError, match=r"is a file"):
        list_images(tmp_path / "file")
    with pytest.raises(ImageError, match=r"does not exist"):
        list_images(tmp_path / "nowhere")


# Writing


def test_what_is_written_can_be_read(tmp_path):
    rgba = np.dstack([COLOURS, GREYS])
    write_image(tmp_path / "new" / "a.png", COLOURS)
    write_image(tmp_path / "b.png", GREYS)
    write_image(tmp_path / "c.png", rgba)
    write_image(tmp_path / "d.png", GREYS.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "a.png"), COLOURS)
    for name in ("b.png", "c.png", "d.png"):
        np.testing.assert_array_equal(read_alpha(tmp_path / name), GREYS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.png", "c.png", "d.png", "new"]


def test_a_suffix_without_writer_is_refused(tmp_path):
    for name in ("a.xyz", "a"):
        with pytest.raises(ImageError, match="cannot be written"):
            write_image(tmp_path / name, COLOURS)
    for name, pixels, message in (
        ("a.xyz", COLOURS, "expected a suffix among .jpg, .jpeg, .png"),
        ("a.pdf", COLOURS, "expected a suffix among .jpg, .jpeg, .png"),
        ("a.jpg", np.dstack([COLOURS, GREYS]), "JPEG has no transparency"),
        ("a.bmp", Image.fromarray(np.dstack([COLOURS, GREYS])), "BMP has no transparency"),
        ("a.webp", COLOURS.astype(np.uint16), "WEBP of 8 bits"),
        ("a.jpg", Image.fromarray(GREYS.astype(np.uint16)), "JPEG of 8 bits"),
        ("a.png", COLOURS / 255, "expected uint8 or uint16 .* received float64"),
        ("a.png", np.zeros((2, 3, 2), np.uint8), "received uint8 of shape"),
        ("a.webp", np.zeros((1, 20_000, 3), np.uint8), "WebP limit"),  # Pillow's own
    ):
        with pytest.raises(ImageError, match=f"{re.escape(name)}: cannot be written.*{message}"):
            write_image(tmp_path / "new" / name, pixels)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("suffix", written_suffixes())
def test_every_suffix_that_is_written_is_read(tmp_path, suffix):
    large = COLOURS.repeat(16, axis=0).repeat(16, axis=1)
    for pixels in (large, Image.fromarray(large)):
        write_image(tmp_path / f"a{suffix.upper()}", pixels)
        photo = read_photo(tmp_path / f"a{suffix.upper()}")
        assert np.abs(photo.rgb.astype(int) - large).mean() < 12
    with Image.open(tmp_path / f"a{suffix.upper()}") as image:
        assert formats.format_written(suffix).name == image.format


@pytest.mark.parametrize("suffix", written_suffixes(has_alpha=True))
def test_cutouts_are_written_with_their_transparency(tmp_path, suffix):
    opacity = np.uint8([[255, 51, 0], [128, 204, 255]]).repeat(16, axis=0).repeat(16, axis=1)
    cutout = np.dstack([np.full((*opacity.shape, 3), 90, np.uint8), opacity])
    write_image(tmp_path / f"a{suffix}", cutout)
    photo = read_photo(tmp_path / f"a{suffix}")
    assert np.abs(photo.opacity.astype(int) - opacity).mean() < 4
    assert np.abs(photo.rgb[opacity == 255].astype(int) - 90).max() < 9


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_are_written(tmp_path, channels, suffix, monkeypatch):
    tifffile, cv2 = pytest.importorskip("tifffile"), pytest.importorskip("cv2")
    monkeypatch.setattr("kmatting.images.levels._STRIP", 200)  # several strips
    shape = (23, 37) if channels == 1 else (23, 37, channels)
    deep = np.random.default_rng(0).integers(0, 65536, shape).astype(np.uint16)
    path = tmp_path / f"a{suffix}"
    write_image(path, deep, dpi=(300, 300), icc_profile=b"profile" * 50)
    if suffix == ".tif":
        np.testing.assert_array_equal(tifffile.imread(path), deep)
    read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    order = [2, 1, 0, 3][:channels] if channels > 1 else slice(None)  # OpenCV's
    np.testing.assert_array_equal(read[..., order], deep)
    photo = read_photo(path)
    rounded = np.rint(deep / 257)
    if channels > 1:
        np.testing.assert_array_equal(photo.rgb, rounded[..., :3])
    if channels == 4:
        np.testing.assert_array_equal(photo.opacity, rounded[..., 3])
    assert photo.dpi == pytest.approx((300, 300), abs=0.02)
    assert photo.icc_profile == b"profile" * 50
    write_image(path, deep, exif=exif_with(Make="a camera").tobytes())
    assert b"a camera" in read_photo(path).exif
    if channels == 1:
        write_image(path, Image.fromarray(deep))
        np.testing.assert_array_equal(read_alpha(path), rounded)


def test_the_ground_needs_nothing_of_the_extras():
    code = """
import sys
import kmatting.images, kmatting.images.panel, kmatting.files, kmatting.scoring.metrics
import kmatting.data.synthetic
sys.exit(any(name in sys.modules for name in ("tensorflow", "keras", "pydantic", "yaml")))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Several frames or pages


@pytest.mark.parametrize("read", [read_photo, read_image, read_alpha])
@pytest.mark.parametrize(
    ("name", "more"),
    [("a.gif", "frames"), ("a.webp", "frames"), ("a.png", "frames"), ("a.tif", "pages")],
)
def test_further_pictures_of_a_file_are_named(tmp_path, read, name, more):
    grey, black = Image.fromarray(GREYS), Image.new("L", (3, 2))
    path = saved(tmp_path / name, grey, save_all=True, append_images=[black])
    text = f"{re.escape(str(path))}: holds several {more}, only the first is read"
    with pytest.warns(ImageWarning, match=text) as caught:
        read(path)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(saved(tmp_path / f"still-{name}", grey))
        assert read_photo(path, warn=False).more == more


def test_smaller_copies_and_masks_in_a_tiff_file_are_no_further_pictures(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in (1, 4):
            page = Image.new("L", (2, 1))
            page.encoderinfo = {"tiffinfo": {254: kind}}
            path = tmp_path / f"{kind}.tif"
            saved(path, Image.fromarray(GREYS), save_all=True, append_images=[page])
            with Image.open(path) as image:
                assert image.n_frames == 2
            np.testing.assert_array_equal(read_alpha(path), GREYS)


def test_further_pages_of_sixteen_bit_colours_are_named(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, np.zeros((2, 8, 8, 3), np.uint16), photometric="rgb")
    with pytest.warns(ImageWarning, match="several pages"):
        read_photo(path)


# Resolution


def exif_with(**tags):
    exif = Image.Exif()
    for name, value in tags.items():
        exif[ExifTags.Base[name]] = value
    return exif


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".jpg", {"dpi": (300, 150)}),
        (".png", {"dpi": (300, 150)}),
        (".tif", {"dpi": (300, 150)}),
        (".bmp", {"dpi": (300, 150)}),
        (".webp", {"exif": exif_with(XResolution=300, YResolution=150, ResolutionUnit=2)}),
        (".avif", {"exif": exif_with(XResolution=300, YResolution=150, ResolutionUnit=2)}),
        (".jpg", {"exif": exif_with(XResolution=300, YResolution=150, ResolutionUnit=2)}),
        (".jpg", {"exif": exif_with(XResolution=300, YResolution=150)}),
        (".png", {"exif": exif_with(XResolution=300, YResolution=150, ResolutionUnit=2)}),
        (
            ".jpg",
            {"exif": exif_with(XResolution=300 / 2.54, YResolution=150 / 2.54, ResolutionUnit=3)},
        ),
    ],
)
@pytest.mark.parametrize("orientation", [None, 6])
def test_resolution_is_read(tmp_path, suffix, options, orientation):
    if orientation:
        exif = options.get("exif", Image.Exif())
        options = {**options, "exif": Image.Exif()}
        options["exif"].update({**exif, 0x0112: orientation})
    path = saved(tmp_path / f"a{suffix}", COLOURS, **options)
    expected = (150, 300) if orientation else (300, 150)
    if suffix == ".bmp":  # keeps no EXIF data
        expected = (300, 150)
    assert read_photo(path).dpi == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".jpg", {}),
        (".jpg", {"exif": exif_with(Make="a camera")}),  # Pillow would guess 72
        (".jpg", {"exif": exif_with(XResolution=0, YResolution=0)}),
        (".jpg", {"exif": exif_with(XResolution=IFDRational(1, 0), YResolution=300)}),
        (".jpg", {"dpi": (1, 1)}),
        (".png", {}),
        (".tif", {}),
        (".tif", {"x_resolution": 1, "y_resolution": 1, "resolution_unit": 1}),
        (".gif", {}),
        (".webp", {}),
    ],
)
def test_what_states_no_resolution_has_none(tmp_path, suffix, options):
    assert read_photo(saved(tmp_path / f"a{suffix}", COLOURS, **options)).dpi is None


def test_a_resolution_of_72_that_is_stated_counts(tmp_path):
    exif = exif_with(XResolution=72, YResolution=72, ResolutionUnit=2)
    for options in ({"dpi": (72, 72)}, {"exif": exif}, {"dpi": (72, 72), "exif": exif}):
        assert read_photo(saved(tmp_path / "a.jpg", COLOURS, **options)).dpi == (72, 72)
    assert read_photo(COLOURS).dpi is None
    assert read_photo(Image.open(tmp_path / "a.jpg")).dpi == (72, 72)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".avif", ".bmp"])
def test_resolution_is_written(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_image(path, COLOURS, dpi=(300, 150))
    assert read_photo(path).dpi == pytest.approx((300, 150), abs=0.02)
    if suffix != ".bmp":
        write_image(path, COLOURS, dpi=(300, 150), exif=exif_with(Make="a camera").tobytes())
        photo = read_photo(path)
        assert photo.dpi == pytest.approx((300, 150), abs=0.02)
        assert b"a camera" in photo.exif


# What decoders accept


def jpeg(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


def claiming(data, height, width):
    """Changes the size that the frame of a JPEG file states."""
    place = max(data.find(b"\xff\xc0\0\x11"), data.find(b"\xff\xc2\0\x11"))
    place = place if place >= 0 else max(data.find(b"\xff\xc0\0\x0b"), data.find(b"\xff\xc2\0\x0b"))
    return data[: place + 5] + struct.pack(">HH", height, width) + data[place + 9 :]


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("pixels", [COLOURS, GREYS])
def test_a_jpeg_of_too_little_data_is_no_grey_photo(pixels, progressive):
    small = claiming(jpeg(pixels, progressive=progressive), 13000, 13000)
    assert len(small) < 700
    for read in (read_photo, read_alpha, image_size):
        with pytest.raises(ImageError, match="bytes cannot hold 13000x13000 pixels"):
            read(small)


@pytest.mark.parametrize("progressive", [False, True])
def test_the_smallest_jpegs_are_read(progressive):
    for shape in ((1, 1, 3), (1, 3000, 3), (2000, 3000, 3), (4000, 3000)):
        flat = np.full(shape, 128, np.uint8)
        options = {"quality": 1, "optimize": True, "progressive": progressive}
        assert read_photo(jpeg(flat, **options)).rgb.shape[:2] == shape[:2]


def test_scans_are_bounded():
    smooth = np.linspace(0, 255, 64, dtype=np.uint8)[None].repeat(64, axis=0)
    data = jpeg(smooth, progressive=True)
    last = data.rindex(b"\xff\xda")
    scan = data[last:-2]
    many = data[:-2] + 300 * scan + b"\xff\xd9"
    with pytest.raises(ImageError, match="more than 200 scans"):
        read_photo(many)
    assert read_photo(data[:-2] + 50 * scan + b"\xff\xd9").rgb.shape == (64, 64, 3)
    large = claiming(many, 10000, 10000)  # and of as many bytes as that takes
    with pytest.raises(ImageError, match="more than 30 scans"):
        image_size(large + bytes(10**6))
    # Neither what follows the photo nor what a segment holds is a scan: a clip, a thumbnail.
    noise = b"\xff\xda\0\x0c" * 5000
    comment = b"\xff\xfe" + struct.pack(">H", 20_002) + noise[:20_000]
    np.testing.assert_array_equal(
        read_photo(data[:2] + comment + data[2:] + noise).rgb, read_photo(data).rgb
    )


def test_a_bug_of_ours_is_no_damaged_image(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", COLOURS)
    for module, name in (
        (photos, "_to_srgb"), (photos, "opacity_of"), (photos, "described"),
        (opening, "resolution"), (opening, "_check_size"), (opening, "pictures_of"),
        (formats.ImageFormat, "matches"),
    ):  # fmt: skip
        for kind in (ValueError, IndexError, TypeError):
            with monkeypatch.context() as patch:
                patch.setattr(module, name, raising(kind("a bug")))
                with pytest.raises(kind, match=r"^a bug$") as caught:
                    read_photo(path)
                assert not isinstance(caught.value, ImageError)


def raising(error):
    def fail(*_args, **_options):
        raise error

    return fail


@pytest.mark.parametrize(
    "mode",
    ["1", "L", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "LA", "La",
     "I", "F", "I;16", "I;16L", "I;16B"],
)  # fmt: skip
def test_every_mode_of_pillow_is_read(mode):
    image = Image.new(mode, (5, 4))
    assert read_photo(image).rgb.shape == (4, 5, 3)
    assert image_size(image) == (4, 5)
    if mode not in ("LAB", "YCbCr"):  # whose zeros are colours
        assert read_alpha(image).shape == (4, 5)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures as Linux does")
@pytest.mark.parametrize("kind", ["png", "deflate", "planes", "grey32"])
def test_memory_of_deep_files_is_bounded(tmp_path, kind):
    paths = []
    for side in (16, 2000):  # a small one first, so that imports do not count
        pixels = np.zeros((side, side, 4), np.uint16)
        pixels[..., 3] = 30000
        paths.append(tmp_path / f"{side}.tif")
        if kind == "png":
            png_16_bits(paths[-1], pixels)
        elif kind == "grey32":
            paths[-1].write_bytes(tiff_bytes(np.full((side, side), 2**32 - 1, np.uint32)))
        else:
            paths[-1].write_bytes(
                tiff_bytes(
                    pixels, None, kind == "planes", "none" if kind == "planes" else kind,
                    extra=1, rows=side if kind == "deflate" else 16,
                )
            )  # fmt: skip
    code = """
import pathlib, re, sys
from kmatting.images import read_photo
for path in sys.argv[1:]:
    read_photo(path)
    print(re.search(r"VmHWM:\\s*(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
"""
    output = subprocess.check_output([sys.executable, "-c", code, *map(str, paths)])
    before, after = (1024 * int(line) for line in output.split())
    assert (after - before) / 2000**2 < 24


# Messages and folders


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "image: expected the path of an image file, received an empty text."),
        ("https://a.example/b.jpg", "https://a.example/b.jpg: is a URL, expected a file"),
        (Path("https://a.example/b.jpg"), "https://a.example/b.jpg: is a URL, expected a file"),
        ("gs://bucket/b.jpg", "gs://bucket/b.jpg: is a URL, expected a file"),
        ("C:/b.jpg", "C:/b.jpg: no such file."),
        ("missing/b:/c.jpg", "missing/b:/c.jpg: no such file."),
    ],
)
def test_messages_on_sources_that_are_no_files(source, message):
    for read in (read_photo, read_alpha, image_size):
        with pytest.raises(ImageError, match=f"^{re.escape(message)}"):
            read(source)


def test_long_texts_take_no_time():
    started = time.process_time()
    for text in ("a" * 3_000_000, "ab+" * 1_000_000, "x:" * 1_000_000):
        with pytest.raises(ImageError):
            read_photo(text)
    assert time.process_time() - started < 5


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_named_pipes_and_sockets_of_a_folder_are_left_out(tmp_path):
    saved(tmp_path / "a.png", COLOURS)
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to("/dev/null")
    (tmp_path / "d.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "e.png").symlink_to(tmp_path / "missing.png")
    (tmp_path / "f.png").symlink_to(tmp_path / "f.png")
    (tmp_path / "circle").symlink_to(tmp_path)
    for recursive in (False, True):
        found = scan_folder(tmp_path, recursive)
        assert [path.name for path in found.photos] == ["a.png", "d.png", "e.png", "f.png"]
        assert found.left_out == {".png": 2}
        assert found.subfolders == (not recursive)
