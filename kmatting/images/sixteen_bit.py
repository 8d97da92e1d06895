"""Colours of 16 bits a channel, rounded to 8. Pillow cuts the lower byte off."""

from collections.abc import Callable
from typing import IO

import numpy as np
from PIL import Image, ImageFile

from kmatting.images.faults import decoder_errors
from kmatting.images.levels import rounded_levels, strips

# Rawmodes of Pillow that keep the upper byte of each number, with the last letter of those that
# keep the lower one: it is the upper byte in the other byte order.
_RAWMODES = ("RGB;16B", "RGBA;16B", "LA;16B")


def to_picture(mode: str, pixels: np.ndarray) -> Image.Image:
    """Makes a PIL image of a uint8 array (H, W, C), in a mode of so many channels."""
    size = pixels.shape[1], pixels.shape[0]
    return Image.frombuffer(mode, size, pixels, "raw", mode, 0, 1)


def is_sixteen_bit_png(image: ImageFile.ImageFile) -> bool:
    """Returns whether a file that is not yet decoded is a PNG with colours of 16 bits."""
    return image.format == "PNG" and bool(image.tile) and image.tile[0].args in _RAWMODES


def read_sixteen_bit_png(image: ImageFile.ImageFile) -> Image.Image:
    """Decodes a PNG with colours of 16 bits a channel.

    Args:
        image: the file, opened by Pillow and not yet decoded.

    Returns:
        PIL image of 8 bits in mode RGB, RGBA or LA, with the `info` of the file.
    """
    rawmode = str(image.tile[0].args)
    data = image.fp
    assert data is not None  # it is not decoded yet
    kind = type(image)
    if rawmode == "LA;16B":  # four bytes a pixel, as RGBA has
        upper, lower = _decoded(kind, data, "RGBA"), None
    else:
        upper, lower = (_decoded(kind, data, rawmode[:-1] + order) for order in "BL")
    key = upper.info.pop("transparency", None)
    mode = {"LA;16B": "LA", "RGB;16B": "RGB" if key is None else "RGBA"}.get(rawmode, "RGBA")
    pixels = np.empty((image.height, image.width, len(mode)), np.uint8)
    for rows in strips(image.height, image.width * 4):
        box = (0, rows.start, image.width, rows.stop)
        values: np.ndarray = np.asarray(upper.crop(box)).astype(np.uint16)
        if lower is None:
            values = values[..., 0::2] << 8 | values[..., 1::2]
        else:
            values = values << 8 | np.asarray(lower.crop(box))
        pixels[rows, :, : values.shape[2]] = rounded_levels()[values]
        if key is not None:
            pixels[rows, :, 3] = np.where((values == np.array(key)).all(axis=2), 0, 255)
    picture = to_picture(mode, pixels)
    picture.info = upper.info
    return picture


def _decoded(
    kind: Callable[[IO[bytes], str], ImageFile.ImageFile], data: IO[bytes], rawmode: str
) -> ImageFile.ImageFile:
    """Decodes a file by another rawmode than Pillow chooses."""
    with decoder_errors():
        data.seek(0)
        image = kind(data, "")
        image.tile = [tile._replace(args=rawmode) for tile in image.tile]
        image.load()
    return image
