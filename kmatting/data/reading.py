"""Reads photos and mattes for training: plain files by OpenCV, all others by `images`.

OpenCV decodes JPEG and PNG in a fraction of the time, without Python's lock, and a large JPEG at a
reduced scale. A file is plain if nothing in it changes what its numbers mean: no ICC profile, no
turned EXIF orientation, no palette, no transparency, no CMYK, 8 bits or 1, one picture, whole.
"""

import os
import struct
from pathlib import Path

import cv2
import numpy as np

from kmatting.images import read_alpha, read_image, read_photo

Source = str | os.PathLike[str] | bytes

_MOST_PLAIN = 64_000_000  # pixels; `images` bounds the memory of larger ones
_MOST_LABELS = 63  # see kmatting.images: a map of labels has no levels between these and "void"
_PIXELS_PER_BYTE = 512  # of a plain file; a smaller one claims more than it holds
_SCALES = {
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def read_training_image(
    source: Source, least: tuple[int, int] | None = None
) -> tuple[np.ndarray, int]:
    """Reads a photo as plain pixels, a large JPEG at a reduced scale.

    Args:
        source: path or encoded bytes.
        least: height and width in pixels that the photo keeps at least twice; None for all.

    Returns:
        uint8 array (H, W, 3), upright, sRGB; and the whole factor by which it was reduced: 1, 2, 4
        or 8. The last row and column may stand for fewer pixels than the factor.

    Raises:
        ImageError: as `kmatting.images.read_image`.
    """
    data = _plain_bytes(source)
    header = _plain_jpeg(data) or _plain_png(data)
    if header is not None and header[2] < 4:
        height, width, _ = header
        factor = _jpeg_scale(height, width, least) if data[:2] == b"\xff\xd8" else 1
        pixels = _decoded(data, _SCALES.get(factor, cv2.IMREAD_COLOR_RGB))
        if pixels is not None:
            # The flags of reduced scales exist for blue, green, red alone.
            rgb = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels) if factor > 1 else pixels
            return rgb, factor
    return read_image(data if data and isinstance(source, bytes) else source), 1


