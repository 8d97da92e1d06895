"""Brings a matte from the network's size to the photo's own, with the edges of the photo.

A network sees a large photo reduced, so a bilinear enlargement of its matte has edges as soft as
the reduction made them. Here the matte is expressed, in each 3x3 window of the small photo, as a
linear function of the colours (the guided filter of He, Sun and Tang 2013), and that function is
applied to the full photo (its fast variant, He and Sun 2015). Three things are added:

- Softness. A predicted matte is softer than the photo it came from, so a fit against the sharp
  photo comes out too flat. The small photo is therefore blurred as the matte is: by the least blur
  that explains the matte nearly as well as the best does, since more blur tends to fit better.
- Trust. An edge that is much wider than a pixel of the small matte is out of focus: bilinear
  enlargement is right there, and the texture of the photo would only disturb it. The same holds
  where colours do not explain the matte. There the enlargement stays bilinear.
- Range. The result stays within the range of the small matte's 5x5 neighbourhood, so nothing is
  invented where the network saw nothing.

`docs/edges.md` compares this with bilinear enlargement.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageFilter

from kmatting.inference.tiles import covered, enlarge_tile, tiles

_EPSILON = 1e-4  # variance of colours in [0, 1] under which a window counts as flat
_SOFTNESS = (0.0, 0.5, 0.8, 1.1, 1.5)  # sigmas tried on the small photo, in its pixels
_NEARLY_BEST = 1.35  # times the least squared error: a blur that fits as well is preferred
# Largest step between neighbours within 5x5 by the range within 9x9: out of focus, in focus. A
# sharp edge has 1; one blurred by a Gaussian of sigma 1, 1.5 and 2 pixels has 0.38, 0.26 and 0.2.
_STEEPNESS = (0.3, 0.4)
_LEAST_RANGE = 0.02  # below it steps are those of 8-bit levels
# Squared error of the fit by the matte's squared distance from its 3x3 mean: explained, not.
_UNEXPLAINED = (0.3, 1.0)
_GRAIN = 0.15  # sigma on the full photo, in pixels of the small one: takes the sensor's noise out
_TILE = 256  # pixels a side of the full photo; flat tiles are quick
_FIT_TILE = 64  # and of the small one: its intermediate results fit into a processor's cache
_JUDGED_TILES = 8  # that decide on the softness of the whole matte
_FLAT = 1e-3  # a quarter of an 8-bit level


def refine(alpha: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Brings a matte to the size of its photo.

    Args:
        alpha: float32 array (h, w) in [0, 1]: the matte of the whole photo at any size.
        image: uint8 array (H, W, 3), the photo.

    Returns:
        float32 array (H, W) in [0, 1]. Where the matte has the photo's size it is returned as it
        is; where it is larger it is reduced.

    Raises:
        ValueError: if an array has another shape or dtype.

    Reference:
        He, Sun, Tang, "Guided Image Filtering", PAMI 2013; He, Sun, "Fast Guided Filter",
        arXiv 1505.00996.
    """
    if alpha.ndim != 2 or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            "Expected a matte (h, w) and a uint8 photo (H, W, 3), received "
            f"{alpha.shape} and {image.dtype} {image.shape}."
        )
    alpha = alpha.astype(np.float32, copy=False)
    full = height, width = image.shape[:2]
    if alpha.shape == full:
        return alpha
    if alpha.shape[0] >= height and alpha.shape[1] >= width:
        small = Image.fromarray(alpha).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(small).clip(0, 1)

    lowest, highest = _local(alpha, np.minimum, 5), _local(alpha, np.maximum, 5)
    spread = highest - lowest
    guide = Image.fromarray(image).resize(alpha.shape[::-1], Image.Resampling.BOX)
    slope, offset, error = _fit(alpha, np.asarray(guide), spread)
    trust = _trust(alpha, error)
    # The enlargement of trust * fit + (1 - trust) * alpha, at the cost of the fit alone.
    slope = [trust * plane for plane in slope]
    offset = trust * offset + (1 - trust) * alpha
    spread[trust == 0] = 0
    sigma = _GRAIN * max(height / alpha.shape[0], width / alpha.shape[1])
    refined = np.empty(full, np.float32)
    for tile in tiles(height, width, _TILE):
        if _is_flat(spread, covered(alpha.shape, full, *tile)):
            refined[tile] = enlarge_tile(alpha, full, *tile)
            continue
        value = enlarge_tile(offset, full, *tile)
        colours = _without_grain(image, *tile, sigma)
        for channel in range(3):
            value += enlarge_tile(slope[channel], full, *tile) * colours[..., channel]
        least, greatest = (enlarge_tile(plane, full, *tile) for plane in (lowest, highest))
        refined[tile] = np.clip(value, least, greatest)
    return refined


