"""Makes cutouts and composites from foreground colours and an alpha."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageOps

from kmatting.images import ImageError, Source, read_image
from kmatting.inference.tiles import tiles

# For cutouts and composites. Higher levels take three times as long and save at most a fifth.
PNG_LEVEL = 1
WEBP_QUALITY = 90

# Options of Pillow's writer by the suffix of a cutout's file.
CUTOUT_OPTIONS: dict[str, dict[str, Any]] = {
    ".png": {"compress_level": PNG_LEVEL},
    ".webp": {"quality": WEBP_QUALITY},
    ".tif": {"compression": "tiff_deflate"},
    ".tiff": {"compression": "tiff_deflate"},
}

Colour = tuple[int, int, int]

_TILE = 256  # side in pixels


def cutout(foreground: np.ndarray, alpha: np.ndarray) -> Image.Image:
    """Joins foreground colours and alpha.

    Args:
        foreground: uint8 array (H, W, 3), the colours of the foreground.
        alpha: float array (H, W) in [0, 1].

    Returns:
        PIL image in mode RGBA, not premultiplied. Transparent pixels are black, so that the file
        holds nothing of the background.
    """
    opacity = _to_levels(alpha)
    colours = np.where((opacity > 0)[..., None], foreground, np.uint8(0))
    return Image.fromarray(np.dstack([colours, opacity]))


def composite(
    foreground: np.ndarray, alpha: np.ndarray, background: Colour | np.ndarray
) -> Image.Image:
    """Lays a foreground over a new background: alpha * foreground + (1 - alpha) * background.

    Args:
        foreground: uint8 array (H, W, 3), the colours of the foreground.
        alpha: float array (H, W) in [0, 1].
        background: a colour or an image, as returned by `read_background`. An image is scaled to
            cover the photo and cropped around its centre.

    Returns:
        PIL image in mode RGB, of the photo's size.
    """
    height, width = alpha.shape
    if isinstance(background, tuple):
        behind = np.broadcast_to(np.array(background, np.uint8), foreground.shape)
    else:
        scene = Image.fromarray(background)
        behind = np.asarray(ImageOps.fit(scene, (width, height), Image.Resampling.LANCZOS))
    mixed = np.empty_like(foreground)
    for tile in tiles(height, width, _TILE):
        under = behind[tile].astype(np.float32)
        over = foreground[tile].astype(np.float32)
        mixed[tile] = np.rint(under + alpha[tile][..., None] * (over - under)).astype(np.uint8)
    return Image.fromarray(mixed)


def read_background(background: Source | Colour) -> Colour | np.ndarray:
    """Reads a background: a colour or an image.

    Args:
        background: a colour, or an image as in `read_image`. A colour is a name ("white"), a
            text such as "#rrggbb" or "rgb(0, 128, 0)", or three integers from 0 to 255. A text
            that names a colour is taken as one: write "./white" for a file of that name.

    Returns:
        The colour as a tuple of three integers, or the image as a uint8 array (H, W, 3).

    Raises:
        ImageError: if it is neither.
    """
    if isinstance(background, tuple | list):
        return _checked_colour(background)
    if not isinstance(background, str):
        return read_image(background)
    try:
        colour = ImageColor.getrgb(background)
    except ValueError:
        try:
            return read_image(background)
        except ImageError as error:
            raise ImageError(
                f"Background {background!r}: neither a colour (such as white, #00ff00) "
                f"nor an image that can be read ({error})"
            ) from error
    if len(colour) == 4:
        raise ImageError(f"Background {background!r}: expected a colour without transparency.")
    return colour


def _checked_colour(colour: Sequence[Any]) -> Colour:
    try:
        levels = tuple(operator.index(level) for level in colour)
    except TypeError:
        levels = ()
    if len(levels) != 3 or not all(0 <= level <= 255 for level in levels):
        raise ImageError(
            "Background: expected a colour of three integers from 0 to 255, received a "
            f"{type(colour).__name__} of {', '.join(_short(level) for level in colour[:4])}. "
            "Multiply floats in [0, 1] by 255 and round them."
        )
    red, green, blue = levels
    return red, green, blue


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, int | float) else type(value).__name__


def _to_levels(alpha: np.ndarray) -> np.ndarray:
    return np.rint(alpha * 255).astype(np.uint8)
