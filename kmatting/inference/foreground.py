"""Foreground colours: what the subject looks like without the background that shines through.

At a soft edge a pixel of a photo mixes the subject with its old background. Laid over a new
background as it is, it shows a halo of the old one, so the subject's own colour is estimated first.
"""

import numpy as np
from PIL import Image

from kmatting.errors import UsageError
from kmatting.inference.tiles import covered, tiles

FOREGROUND_METHODS = ("ml", "fast", "none")

# Pixels of the photo that the layers are estimated on. More of them make the error a few percent
# smaller and cost time in proportion.
ESTIMATE_PIXELS = 384 * 384
_FAST_PIXELS = 160 * 160  # for method "fast"
STEPS = 8  # on each level of the pyramid
LEAST_WEIGHT = 1e-3  # keeps the mean defined where no neighbour has any of the layer
_FAST_MARGIN = 5  # levels from 0 and 255 within which "fast" takes the photo's colours
_TILE = 128  # pixels a side


def estimate_foreground(image: np.ndarray, alpha: np.ndarray, method: str = "ml") -> np.ndarray:
    """Estimates the colours of the foreground.

    Method "ml" solves image = alpha * F + (1 - alpha) * B on a pyramid of the reduced photo, from
    coarse to fine. A step on a level replaces F and B by the means of the four neighbours, weighted
    by alpha and by 1 - alpha, and adds what is missing to the photo's colour, shared out by least
    squares: F + alpha * rest / (alpha^2 + (1 - alpha)^2). Both layers are then enlarged and
    completed in the same way by the pixels of the full photo.

    Args:
        image: uint8 array (H, W, 3), RGB.
        alpha: float array (H, W) in [0, 1].
        method: "ml", the multi-level estimate; "fast", the same from fewer pixels, and only where
            alpha is more than 2 % from 0 and 1; or "none", the colours of the photo.

    Returns:
        uint8 array (H, W, 3). Where alpha is 1, to 8 bits, these are the colours of the photo;
        where it is 0 they are black.

    Raises:
        ValueError: if the method is unknown, or the shapes do not match.

    Reference:
        The step and the completion follow Forte and Pitie, "Approximate Fast Foreground Colour
        Estimation", ICIP 2021; the pyramid follows Germer, Uelwer, Conrad and Harmeling, "Fast
        Multi-Level Foreground Estimation", ICPR 2020.
    """
    if method not in FOREGROUND_METHODS:
        raise UsageError(f"Expected foreground 'ml', 'fast' or 'none', received {method!r}.")
    if image.dtype != np.uint8 or image.shape != (*alpha.shape, 3):
        raise UsageError(
            "Expected a uint8 image (H, W, 3) and an alpha (H, W) of its size, received "
            f"{image.dtype} {image.shape} and {alpha.shape}."
        )
    colours = np.empty_like(image)
    pixels, margin = (_FAST_PIXELS, _FAST_MARGIN) if method == "fast" else (ESTIMATE_PIXELS, 0)
    estimated: list[Image.Image] = []
    height, width = alpha.shape
    for tile in tiles(height, width, _TILE):
        opacity = np.rint(alpha[tile] * 255)
        visible = opacity > 0
        for channel in range(3):  # NumPy is slow along an axis of three
            np.multiply(image[tile][..., channel], visible, out=colours[tile][..., channel])
        soft = (opacity > margin) & (opacity < 255 - margin)
        if method == "none" or not soft.any():
            continue
        if not estimated:
            layers = _estimate_layers(image, alpha.astype(np.float32, copy=False), pixels)
            estimated = [Image.fromarray(layer) for layer in layers]
        _complete(colours, image, alpha, estimated, tile, soft)
    return colours