def _fit(
    alpha: np.ndarray, guide: np.ndarray, spread: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Fits the matte by a linear function of the colours around each pixel.

    Args:
        alpha: float array (h, w).
        guide: uint8 array (h, w, 3), the photo at the same size.
        spread: float array (h, w), range of the matte around each pixel.

    Returns:
        slope: three arrays (h, w), one for each channel, to be multiplied by 8-bit colours.
        offset: array (h, w).
        error: array (h, w), squared error of the fit on the softened photo.
    """
    if not np.isfinite(alpha).all():
        raise ValueError("Expected a matte of finite numbers, received some that are none.")
    slope = [np.zeros(alpha.shape, np.float32) for _ in range(3)]
    error = np.zeros(alpha.shape, np.float32)
    offset = alpha.astype(np.float32)  # right wherever the matte is flat
    height, width = alpha.shape
    edges = [tile for tile in tiles(height, width, _FIT_TILE) if spread[tile].max() >= _FLAT]
    if not edges:
        return slope, offset, error

    widest = _reach(_SOFTNESS[-1]) + 2
    borders = ((widest, widest), (widest, widest))
    padded_alpha = np.pad(alpha.astype(np.float64), borders, mode="edge")
    padded_guide = np.pad(guide / 255.0, (*borders, (0, 0)), mode="edge")

    def fit(
        rows: slice, columns: slice, sigma: float
    ) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Fits a tile; the last array is the squared error."""

        def with_margin(values: np.ndarray, margin: int) -> np.ndarray:
            trim = widest - margin
            bottom, right = rows.stop + widest + margin, columns.stop + widest + margin
            return values[rows.start + trim : bottom, columns.start + trim : right]

        part = with_margin(padded_guide, 2 + _reach(sigma))
        colours = [_blurred(part[..., channel], sigma) for channel in range(3)]
        slopes, offsets = _window_fit(with_margin(padded_alpha, 2), colours)
        inner = (colour[2:-2, 2:-2] for colour in colours)
        fitted = offsets + sum(a * colour for a, colour in zip(slopes, inner, strict=True))
        return slopes, offsets, np.square(fitted - with_margin(padded_alpha, 0))

    judged = edges[:: -(-len(edges) // _JUDGED_TILES)]
    errors = [sum(fit(*tile, sigma)[2].sum() for tile in judged) for sigma in _SOFTNESS]
    softness = next(
        sigma
        for sigma, total in zip(_SOFTNESS, errors, strict=True)
        if total <= _NEARLY_BEST * min(errors)
    )
    for tile in edges:
        slopes, offset[tile], error[tile] = fit(*tile, softness)
        for plane, values in zip(slope, slopes, strict=True):
            plane[tile] = values / 255
    return slope, offset, error


def _trust(alpha: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Says how far the fit may replace the bilinear enlargement.

    Args:
        alpha: float array (h, w) in [0, 1].
        error: float array (h, w), squared error of the fit.

    Returns:
        float32 array (h, w) in [0, 1].
    """
    padded = np.pad(alpha, ((0, 1), (0, 1)), mode="edge")
    steps = np.hypot(padded[:-1, 1:] - alpha, padded[1:, :-1] - alpha)
    extent = _local(alpha, np.maximum, 9) - _local(alpha, np.minimum, 9)
    steepness = _local(steps, np.maximum, 5) / np.maximum(extent, _LEAST_RANGE)
    structure = np.square(alpha - _local(alpha, np.add, 3) / 9)
    unexplained = _local(error, np.add, 5) / np.maximum(_local(structure, np.add, 5), 1e-6)
    trust = _share(steepness, *_STEEPNESS) * (1 - _share(unexplained, *_UNEXPLAINED))
    return trust.astype(np.float32)


def _share(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Says how far values are on the way from `low`, 0, to `high`, 1."""
    return ((values - low) / (high - low)).clip(0, 1)


def _window_fit(
    alpha: np.ndarray, colours: list[np.ndarray]
) -> tuple[list[np.ndarray], np.ndarray]:
    """Solves the guided filter's regression in each 3x3 window (equations 19 to 21 of He 2013).

    Args:
        alpha: float64 array (h, w).
        colours: three float64 arrays (h, w).

    Returns:
        Three slopes and the offset, (h - 4, w - 4), each the mean over the windows that a pixel is
        in; the two outermost rows and columns are not in nine of them.
    """
    mean_alpha = _mean(alpha)
    means = [_mean(colour) for colour in colours]
    r, g, b = (_mean(c * alpha) - m * mean_alpha for c, m in zip(colours, means, strict=True))
    rr, rg, rb, gg, gb, bb = (
        _mean(colours[i] * colours[j]) - means[i] * means[j] + (_EPSILON if i == j else 0.0)
        for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    )
    # The inverse of a symmetric 3x3 matrix by its cofactors.
    c_rr, c_rg, c_rb = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
    c_gg, c_gb, c_bb = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    determinant = rr * c_rr + rg * c_rg + rb * c_rb
    slope = [
        (c_rr * r + c_rg * g + c_rb * b) / determinant,
        (c_rg * r + c_gg * g + c_gb * b) / determinant,
        (c_rb * r + c_gb * g + c_bb * b) / determinant,
    ]
    offset = mean_alpha - sum(a * m for a, m in zip(slope, means, strict=True))
    return [_mean(a) for a in slope], _mean(offset)


def _filtered(values: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """Filters an array (h, w) by weights along both axes, where it has all that they reach."""
    height, width = (side - len(weights) + 1 for side in values.shape)
    rows = weights[0] * values[:height]
    for shift in range(1, len(weights)):
        rows += weights[shift] * values[shift : shift + height]
    result = weights[0] * rows[:, :width]
    for shift in range(1, len(weights)):
        result += weights[shift] * rows[:, shift : shift + width]
    return result


def _mean(values: np.ndarray) -> np.ndarray:
    """Takes the mean of each 3x3 window."""
    return _filtered(values, (1 / 3, 1 / 3, 1 / 3))


def _blurred(values: np.ndarray, sigma: float) -> np.ndarray:
    """Softens by a Gaussian; its reach is lost at each border."""
    reach = _reach(sigma)
    if reach == 0:
        return values
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return _filtered(values, (weights / weights.sum()).tolist())


def _reach(sigma: float) -> int:
    """How many pixels to each side a Gaussian is taken to."""
    return int(np.ceil(3 * sigma))


def _local(
    values: np.ndarray, combine: Callable[[np.ndarray, np.ndarray], np.ndarray], side: int
) -> np.ndarray:
    """Takes the minimum, maximum or sum (`np.add`) of each window of side x side pixels."""
    height, width = values.shape
    padded = np.pad(values, side // 2, mode="edge")
    rows = functools.reduce(combine, (padded[shift : shift + height] for shift in range(side)))
    return functools.reduce(combine, (rows[:, shift : shift + width] for shift in range(side)))


def _is_flat(spread: np.ndarray, box: tuple[float, float, float, float]) -> bool:
    """Says whether the small matte is the same all over a tile and its neighbours."""
    left, upper = max(int(box[0]) - 1, 0), max(int(box[1]) - 1, 0)
    right, lower = int(np.ceil(box[2])) + 1, int(np.ceil(box[3])) + 1
    return bool(spread[upper:lower, left:right].max() < _FLAT)


def _without_grain(image: np.ndarray, rows: slice, columns: slice, sigma: float) -> np.ndarray:
    """Cuts a tile from the photo and softens it slightly, without a seam to the next tile."""
    margin = int(np.ceil(4 * sigma))
    top, left = max(rows.start - margin, 0), max(columns.start - margin, 0)
    part = Image.fromarray(image[top : rows.stop + margin, left : columns.stop + margin])
    part = part.filter(ImageFilter.GaussianBlur(sigma))
    return np.asarray(part)[
        rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ]
