"""Writes cutouts of 16 bits per channel, which Pillow cannot."""

import itertools
import os
import zlib
from typing import IO, Any

import numpy as np
from PIL import Image, TiffImagePlugin

from kmatting.files import whole_file
from kmatting.images.png import write_png

_ROWS = 64  # of a strip
_LONG, _BYTES = 4, 7  # types of TIFF's values
_ADOBE_DEFLATE, _RGB, _UNASSOCIATED_ALPHA, _INCH = 8, 2, 2, 2
_ICC_PROFILE = 34675


def write_sixteen_bits(
    path: str | os.PathLike[str], pixels: np.ndarray, suffix: str, **options: Any
) -> None:
    """Writes a cutout to a PNG or TIFF file, whole or not at all.

    Args:
        path: the destination.
        pixels: uint16 array (H, W, 4), RGBA.
        suffix: ".png", ".tif" or ".tiff".
        **options: as in `save_sixteen_bits`.

    Raises:
        OSError: if the file cannot be written.
    """
    with whole_file(path) as partial, partial.open("w+b") as file:
        save_sixteen_bits(file, pixels, suffix, **options)


def save_sixteen_bits(
    file: IO[bytes],
    pixels: np.ndarray,
    suffix: str,
    exif: bytes | Image.Exif = b"",
    icc_profile: bytes | None = None,
    dpi: tuple[float, float] | None = None,
    **_: Any,
) -> None:
    """Writes a cutout to a file that is open; the arguments are those of the writers of 8 bits."""
    if suffix == ".png":
        assert isinstance(exif, bytes)
        write_png(file, pixels, exif, icc_profile, dpi)
    else:
        _save_tiff(file, pixels, exif, icc_profile, dpi)


def _save_tiff(
    file: IO[bytes],
    pixels: np.ndarray,
    exif: bytes | Image.Exif,
    icc_profile: bytes | None,
    dpi: tuple[float, float] | None,
) -> None:
    """Writes a TIFF file in strips, compressed as Pillow's "tiff_deflate"."""
    height, width = pixels.shape[:2]
    strips = [
        zlib.compress(pixels[top : top + _ROWS].astype("<u2").tobytes())
        for top in range(0, height, _ROWS)
    ]
    counts = [len(strip) for strip in strips]
    tags = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\x08\0\0\0")
    if isinstance(exif, Image.Exif):
        for tag in exif:
            tags[tag] = exif[tag]
    tags[TiffImagePlugin.IMAGEWIDTH] = width
    tags[TiffImagePlugin.IMAGELENGTH] = height
    tags[TiffImagePlugin.BITSPERSAMPLE] = (16,) * 4
    tags[TiffImagePlugin.COMPRESSION] = _ADOBE_DEFLATE
    tags[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = _RGB
    tags[TiffImagePlugin.SAMPLESPERPIXEL] = 4
    tags[TiffImagePlugin.EXTRASAMPLES] = _UNASSOCIATED_ALPHA
    tags[TiffImagePlugin.ROWSPERSTRIP] = _ROWS
    tags[TiffImagePlugin.STRIPBYTECOUNTS] = counts
    # From the end of these tags on; `save` adds where that is.
    tags[TiffImagePlugin.STRIPOFFSETS] = list(itertools.accumulate(counts[:-1], initial=0))
    if dpi:
        tags[TiffImagePlugin.RESOLUTION_UNIT] = _INCH
        tags[TiffImagePlugin.X_RESOLUTION], tags[TiffImagePlugin.Y_RESOLUTION] = dpi
    if icc_profile:
        tags.tagtype[_ICC_PROFILE] = _BYTES
        tags[_ICC_PROFILE] = icc_profile
    tags.tagtype[TiffImagePlugin.STRIPOFFSETS] = _LONG
    tags.tagtype[TiffImagePlugin.STRIPBYTECOUNTS] = _LONG
    tags.save(file)
    for strip in strips:
        file.write(strip)
