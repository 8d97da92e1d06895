"""Brings a matte from the network's size to the photo's own, with the edges of the photo.

A network sees a large photo reduced, so a bilinear enlargement of its matte has edges as soft as
the reduction made them. Here the matte is expressed, in each 3x3 window of the small photo, as a
linear function of the colours (the guided filter of He, Sun and Tang 2013), and that function is
applied to the full photo (its fast variant, He and Sun 2015). Three things are added:

- Softness. A predicted matte is softer than the photo it came from, so a fit against the sharp
  photo comes out too flat. The small photo is therefore blurred as the matte is: by the least blur
  that explains the matte nearly as well as the best does, since more blur tends to fit better.
- Trust. Where the subject is out of focus, bilinear enlargement is right, and the texture of the
  photo would only disturb it. The same holds where colours do not explain the matte. A soft edge
  counts as in focus where the photo has the matte's own detail, only stronger.
- Range. The result stays within the range of the small matte's 5x5 neighbourhood, so nothing is
  invented where the network saw nothing.

`docs/edges.md` compares this with bilinear enlargement.
"""

import functools
import math
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from kmatting.errors import UsageError
from kmatting.inference.tiles import Interpolation, tiles

EPSILON = 1e-4  # variance of colours in [0, 1] under which a window counts as flat
SOFTNESS = (0.0, 0.5, 0.8, 1.1, 1.5)  # sigmas tried on the small photo, in its pixels
NEARLY_BEST = 1.35  # times the least squared error: a blur that fits as well is preferred
LEAST_RANGE = 0.02  # of the matte; below it steps are those of 8-bit levels
# Where focus is 0 and 1: steepness of a matte that is in focus by itself, of one that may be, and
# steepness times gain of the latter.
STEEP = (0.38, 0.48)
SOFT = (0.2, 0.3)
SHARPENED = (0.35, 0.5)
# Squared error of the fit by the squared detail of the matte: explained, not.
UNEXPLAINED = (0.3, 1.0)
GRAIN = 0.15  # sigma on the full photo, in pixels of the small one: takes the sensor's noise out
# Pixels of a tile of the full photo, and of the small one: what is computed of a tile fits into a
# processor's cache.
_TILE = (64, 256)
FIT_TILE = 64
JUDGED_TILES = 8  # that decide on the softness of the whole matte
FLAT = 1e-3  # a quarter of an 8-bit level
_FAINT = 0.01  # of the contrast of a matte's strongest tile: others are too flat to be judged by


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
        raise UsageError(
            "Expected a matte (h, w) and a uint8 photo (H, W, 3), received "
            f"{alpha.shape} and {image.dtype} {image.shape}."
        )
    alpha = alpha.astype(np.float32, copy=False)
    full = height, width = image.shape[:2]
    if alpha.shape == full:
        return alpha
    if alpha.shape[0] >= height and alpha.shape[1] >= width:
        reduced = Image.fromarray(alpha).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(reduced).clip(0, 1)

    # A photo may be larger than its matte along one axis alone.
    small = min(alpha.shape[0], height), min(alpha.shape[1], width)
    if alpha.shape != small:
        alpha = np.asarray(Image.fromarray(alpha).resize(small[::-1], Image.Resampling.BILINEAR))

    lowest, highest = _local(alpha, np.minimum, 5), _local(alpha, np.maximum, 5)
    spread = highest - lowest
    guide = np.asarray(Image.fromarray(image).resize(small[::-1], Image.Resampling.BOX))
    slope, offset, error = _fit(alpha, guide, spread)
    extent = _local(highest, np.maximum, 5) - _local(lowest, np.minimum, 5)
    trust = _trust(alpha, guide, extent, slope, error)
    # The enlargement of trust * fit + (1 - trust) * alpha, at the cost of the fit alone.
    offset = trust * offset + (1 - trust) * alpha
    planes = np.stack([offset, *(trust * slope), lowest, highest])
    spread[trust == 0] = 0
    # A pixel of the photo lies between neighbours.
    uneven = _local(spread, np.maximum, 3) >= FLAT

    sigma = GRAIN * max(height / small[0], width / small[1])
    whole = Interpolation(small[1], width, slice(0, width))
    refined = np.empty(full, np.float32)
    for top in range(0, height, _TILE[0]):
        rows = slice(top, min(top + _TILE[0], height))
        down = Interpolation(small[0], height, rows)
        refined[rows] = down(whole(alpha[down.source], axis=1), axis=0)
        for columns in _spans(np.any(uneven[down.source], axis=0), width):
            across = Interpolation(small[1], width, columns)
            near = across(planes[:, down.source, across.source], axis=2)
            value, *slopes, least, greatest = down(near, axis=1)
            for plane, colour in zip(
                slopes, _without_grain(image, rows, columns, sigma), strict=True
            ):
                value += plane * colour
            np.clip(value, least, greatest, out=refined[rows, columns])
    return refined