def read_training_cutout(source: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads a cutout: its own colours, also where it is transparent, and its transparency.

    Args:
        source: path of the file.

    Returns:
        uint8 array (H, W, 3), and uint8 array (H, W), 255 is opaque; None if all of it is opaque.

    Raises:
        ImageError: as `kmatting.images.read_photo`.
    """
    data = _plain_bytes(source)
    header = _plain_png(data)
    if header is not None and header[2] == 4:
        pixels = _decoded(data, cv2.IMREAD_UNCHANGED)
        if pixels is not None and pixels.ndim == 3 and pixels.shape[2] == 4:
            opacity = cv2.extractChannel(pixels, 3)
            rgb = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB)
            return rgb, opacity if opacity.min() < 255 else None
    photo = read_photo(source)
    return photo.rgb, photo.opacity


def read_training_alpha(source: Source) -> np.ndarray:
    """Reads a matte, as `kmatting.images.read_alpha` does.

    Args:
        source: path or encoded bytes.

    Returns:
        uint8 array (H, W), 255 is foreground.

    Raises:
        ImageError: as `kmatting.images.read_alpha`.
    """
    data = _plain_bytes(source)
    header = _plain_jpeg(data) or _plain_png(data)
    if header is not None and header[2] == 1:
        levels = _decoded(data, cv2.IMREAD_UNCHANGED)
        if levels is not None and levels.ndim == 2 and _is_matte(levels):
            return levels
    return read_alpha(data if data and isinstance(source, bytes) else source)


def reduced(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Averages squares of pixels, as a JPEG that is decoded at a reduced scale.

    Args:
        pixels: uint8 array (H, W) or (H, W, C).
        factor: side of the squares.

    Returns:
        uint8 array of height and width divided by the factor, rounded up.
    """
    if factor == 1:
        return pixels
    height, width = pixels.shape[:2]
    rows, columns = -(-height // factor), -(-width // factor)
    bottom, right = rows * factor - height, columns * factor - width
    if bottom or right:
        pixels = cv2.copyMakeBorder(pixels, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    return cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_AREA)


def _plain_bytes(source: Source) -> bytes:
    """Returns the bytes of a file, or none where `images` has to say what is wrong with it."""
    if isinstance(source, bytes):
        return source
    try:
        if not os.path.isfile(source):  # noqa: PTH113 - a path object costs more than the call
            return b""
        with open(source, "rb") as file:  # noqa: PTH123
            return file.read()
    except (OSError, ValueError):
        return b""


def _decoded(data: bytes, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def _jpeg_scale(height: int, width: int, least: tuple[int, int] | None) -> int:
    if least is None:
        return 1
    most = min(height // (2 * least[0]), width // (2 * least[1]))
    return max((scale for scale in _SCALES if scale <= most), default=1)


def _is_matte(levels: np.ndarray) -> bool:
    """Returns whether 255 is foreground in a matte for sure; else `read_alpha` looks closer."""
    counts = cv2.calcHist([levels], [0], None, [256], [0, 256]).ravel().tolist()
    if not any(counts[2:]):
        return False  # empty, or a mask of 0 and 1
    between = any(counts[_MOST_LABELS + 1 : 255])
    return between or not counts[255] or sum(counts[1 : _MOST_LABELS + 1]) <= counts[255]


def _plain_png(data: bytes) -> tuple[int, int, int] | None:
    """Returns height, width and channels of a plain PNG, else None."""
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[-8:-4] != b"IEND" or len(data) < 57:
        return None
    width, height, depth, colours = struct.unpack_from(">IIBB", data, 16)
    channels = {(1, 0): 1, (8, 0): 1, (8, 2): 3, (8, 6): 4}.get((depth, colours))
    if channels is None or not _is_sound(height, width, data):
        return None
    place = 33
    while data[place + 4 : place + 8] != b"IDAT":
        if data[place + 4 : place + 8] in (b"tRNS", b"iCCP", b"acTL", b"eXIf", b"PLTE", b""):
            return None
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return height, width, channels


def _plain_jpeg(data: bytes) -> tuple[int, int, int] | None:
    """Returns height, width and channels of a plain JPEG, else None."""
    if data[:2] != b"\xff\xd8" or data[-2:] != b"\xff\xd9":
        return None
    place = 2
    while data[place : place + 1] == b"\xff" and place + 10 < len(data):
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        body = place + 4
        if marker in (0xC0, 0xC1, 0xC2):
            depth, height, width, channels = struct.unpack_from(">BHHB", data, body)
            plain = depth == 8 and channels in (1, 3) and _is_sound(height, width, data)
            return (height, width, channels) if plain else None
        if marker == 0xE1 and data[body : body + 6] == b"Exif\0\0":
            if not _is_upright(data[body + 6 : place + 2 + length]):
                return None
        elif marker == 0xE2 or (marker == 0xEE and data[body : body + 5] == b"Adobe"):
            return None  # a profile, several pictures, or colours that are not YCbCr
        elif (
            marker >= 0xC0 and marker not in (0xC4, 0xDB, 0xDD, 0xFE) and not 0xE0 <= marker <= 0xEF
        ):
            return None
        place += 2 + length
    return None


def _is_sound(height: int, width: int, data: bytes) -> bool:
    return 0 < height * width <= min(_MOST_PLAIN, _PIXELS_PER_BYTE * len(data))


def _is_upright(tiff: bytes) -> bool:
    """Returns whether EXIF data leave the picture as it is stored."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return False
    (place,) = struct.unpack_from(order + "I", tiff, 4)
    if place + 2 > len(tiff):
        return False
    (count,) = struct.unpack_from(order + "H", tiff, place)
    for entry in range(place + 2, min(place + 2 + 12 * count, len(tiff) - 11), 12):
        tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
        if tag == 0x0112:
            return value in (0, 1)
    return True
