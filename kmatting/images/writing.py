"""Writes image files, whole or not at all."""

import os
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from kmatting.errors import ImageError
from kmatting.files import whole_file
from kmatting.images.formats import ImageFormat, format_written, written_suffixes
from kmatting.images.metadata import with_resolution
from kmatting.images.png import can_write_png, write_png

_DPI_IN_EXIF = ("WEBP", "AVIF")  # formats that have no other place for it


def write_image(
    path: str | os.PathLike[str],
    pixels: np.ndarray | Image.Image,
    dpi: tuple[float, float] | None = None,
    **options: Any,
) -> None:
    """Writes pixels to an image file in the format of its suffix.

    Args:
        path: the destination; written to another name and renamed.
        pixels: as in `save_image`.
        dpi: as in `save_image`.
        **options: as in `save_image`.

    Raises:
        ImageError: if kmatting does not write the suffix, or the format cannot hold the pixels.
        OSError: if the disk is full, or the folder cannot be written to.
    """
    suffix = Path(path).suffix
    try:
        _checked_format(suffix, pixels)
        with whole_file(path) as partial, partial.open("w+b") as file:  # TIFF is read, too
            save_image(file, pixels, suffix, dpi, **options)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def save_image(
    file: IO[bytes],
    pixels: np.ndarray | Image.Image,
    suffix: str,
    dpi: tuple[float, float] | None = None,
    **options: Any,
) -> None:
    """Writes pixels to an open file: PNG and 16 bits by kmatting's own writers, else by Pillow.

    Args:
        file: a binary file, open for reading and writing.
        pixels: a PIL image, or a uint8 array (H, W), (H, W, 3) or (H, W, 4). PNG and TIFF also
            take uint16 arrays of these shapes. The fourth channel is opacity, and the colours are
            not multiplied by it.
        suffix: names the format: one of `written_suffixes`.
        dpi: dots per inch across and down, as in `Photo`; None to state none.
        **options: `exif` and `icc_profile`; others go to Pillow's writer, such as `quality=95`.
            Those that `kmatting.images.formats` lists for the format count where none are given.

    Raises:
        ImageError: if kmatting does not write the suffix, or the format cannot hold the pixels.
        OSError: if the disk is full.
    """
    known = _checked_format(suffix, pixels)
    if isinstance(pixels, Image.Image) and pixels.mode.startswith("I;16"):
        pixels = np.asarray(pixels)
    deep = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint16
    if known.name == "PNG" and options.keys() <= {"exif", "icc_profile"} and can_write_png(pixels):
        write_png(file, pixels, dpi=dpi, **options)
    elif deep and known.name == "TIFF":
        from kmatting.images.tiff_file import write_sixteen_bit_tiff

        write_sixteen_bit_tiff(file, np.asarray(pixels), dpi=dpi, **options)
    else:
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        _save(file, image, known.name, dpi, {**known.options, **options})


def _save(
    file: IO[bytes],
    image: Image.Image,
    name: str,
    dpi: tuple[float, float] | None,
    options: dict[str, Any],
) -> None:
    """Writes by Pillow."""
    if dpi:
        options["dpi"] = dpi
        if name in _DPI_IN_EXIF:
            options["exif"] = with_resolution(options.get("exif"), dpi)
    Image.preinit()  # the usual formats; all of them take longer to import
    if name not in Image.SAVE:
        Image.init()
    try:
        image.save(file, name, **options)
    except (ValueError, KeyError, OSError) as error:
        if getattr(error, "errno", None):  # the disk, not the format
            raise
        raise ImageError(f"cannot be written: {error}.") from error


def _checked_format(suffix: str, pixels: np.ndarray | Image.Image) -> ImageFormat:
    """Returns the format of a suffix; refuses what it cannot hold, before a file is made."""
    known = format_written(suffix)
    if known is None:
        raise ImageError(
            f"cannot be written: expected a suffix among {', '.join(written_suffixes())}, received "
            f"{suffix!r}."
        )
    if isinstance(pixels, Image.Image):
        has_alpha, bits = pixels.mode in ("RGBA", "LA", "PA", "RGBa", "La"), 8
        if pixels.mode.startswith("I;16"):
            bits = 16
    else:
        shapes = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
        if pixels.dtype not in (np.uint8, np.uint16) or not shapes or not pixels.size:
            raise ImageError(
                "cannot be written: expected uint8 or uint16 of shape (H, W), (H, W, 3) or "
                f"(H, W, 4), received {pixels.dtype} of shape {pixels.shape}."
            )
        has_alpha, bits = pixels.shape[2:] == (4,), 8 * pixels.dtype.itemsize
    if has_alpha and not known.has_alpha:
        raise ImageError(f"cannot be written: {known.name} has no transparency.")
    if bits > known.bits:
        raise ImageError(f"cannot be written: kmatting writes {known.name} of 8 bits a channel.")
    return known