def _complete(
    colours: np.ndarray,
    image: np.ndarray,
    alpha: np.ndarray,
    estimated: list[Image.Image],
    tile: tuple[slice, slice],
    soft: np.ndarray,
) -> None:
    """Enlarges the layers where a tile is soft, and completes them by the pixels of the photo.

    Args:
        colours: uint8 array (H, W, 3); gets the colours of the foreground.
        image: uint8 array (H, W, 3).
        alpha: float array (H, W) in [0, 1].
        estimated: foreground and background, two small RGB images.
        tile: rows and columns of the tile.
        soft: bool array, the pixels of the tile that are wanted.
    """
    inner = _bounds(np.any(soft, axis=1)), _bounds(np.any(soft, axis=0))
    soft = soft[inner]
    rows, columns = (
        slice(outer.start + part.start, outer.start + part.stop)
        for outer, part in zip(tile, inner, strict=True)
    )
    size = columns.stop - columns.start, rows.stop - rows.start
    box = covered(estimated[0].size[::-1], alpha.shape, rows, columns)
    layers = [
        np.asarray(layer.resize(size, Image.Resampling.BILINEAR, box=box)) for layer in estimated
    ]
    opaque = alpha[rows, columns].astype(np.float32)
    shares = np.stack([opaque, 1 - opaque])
    for channel in range(3):
        pair = np.stack([layer[..., channel] for layer in layers]).astype(np.float32)
        completed = _completed(pair, shares, image[rows, columns, channel])[0]
        target = colours[rows, columns, channel]
        np.copyto(target, np.rint(completed).astype(np.uint8), where=soft)


def _bounds(values: np.ndarray) -> slice:
    """Spans the true ones of a bool array."""
    found = np.flatnonzero(values)
    return slice(int(found[0]), int(found[-1]) + 1)


def _estimate_layers(
    image: np.ndarray, alpha: np.ndarray, pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Estimates both layers of a photo reduced to a number of pixels: uint8 arrays (h, w, 3)."""
    height, width = alpha.shape
    scale = min(1.0, (pixels / (height * width)) ** 0.5)
    sizes = [(max(1, round(width * scale)), max(1, round(height * scale)))]
    while max(sizes[-1]) > 2:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    # The full photo is read once, and not held: each level is made from the one before.
    photos = [Image.fromarray(image).resize(sizes[0], Image.Resampling.BOX)]
    mattes = [Image.fromarray(alpha).resize(sizes[0], Image.Resampling.BOX)]
    for size in sizes[1:]:
        photos.append(photos[-1].resize(size, Image.Resampling.BOX))
        mattes.append(mattes[-1].resize(size, Image.Resampling.BOX))

    photo = np.moveaxis(np.asarray(photos[-1], np.float32), -1, 0)
    layers = np.stack([photo, photo])
    for small_photo, matte in zip(photos[::-1], mattes[::-1], strict=True):
        photo = np.ascontiguousarray(np.moveaxis(np.asarray(small_photo, np.float32), -1, 0))
        opaque = np.asarray(matte)
        if layers.shape[2:] != opaque.shape:
            rows, columns = opaque.shape
            layers = layers.repeat(2, axis=2).repeat(2, axis=3)[..., :rows, :columns]
        shares = np.stack([opaque, 1 - opaque])[:, None]
        weights = shares + np.float32(LEAST_WEIGHT)
        total = _sum_of_neighbours(weights)
        for _step in range(STEPS):
            means = _sum_of_neighbours(weights * layers)
            means /= total
            layers = _completed(means, shares, photo)
    foreground, background = np.rint(np.moveaxis(layers, 1, -1)).astype(np.uint8)
    return foreground, background


def _completed(layers: np.ndarray, shares: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """Adds to foreground and background what their mixture lacks of the photo's colour.

    Of all corrections that make the mixture equal to the photo this is the smallest. Colours that
    leave the range are cut off.

    Args:
        layers: float32 array (2, ...), colours in [0, 255] of foreground and background.
        shares: float32 array (2, ...), alpha and 1 - alpha.
        photo: array (...), colours in [0, 255].

    Returns:
        float32 array (2, ...) in [0, 255].
    """
    rest = photo - (shares[0] * layers[0] + shares[1] * layers[1])
    rest /= np.square(shares[0]) + np.square(shares[1])
    completed = shares * rest
    completed += layers
    return np.clip(completed, 0, 255, out=completed)


def _sum_of_neighbours(values: np.ndarray) -> np.ndarray:
    """Sums the four neighbours along the last two axes; borders are repeated."""
    borders = [(0, 0)] * (values.ndim - 2) + [(1, 1), (1, 1)]
    padded = np.pad(values, borders, mode="edge")
    total = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1]
    total += padded[..., 1:-1, :-2]
    total += padded[..., 1:-1, 2:]
    return total
