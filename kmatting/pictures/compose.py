"""Draws cutouts and composites from foreground colours and an alpha; reads backgrounds."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageOps

from kmatting.errors import ImageError
from kmatting.images import Source, read_image
from kmatting.images.tiles import tiles

Colour = tuple[int, int, int]
Background = Source | Colour  # not yet read

_TILE = 256  # side in pixels


def draw_cutout(
    foreground: np.ndarray, alpha: np.ndarray, shadow: np.ndarray | None = None, bits: int = 8
) -> Image.Image | np.ndarray:
    """Joins foreground colours and alpha.

    Args:
        foreground: uint8 array (H, W, 3), the colours of the foreground.
        alpha: float array (H, W) in [0, 1].
        shadow: float32 array (H, W) in [0, 1], how much black lies behind the subject; or None.
        bits: 8 or 16, of alpha. Colours have 8 bits in either case.

    Returns:
        PIL image in mode RGBA; with 16 bits a uint16 array (H, W, 4). Not premultiplied.
        Transparent pixels are black, so that the file holds nothing of the background.
    """
    dtype = np.uint8 if bits == 8 else np.uint16
    white = np.iinfo(dtype).max
    pixels = np.empty((*alpha.shape, 4), dtype)
    for tile in tiles(alpha.shape[0], alpha.shape[1], _TILE):
        opacity = alpha[tile]
        share: np.ndarray | None = None
        if shadow is not None:
            opacity = opacity + (1 - opacity) * shadow[tile]
            share = alpha[tile] / np.maximum(opacity, np.float32(1e-6))
        levels = np.rint(opacity * white).astype(dtype)
        visible = (levels > 0).astype(dtype) * dtype(white // 255)
        for channel in range(3):  # NumPy is slow along an axis of three
            colour = foreground[tile][..., channel]
            if share is not None:
                colour = np.rint(colour * share).astype(np.uint8)
            np.multiply(colour, visible, out=pixels[tile][..., channel])
        pixels[tile][..., 3] = levels
    return Image.fromarray(pixels) if bits == 8 else pixels


def draw_composite(
    foreground: np.ndarray,
    alpha: np.ndarray,
    background: Colour | np.ndarray,
    shadow: np.ndarray | None = None,
) -> Image.Image:
    """Lays a foreground over a new background: alpha * foreground + (1 - alpha) * background.

    Args:
        foreground: uint8 array (H, W, 3), the colours of the foreground.
        alpha: float array (H, W) in [0, 1].
        background: a colour or an image, as returned by `read_background`. An image is scaled to
            cover the photo and cropped around its centre.
        shadow: float32 array (H, W) in [0, 1], by which the background is darkened; or None.

    Returns:
        PIL image in mode RGB, of the photo's size.
    """
    height, width = alpha.shape
    if isinstance(background, tuple):
        scene = np.broadcast_to(np.array(background, np.uint8), foreground.shape)
    else:
        image = Image.fromarray(background)
        scene = np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS))
    mixed = np.empty_like(foreground)
    for tile in tiles(height, width, _TILE):
        for channel in range(3):  # as above
            under = scene[tile][..., channel].astype(np.float32)
            if shadow is not None:
                under *= 1 - shadow[tile]
            mixture = foreground[tile][..., channel] - under
            mixture *= alpha[tile]
            mixture += under
            mixed[tile][..., channel] = np.rint(mixture, out=mixture)
    return Image.fromarray(mixed)


def read_background(background: Background) -> Colour | np.ndarray:
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
    if not background.strip():
        raise ImageError("Background: expected a colour or the path of an image, received nothing.")
    if "://" in background:
        raise ImageError(
            f"Background {background!r}: is a web address; download the image and give its path."
        )
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
