"""Writes TIFF files from blocks that are compressed already, and colours of 16 bits a channel.

Pillow writes no colours of 16 bits. The format is that of TIFF 6.0.
"""

import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO

import numpy as np
from PIL import Image

from kmatting.images.levels import strips

_ASCII, _SHORT, _LONG, _RATIONAL, _UNDEFINED = 2, 3, 4, 5, 7  # types of values
_SHORT_TAGS = (258, 259, 262, 277, 284, 296, 317, 338, 339)
_OFFSETS, _COUNTS, _TILE_WIDTH, _TILE_OFFSETS, _TILE_COUNTS = 273, 279, 322, 324, 325
_DIFFERENCES, _TRANSPARENCY, _PER_INCH = 2, 2, 2


def write_tiff(
    file: IO[bytes],
    tags: Mapping[int, Sequence[int] | bytes | str],
    blocks: Iterable[bytes],
    order: str = "<",
) -> None:
    """Writes a TIFF file.

    Args:
        file: a file that is open for writing, empty.
        tags: the values of each tag; resolutions as numerator and denominator. The places of the
            blocks are added.
        blocks: strips, or tiles where the tags say so.
        order: of the bytes, "<" or ">".
    """
    file.write(struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 0))
    counts = []
    for block in blocks:
        file.write(block)
        counts.append(len(block))
    offsets = [8 + int(end) for end in np.cumsum([0, *counts[:-1]])]
    tiled = _TILE_WIDTH in tags
    places = {_TILE_OFFSETS: offsets, _TILE_COUNTS: counts}
    every = {**tags, **(places if tiled else {_OFFSETS: offsets, _COUNTS: counts})}
    entries = []
    for tag, values in sorted(every.items()):
        kind, count, data = _packed(tag, values, order)
        if len(data) > 4:
            file.write(bytes(file.tell() % 2))
            data, place = struct.pack(f"{order}I", file.tell()), data
            file.write(place)
        entries.append(struct.pack(f"{order}HHI", tag, kind, count) + data.ljust(4, b"\0"))
    file.write(bytes(file.tell() % 2))
    directory = file.tell()
    file.write(struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4))
    file.seek(4)
    file.write(struct.pack(f"{order}I", directory))
    file.seek(0, os.SEEK_END)


def write_sixteen_bit_tiff(
    file: IO[bytes],
    pixels: np.ndarray,
    exif: bytes | Image.Exif = b"",
    icc_profile: bytes | None = None,
    dpi: tuple[float, float] | None = None,
) -> None:
    """Writes pixels of 16 bits a channel as TIFF, deflated.

    Args:
        file: a file that is open for writing, empty.
        pixels: uint16 array (H, W), (H, W, 3), or (H, W, 4) with opacity, not premultiplied.
        exif: EXIF data, as Pillow returns them. Texts alone are written, such as camera and author.
        icc_profile: the ICC profile of the colours.
        dpi: dots per inch across and down.
    """
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    height, width, channels = pixels.shape
    parts = list(strips(height, width * channels))
    tags: dict[int, Sequence[int] | bytes | str] = {
        256: [width],
        257: [height],
        258: [16] * channels,
        259: [8],
        262: [1 if channels == 1 else 2],
        277: [channels],
        278: [parts[0].stop],
        284: [1],
        317: [_DIFFERENCES],
        339: [1] * channels,
    }
    tags.update(_texts(exif))
    if channels == 4:
        tags[338] = [_TRANSPARENCY]
    if icc_profile:
        tags[34675] = icc_profile
    if dpi:
        tags[282], tags[283] = ([round(dots * 1000), 1000] for dots in dpi)
        tags[296] = [_PER_INCH]
    write_tiff(file, tags, _deflated(pixels, parts))


def _texts(exif: bytes | Image.Exif) -> dict[int, str]:
    """Returns the plain texts of EXIF data."""
    if not isinstance(exif, Image.Exif):
        data, exif = exif, Image.Exif()
        if data:
            exif.load(data)
    return {tag: value for tag, value in exif.items() if isinstance(value, str)}


def _deflated(pixels: np.ndarray, parts: Iterable[slice]) -> Iterator[bytes]:
    for rows in parts:
        differences = pixels[rows].astype("<u2")
        differences[:, 1:] -= pixels[rows, :-1].astype("<u2")
        yield zlib.compress(differences.tobytes(), 1)


def _packed(tag: int, values: Sequence[int] | bytes | str, order: str) -> tuple[int, int, bytes]:
    """Returns type, count and bytes of a tag's values."""
    if isinstance(values, str):
        data = values.encode() + b"\0"
        return _ASCII, len(data), data
    if isinstance(values, bytes):
        return _UNDEFINED, len(values), values
    if tag in (282, 283):
        return _RATIONAL, 1, struct.pack(f"{order}2I", *values)
    kind, letter = (_SHORT, "H") if tag in _SHORT_TAGS else (_LONG, "I")
    return kind, len(values), struct.pack(f"{order}{len(values)}{letter}", *values)
