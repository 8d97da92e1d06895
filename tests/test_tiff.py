"""TIFF files: each way of storing numbers, compared with the numbers that were stored."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image
from tiff_files import tiff_bytes

from kmatting.errors import ImageError
from kmatting.images import image_size, read_alpha, read_photo, tiff

HEIGHT, WIDTH = 21, 37
COMPRESSIONS = ("none", "deflate", "lzw")
UNKNOWN_INVERTED = ((">", np.uint16), ("<", np.uint32))


def numbers(dtype, channels, seed=0):
    """Smooth numbers over the whole range of a dtype."""
    y, x, c = np.mgrid[:HEIGHT, :WIDTH, :channels]
    share = (x / (WIDTH - 1) + y / (HEIGHT - 1) + c / 3) / 3 + 0.001 * ((x * 7 + y * 3) % 5)
    share = np.clip(share, 0, 1)
    share[0, 0], share[0, 1] = 0, 1
    values = np.rint(share * np.iinfo(dtype).max).astype(dtype)
    return values[..., 0] if channels == 1 else values


def levels(values):
    """What the numbers are in 8 bits."""
    return np.rint(values / (np.iinfo(values.dtype).max / 255)).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("extra", [None, 0, 1, 2])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("order", "<>")
def test_colours(dtype, extra, planar, order):
    values = numbers(dtype, 3 if extra is None else 4)
    stored, top = values, np.iinfo(dtype).max
    if extra == 1:
        values[..., 3] = np.maximum(values[..., 3], top // 2)
        colours = values[..., :3] * (values[..., 3:] / top)
        stored = np.dstack([np.rint(colours), values[..., 3]]).astype(dtype)
    for compression, rows in itertools.product(COMPRESSIONS, (None, 4)):
        data = tiff_bytes(stored, None, planar, compression, order, extra, rows)
        if (dtype, extra, planar, compression) == (np.uint8, 0, True, "none"):
            with pytest.raises(ImageError, match="4 x 8 bits"):  # unknown to Pillow
                read_photo(data)
            continue
        photo = read_photo(data)
        tolerance = 2 if extra == 1 else 0
        np.testing.assert_allclose(photo.rgb, levels(values)[..., :3], atol=tolerance)
        if extra in (None, 0):
            assert photo.opacity is None
        else:
            np.testing.assert_array_equal(photo.opacity, levels(values)[..., 3])


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("order", "<>")
def test_differences_and_tiles(channels, planar, order):
    values = numbers(np.uint16, channels)
    extra = 2 if channels == 4 else None
    for compression, tile in itertools.product(COMPRESSIONS, (None, 16)):
        data = tiff_bytes(
            values, None, planar, compression, order, extra, rows=5, tile=tile,
            predictor=compression != "none",
        )  # fmt: skip
        np.testing.assert_array_equal(read_photo(data).rgb, levels(values)[..., :3])
        assert image_size(data) == (HEIGHT, WIDTH)


def test_a_few_rows_at_a_time(monkeypatch):
    values = numbers(np.uint16, 3)
    monkeypatch.setattr(tiff, "_BAND", 500)
    monkeypatch.setattr("kmatting.images.levels._STRIP", 200)
    for compression, planar, tile in itertools.product(COMPRESSIONS, (False, True), (None, 16)):
        data = tiff_bytes(values, None, planar, compression, rows=3, tile=tile)
        np.testing.assert_array_equal(read_photo(data).rgb, levels(values))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_greys(dtype, inverted, order, compression):
    values = numbers(dtype, 1)
    stored = ~values if inverted else values
    data = tiff_bytes(stored, 0 if inverted else 1, compression=compression, order=order, rows=4)
    unknown = (order == ">" and dtype == np.uint32) or (
        inverted and (order, dtype) in UNKNOWN_INVERTED
    )
    if unknown:  # to Pillow: refused by name, not read wrongly
        depth = 8 * values.dtype.itemsize
        text = f"1 x {depth} bits, unsigned numbers, photometric interpretation {1 - inverted:d}"
        with pytest.raises(ImageError, match=text):
            read_photo(data)
        return
    np.testing.assert_array_equal(read_photo(data).rgb, np.dstack([levels(values)] * 3))
    np.testing.assert_array_equal(read_alpha(data), levels(values))


def test_a_mask_of_32_bits_and_its_numbers():
    mask = (numbers(np.uint8, 1) > 100).astype(np.uint32)
    np.testing.assert_array_equal(read_alpha(tiff_bytes(mask)), 255 * mask)
    for white in (255, 65535):
        np.testing.assert_array_equal(read_alpha(tiff_bytes(mask * white)), 255 * mask)


def test_twelve_bits():
    # Two numbers in three bytes, each row filled up: 4095 and 2048.
    row = bytes([0xFF, 0xF8, 0x00]) * 8
    data = tiff_bytes(np.frombuffer(row * 5, np.uint8).reshape(5, 24), bits=12)
    data = data.replace(b"\0\1\4\0\1\0\0\0\x18", b"\0\1\4\0\1\0\0\0\x10")  # 16 wide
    assert set(np.unique(read_alpha(data))) == {128, 255}


def test_signed_numbers():
    ramp = np.linspace(0, 32767, 30).astype(np.int16)[None].repeat(4, axis=0)
    expected = np.rint(ramp / (32767 / 255))
    np.testing.assert_array_equal(read_photo(tiff_bytes(ramp)).rgb[..., 0], expected)
    mask = (ramp > 9000).astype(np.int16)
    np.testing.assert_array_equal(read_alpha(tiff_bytes(mask)), 255 * mask)
    for dtype, text in ((np.int16, "below 0"), (np.int32, "below 0"), (np.int8, "signed")):
        with pytest.raises(ImageError, match=text):
            read_photo(tiff_bytes(np.full((4, 5), -1, dtype)))


def test_floats_whose_white_is_zero_are_refused():
    with pytest.raises(ImageError, match="white is 0"):
        read_alpha(tiff_bytes(np.zeros((4, 5), np.float32), 0))


@pytest.mark.parametrize("dtype", [np.uint32, np.float32, np.float64])
def test_colours_of_other_depths_are_refused_by_name(dtype):
    with pytest.raises(ImageError, match=f"3 x {8 * np.dtype(dtype).itemsize} bits"):
        read_photo(tiff_bytes(np.zeros((4, 5, 3), dtype)))


def test_cmyk_of_16_bits():
    inks = numbers(np.uint16, 4)
    deep = read_photo(tiff_bytes(inks, 5))
    np.testing.assert_array_equal(deep.rgb, read_photo(tiff_bytes(levels(inks), 5)).rgb)


@pytest.mark.parametrize("planar", [False, True])
def test_damaged_ones_are_refused_in_one_line(planar):
    values = numbers(np.uint16, 3)
    for compression in COMPRESSIONS:
        data = tiff_bytes(values, None, planar, compression, rows=4)
        wrong = data.replace(b"\x11\1\4\0", b"\x11\1\7\0")  # offsets of another type
        for broken in (data[:-300], data[:200] + bytes(300) + data[500:], wrong):
            try:
                read_photo(broken)
            except ImageError as error:
                assert "\n" not in str(error)


def test_turned_by_its_tag():
    values = numbers(np.uint16, 3)
    # The tag in place of the sample format.
    data = bytearray(tiff_bytes(values))
    place = data.index(bytes([0x53, 1, 3, 0, 3, 0, 0, 0]))
    data[place : place + 12] = bytes([0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0])
    np.testing.assert_array_equal(read_photo(bytes(data)).rgb, np.rot90(levels(values), -1))
    assert image_size(bytes(data)) == (WIDTH, HEIGHT)


def test_pictures_that_pillow_opened():
    values = numbers(np.uint16, 1)
    image = Image.open(io.BytesIO(tiff_bytes(~values, 0)))
    np.testing.assert_array_equal(read_alpha(image), levels(values))
    planes = Image.open(io.BytesIO(tiff_bytes(numbers(np.uint16, 3), planar=True)))
    with pytest.raises(ImageError, match="pass its path"):
        read_photo(planes)


@pytest.mark.parametrize("kind", [0, 1])
def test_pages_are_counted_to_a_bound(kind, monkeypatch):
    from PIL.TiffImagePlugin import TiffImageFile

    seen = []
    seek = TiffImageFile.seek
    monkeypatch.setattr(
        TiffImageFile, "seek", lambda self, page: seen.append(page) or seek(self, page)
    )
    data = tiff_bytes(numbers(np.uint8, 1), pages=5000, subfile=kind)
    assert read_photo(data, warn=False).more == "pages"
    assert len(seen) < 60
