"""Refuses JPEG files that libjpeg would decode without a word: too little data, too many scans."""

import os
import re
from typing import IO

from PIL import Image

from kmatting.errors import ImageError

_MOST_SCANS = 200  # encoders write 10 to 20, optimisers some more
_BLOCK = 64  # pixels
_START_OF_SCAN = b"\xff\xda"
_ARITHMETIC = (0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)  # frames whose blocks may take less than a bit
_ALONE = (0x01, *range(0xD0, 0xD9))  # markers without content
# A scan's data end at FF, if neither a stuffed 0 nor a restart marker nor a fill byte follows.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def check_jpeg(file: IO[bytes], image: Image.Image) -> None:
    """Refuses a JPEG file that would read as plain grey, or take minutes.

    A block of 8x8 pixels takes at least one bit by Huffman's code. Where data are missing, libjpeg
    makes the rest of the photo grey. It decodes each scan of a progressive file over all pixels,
    and a small file may hold tens of thousands of them.

    Args:
        file: the file, as Pillow leaves it when it has opened it: after the first marker of a scan.
        image: the opened image.

    Raises:
        ImageError: if it is such a file.
    """
    place = file.tell()
    components = file.read(3)[2:]
    length = file.seek(0, os.SEEK_END)
    if 8 * length * _BLOCK < image.width * image.height and not _is_arithmetic(_start(file, place)):
        raise ImageError(
            f"damaged or truncated image ({length:,} bytes cannot hold {image.width}x"
            f"{image.height} pixels)."
        )
    if "progressive" in image.info or components != bytes([len(image.getbands())]):
        file.seek(0)
        data = file.read()
        # What is no scan may hold these bytes by chance, such as a clip that follows the photo.
        if data.count(_START_OF_SCAN) > _MOST_SCANS and _count_scans(data) > _MOST_SCANS:
            raise ImageError(f"JPEG of more than {_MOST_SCANS} scans, refused.")
    file.seek(place)


def _start(file: IO[bytes], end: int) -> bytes:
    file.seek(0)
    return file.read(end)


def _is_arithmetic(start: bytes) -> bool:
    """Returns whether the segments before the first scan hold the frame of an arithmetic code."""
    place = 2
    while found := _MARKER.search(start, place):
        marker = start[found.end() - 1]
        if marker in _ARITHMETIC:
            return True
        place = _after(start, found.end(), marker)
    return False


def _count_scans(data: bytes) -> int:
    """Counts the scans of the first picture in a file, up to one more than is allowed."""
    place, scans = 2, 0
    while scans <= _MOST_SCANS and (found := _MARKER.search(data, place)):
        marker = data[found.end() - 1]
        if marker == 0xD9:  # the end
            break
        scans += marker == _START_OF_SCAN[1]
        place = _after(data, found.end(), marker)
    return scans


def _after(data: bytes, place: int, marker: int) -> int:
    """Returns where the content of a marker ends."""
    return place if marker in _ALONE else place + int.from_bytes(data[place : place + 2])