def _fit(
    alpha: np.ndarray, guide: np.ndarray, spread: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fits the matte by a linear function of the colours around each pixel.

    Args:
        alpha: float32 array (h, w).
        guide: uint8 array (h, w, 3), the photo at the same size.
        spread: float32 array (h, w), range of the matte around each pixel.

    Returns:
        slope: float32 array (3, h, w), a plane for each channel, to be multiplied by 8-bit colours.
        offset: float32 array (h, w).
        error: float32 array (h, w), squared error of the fit on the softened photo.
    """
    if not np.isfinite(alpha).all():
        raise UsageError("Expected a matte of finite numbers, received some that are none.")
    slope = np.zeros((3, *alpha.shape), np.float32)
    error = np.zeros(alpha.shape, np.float32)
    offset = alpha.copy()  # right wherever the matte is flat
    height, width = alpha.shape
    edges = [tile for tile in tiles(height, width, FIT_TILE) if spread[tile].max() >= FLAT]
    if not edges:
        return slope, offset, error

    widest = _reach(SOFTNESS[-1]) + 2
    borders = ((widest, widest), (widest, widest))
    padded_alpha = np.pad(alpha, borders, mode="edge")
    channels = np.moveaxis(guide, -1, 0) / np.float32(255)
    padded_guide = np.pad(channels, ((0, 0), *borders), mode="edge")

    def fit(rows: slice, columns: slice, sigma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Fits a tile; the last array is the squared error."""

        def with_margin(values: np.ndarray, margin: int) -> np.ndarray:
            trim = widest - margin
            bottom, right = rows.stop + widest + margin, columns.stop + widest + margin
            return values[..., rows.start + trim : bottom, columns.start + trim : right]

        colours = _blurred(with_margin(padded_guide, 2 + _reach(sigma)), sigma)
        slopes, offsets = _window_fit(with_margin(padded_alpha, 2), colours)
        fitted = offsets + (slopes * colours[:, 2:-2, 2:-2]).sum(axis=0)
        return slopes, offsets, np.square(fitted - with_margin(padded_alpha, 0))

    step = -(-len(edges) // JUDGED_TILES)
    contrasts = {
        index: np.square(spread[edges[index]]).sum() for index in range(0, len(edges), step)
    }
    least = _FAINT * max(contrasts.values())
    judged = [index for index, contrast in contrasts.items() if contrast >= least]
    fits = [{index: fit(*edges[index], sigma) for index in judged} for sigma in SOFTNESS]
    errors = [sum(fitted[2].sum() for fitted in each.values()) for each in fits]
    best = next(i for i, total in enumerate(errors) if total <= NEARLY_BEST * min(errors))
    for index, (rows, columns) in enumerate(edges):
        fitted = fits[best].get(index) or fit(rows, columns, SOFTNESS[best])
        slopes, offset[rows, columns], error[rows, columns] = fitted
        slope[:, rows, columns] = slopes / 255
    return slope, offset, error


def _trust(
    alpha: np.ndarray,
    guide: np.ndarray,
    extent: np.ndarray,
    slope: np.ndarray,
    error: np.ndarray,
) -> np.ndarray:
    """Says how far the fit may replace the bilinear enlargement.

    Steepness is the largest step between neighbours within 5x5 by the range within 9x9. A sharp
    edge has 1; one blurred by a Gaussian of sigma 1, 1.5 and 2 pixels has 0.38, 0.26 and 0.2.

    A softer edge may be soft in the photo, too, or in the matte alone. Detail is the difference
    from the 3x3 mean, and gain is how many times the matte's own detail the fit takes from the
    photo: 1 if both are equally soft, 2 and more if the photo is sharp. Least squares find it
    within 5x5, so that texture counts little.

    Args:
        alpha: float32 array (h, w) in [0, 1].
        guide: uint8 array (h, w, 3), the photo at the same size.
        extent: float32 array (h, w), range of the matte within 9x9.
        slope: float32 array (3, h, w), of the fit.
        error: float32 array (h, w), squared error of the fit.

    Returns:
        float32 array (h, w) in [0, 1].
    """
    padded = np.pad(alpha, ((0, 1), (0, 1)), mode="edge")
    steps = np.hypot(padded[:-1, 1:] - alpha, padded[1:, :-1] - alpha)
    steepness = _local(steps, np.maximum, 5) / np.maximum(extent, LEAST_RANGE)

    own, taken = _detail(alpha), np.zeros_like(alpha)
    for plane, channel in zip(slope, np.moveaxis(guide, -1, 0), strict=True):
        taken += plane * _detail(channel.astype(np.float32))
    energy = np.maximum(_local(np.square(own), np.add, 5), 1e-6)
    gain = _local(own * taken, np.add, 5) / energy
    focus = np.maximum(
        _share(steepness, *STEEP),
        _share(steepness, *SOFT) * _share(steepness * gain, *SHARPENED),
    )
    unexplained = _local(error, np.add, 5) / energy
    return (focus * (1 - _share(unexplained, *UNEXPLAINED))).astype(np.float32)


def _detail(values: np.ndarray) -> np.ndarray:
    """Takes the difference of an array (h, w) from its 3x3 mean."""
    return values - _local(values, np.add, 3) / 9


def _share(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Says how far values are on the way from `low`, 0, to `high`, 1."""
    return ((values - low) / (high - low)).clip(0, 1)


def _window_fit(alpha: np.ndarray, colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solves the guided filter's regression in each 3x3 window (equations 19 to 21 of He 2013).

    Args:
        alpha: float array (h, w).
        colours: float array (3, h, w).

    Returns:
        The slopes (3, h - 4, w - 4) and the offset (h - 4, w - 4), each the mean over the windows
        that a pixel is in; the two outermost rows and columns are not in nine of them.
    """
    red, green, blue = colours
    terms = np.empty((13, *alpha.shape), alpha.dtype)
    terms[0] = alpha
    terms[1:4] = colours
    np.multiply(colours, alpha, out=terms[4:7])
    np.multiply(colours, red, out=terms[7:10])
    np.multiply(colours[1:], green, out=terms[10:12])
    np.multiply(blue, blue, out=terms[12])
    means = _mean(terms)
    mean_alpha, (m_r, m_g, m_b) = means[0], means[1:4]
    r, g, b = means[4:7] - means[1:4] * mean_alpha
    rr, rg, rb, gg, gb, bb = means[7:]
    rr += EPSILON - m_r * m_r
    gg += EPSILON - m_g * m_g
    bb += EPSILON - m_b * m_b
    rg -= m_r * m_g
    rb -= m_r * m_b
    gb -= m_g * m_b
    # Elimination in the symmetric matrix; its cofactors would cancel in float32.
    g_by_r, b_by_r = rg / rr, rb / rr
    gg -= g_by_r * rg
    gb -= g_by_r * rb
    b_by_g = gb / gg
    bb -= b_by_r * rb + b_by_g * gb
    g -= g_by_r * r
    b -= b_by_r * r + b_by_g * g
    b /= bb
    g = g / gg - b_by_g * b
    r = r / rr - g_by_r * g - b_by_r * b
    fitted = _mean(np.stack([r, g, b, mean_alpha - r * m_r - g * m_g - b * m_b]))
    return fitted[:3], fitted[3]


def _mean(values: np.ndarray) -> np.ndarray:
    """Takes the mean of each 3x3 window, along the last two axes."""
    rows = values[..., :-2, :] + values[..., 1:-1, :]
    rows += values[..., 2:, :]
    total = rows[..., :-2] + rows[..., 1:-1]
    total += rows[..., 2:]
    total *= 1 / 9
    return total


def _blurred(values: np.ndarray, sigma: float) -> np.ndarray:
    """Softens by a Gaussian along the last two axes; its reach is lost at each border."""
    reach = _reach(sigma)
    if reach == 0:
        return values
    weights = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    weights /= weights[0] + 2 * weights[1:].sum()
    for axis in (-2, -1):
        length = values.shape[axis] - 2 * reach
        shifted = [_part(values, axis, shift, length) for shift in range(2 * reach + 1)]
        values = float(weights[0]) * shifted[reach]
        for distance in range(1, reach + 1):
            pair = shifted[reach - distance] + shifted[reach + distance]
            pair *= weights[distance]
            values += pair
    return values


def _part(values: np.ndarray, axis: int, start: int, length: int) -> np.ndarray:
    """Cuts a part out of an array along its last axis (-1) or the one before it (-2)."""
    span = slice(start, start + length)
    return values[..., span] if axis == -1 else values[..., span, :]


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


def _spans(uneven: np.ndarray, width: int) -> Iterator[slice]:
    """Finds the columns of a strip of the photo that are not flat.

    Args:
        uneven: bool array (w,), the columns of the small matte that are not flat, and their
            neighbours.
        width: width of the photo.

    Yields:
        Spans of the photo's columns, at most as wide as a tile.
    """
    scale = width / len(uneven)
    bounds = np.flatnonzero(np.diff(uneven, prepend=False, append=False)) * scale
    for start, stop in bounds.reshape(-1, 2):
        end = min(math.ceil(stop), width)  # rounding must not lead out of the photo
        for left in range(int(start), end, _TILE[1]):
            yield slice(left, min(left + _TILE[1], end))


def _without_grain(image: np.ndarray, rows: slice, columns: slice, sigma: float) -> np.ndarray:
    """Softens a tile of the photo slightly, without a seam to the next tile.

    The filter is a box of some width, applied twice along each axis: exact in integers.

    Args:
        image: uint8 array (H, W, 3).
        rows: rows of the tile.
        columns: columns of the tile.
        sigma: standard deviation of the filter in pixels, met to the next whole width.

    Returns:
        float32 array (3, h, w), the channels of the tile, levels in [0, 255].
    """
    box = round((6 * sigma**2 + 1) ** 0.5)  # the variance of two boxes is (box^2 - 1) / 6
    margin = box - 1
    height, width = image.shape[:2]
    top, left = max(rows.start - margin, 0), max(columns.start - margin, 0)
    part = image[top : rows.stop + margin, left : columns.stop + margin]
    missing = [  # beyond the border of the photo, which is repeated
        (max(margin - rows.start, 0), max(rows.stop + margin - height, 0)),
        (max(margin - columns.start, 0), max(columns.stop + margin - width, 0)),
    ]
    if np.any(missing):
        part = np.pad(part, (*missing, (0, 0)), mode="edge")
    levels = np.moveaxis(part, -1, 0).astype(np.min_scalar_type(255 * box**4), order="C")
    for axis in (-2, -1, -2, -1):
        length = levels.shape[axis] - margin
        total = _part(levels, axis, 0, length).copy()
        for shift in range(1, box):
            total += _part(levels, axis, shift, length)
        levels = total
    return levels.astype(np.float32) * np.float32(1 / box**4)
