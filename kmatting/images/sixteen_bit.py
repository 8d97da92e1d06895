"""Colours of 16 bits a channel, rounded to 8. Pillow cuts the lower byte off."""

import numpy as np
from PIL import Image, ImageFile

from kmatting.images.faults import decoder_errors
from kmatting.images.levels import ROUNDED, strips

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
    with decoder_errors():
        if rawmode == "LA;16B":  # four bytes a pixel, as RGBA has
            _set_rawmode(image, "RGBA")
            image.load()
            lower = None
        else:
            image.load()
            data.seek(0)
            lower = type(image)(data, "")
            _set_rawmode(lower, rawmode[:-1] + "L")
            lower.load()
    key = image.info.pop("transparency", None)
    mode = {"LA;16B": "LA", "RGB;16B": "RGB" if key is None else "RGBA"}.get(rawmode, "RGBA")
    pixels = np.empty((image.height, image.width, len(mode)), np.uint8)
    for rows in strips(image.height, image.width * 4):
        box = (0, rows.start, image.width, rows.stop)
        upper = np.asarray(image.crop(box)).astype(np.uint16)
        if lower is None:
            values = upper[..., 0::2] << 8 | upper[..., 1::2]
        else:
            values = upper << 8 | np.asarray(lower.crop(box))
        pixels[rows, :, : values.shape[2]] = ROUNDED[values]
        if key is not None:
            pixels[rows, :, 3] = np.where((values == np.array(key)).all(axis=2), 0, 255)
    picture = to_picture(mode, pixels)
    picture.info = image.info
    return picture


def _set_rawmode(image: ImageFile.ImageFile, rawmode: str) -> None:
    image.tile = [tile._replace(args=rawmode) for tile in image.tile]
