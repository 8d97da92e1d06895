"""Brings a matte to the size of its photo in a TensorFlow graph.

The steps are those of `kmatting.inference.refine`, which says what they are for; the numbers are
the same but for rounding.
"""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from kmatting.exporting.graph.resize import resize
from kmatting.exporting.graph.tiles import cut, enlarge_tile, over_tiles
from kmatting.inference import refine as reference

_WIDEST = math.ceil(3 * max(reference.SOFTNESS))  # reach of the widest Gaussian
_MARGIN = _WIDEST + 2  # that a fit needs around a pixel: the Gaussian and two windows of 3x3
_TILE = 256  # pixels a side of the full photo


def refine(alpha: Any, image: Any) -> Any:
    """Brings a matte to the size of its photo.

    Args:
        alpha: float32 tensor (h, w) in [0, 1].
        image: uint8 tensor (H, W, 3), the photo.

    Returns:
        float32 tensor (H, W) in [0, 1].
    """
    size = tf.shape(image)[:2]
    small = tf.minimum(tf.shape(alpha), size)  # a photo may be larger along one axis alone
    alpha = resize(alpha[None, ..., None], small, "bilinear")[0, ..., 0]
    return tf.cond(
        tf.reduce_all(small == size),
        lambda: tf.clip_by_value(alpha, 0, 1),
        lambda: _refined(alpha, image),
    )


def _refined(alpha: Any, image: Any) -> Any:
    lowest, highest = -_largest(-alpha, 5), _largest(alpha, 5)
    spread = highest - lowest
    guide = resize(image[None], tf.shape(alpha), "box")[0]
    slope, offset, error = _fit(alpha, guide, _tiles_with_edges(spread))
    trust = _trust(alpha, guide, slope, error)
    offset = trust * offset + (1 - trust) * alpha
    slope = tf.unstack(trust[..., None] * slope, axis=-1)
    planes = tf.stack([*slope, offset, lowest, highest], -1)
    uneven = _largest(tf.where(trust > 0, spread, 0), 3) >= reference.FLAT
    return _enlarge(alpha, planes, uneven, image)


def _enlarge(alpha: Any, planes: Any, uneven: Any, image: Any) -> Any:
    """Applies the fit to the full photo, tile by tile.

    Args:
        alpha: float32 tensor (h, w).
        planes: float32 tensor (h, w, 6): three slopes, the offset, and the range of the result.
        uneven: bool tensor (h, w), where the matte is not flat.
        image: uint8 tensor (H, W, 3).

    Returns:
        float32 tensor (H, W).
    """
    large, small = tf.shape(image)[:2], tf.shape(alpha)
    scale = small / large
    sigma = reference.GRAIN * tf.reduce_max(large / small)

    def tile(corner: Any) -> Any:
        first = tf.cast(tf.floor(tf.cast(corner, tf.float64) * scale), tf.int32)
        end = tf.cast(tf.math.ceil(tf.cast(corner + _TILE, tf.float64) * scale), tf.int32)
        has_edges = tf.reduce_any(uneven[first[0] : end[0], first[1] : end[1]])

        def bilinear() -> Any:
            return enlarge_tile(alpha[..., None], large, corner, _TILE)[..., 0]

        def fitted() -> Any:
            values = enlarge_tile(planes, large, corner, _TILE)
            colours = _without_grain(image, corner, sigma)
            value = tf.reduce_sum(values[..., :3] * colours, -1) + values[..., 3]
            return tf.clip_by_value(value, values[..., 4], values[..., 5])

        return tf.cond(has_edges, fitted, bilinear)

    return over_tiles(tile, large, _TILE, tf.TensorSpec((_TILE, _TILE), tf.float32))


def _tiles_with_edges(spread: Any) -> Any:
    """Says which tiles of a small matte are not flat; bool tensor (rows, columns) of tiles."""
    side = reference.FIT_TILE
    missing = -tf.shape(spread) % side
    padded = tf.pad(spread, [(0, missing[0]), (0, missing[1])])
    grid = tf.shape(padded) // side
    tiles = tf.reshape(padded, (grid[0], side, grid[1], side))
    return tf.reduce_max(tiles, (1, 3)) >= reference.FLAT


def _fit(alpha: Any, guide: Any, edges: Any) -> tuple[Any, Any, Any]:
    """Fits the matte by a linear function of the colours around each pixel.

    Args:
        alpha: float32 tensor (h, w).
        guide: uint8 tensor (h, w, 3), the photo at the same size.
        edges: bool tensor, which tiles are fitted.

    Returns:
        float32 tensors: slopes (h, w, 3) for 8-bit colours, the offset (h, w), and the squared
        error (h, w). Outside of the fitted tiles they are 0, the matte and 0.
    """
    colours = tf.cast(guide, tf.float32) / 255
    plane, shape = alpha[..., None], tf.shape(alpha)
    whole = [tf.range(-_MARGIN, shape[axis] + _MARGIN) for axis in (0, 1)]
    slope, offset, error = _window_fit(
        cut(plane, *whole)[None], cut(colours, *whole)[None], _softness(plane, colours, edges)
    )
    inside = tf.repeat(tf.repeat(edges, reference.FIT_TILE, 0), reference.FIT_TILE, 1)
    inside = inside[: shape[0], : shape[1]]
    return (
        tf.where(inside[..., None], slope[0] / 255, 0),
        tf.where(inside, offset[0], alpha),
        tf.where(inside, error[0], 0),
    )


def _softness(alpha: Any, guide: Any, edges: Any) -> Any:
    """Chooses the Gaussian, float32 (taps,), by which the guide is softened."""
    side = reference.FIT_TILE
    corners = tf.cast(tf.where(edges), tf.int32) * side
    step = tf.maximum(-(-tf.shape(corners)[0] // reference.JUDGED_TILES), 1)
    corners = corners[::step]
    reached = tf.range(-_MARGIN, side + _MARGIN)

    def patch(corner: Any) -> tuple[Any, Any]:
        rows, columns = corner[0] + reached, corner[1] + reached
        return cut(alpha, rows, columns), cut(guide, rows, columns)

    full = side + 2 * _MARGIN
    specs = tuple(tf.TensorSpec((full, full, count), tf.float32) for count in (1, 3))
    alphas, guides = tf.map_fn(patch, corners, fn_output_signature=specs)
    inside = corners[:, None] + tf.range(side)[None, :, None] < tf.shape(alpha)[:2]
    inside = tf.cast(inside[:, :, None, 0] & inside[:, None, :, 1], tf.float32)

    kernels = tf.constant(np.stack([_gaussian(sigma) for sigma in reference.SOFTNESS]))
    errors = tf.stack(
        [
            tf.reduce_sum(inside * _window_fit(alphas, guides, kernel)[2])
            for kernel in tf.unstack(kernels)
        ]
    )
    good = errors <= reference.NEARLY_BEST * tf.reduce_min(errors)
    return kernels[tf.argmax(tf.cast(good, tf.int32))]


def _gaussian(sigma: float) -> np.ndarray:
    """Weights of a Gaussian, as many as the widest one has."""
    steps = np.arange(-_WIDEST, _WIDEST + 1)
    weights = np.exp(-0.5 * (steps / max(sigma, 1e-9)) ** 2) * (abs(steps) <= _reach(sigma))
    return (weights / weights.sum()).astype(np.float32)


def _reach(sigma: float) -> int:
    """How many pixels to each side a Gaussian is taken to."""
    return math.ceil(3 * sigma)


def _window_fit(alpha: Any, guide: Any, kernel: Any) -> tuple[Any, Any, Any]:
    """Solves the guided filter's regression in each 3x3 window (equations 19 to 21 of He 2013).

    Args:
        alpha: float32 tensor (N, h, w, 1) with `_MARGIN` pixels more on each side.
        guide: float32 tensor (N, h, w, 3), likewise.
        kernel: float32 tensor (taps,), by which the guide is softened.

    Returns:
        float32 tensors without the margin: slopes (N, h, w, 3), offset and squared error
        (N, h, w).
    """
    colours = _filtered(guide, tf.unstack(kernel))
    alpha = alpha[:, _WIDEST:-_WIDEST, _WIDEST:-_WIDEST]
    red, green, blue = (colours[..., i : i + 1] for i in range(3))
    products = colours * colours, red * green, red * blue, green * blue
    means = _mean(tf.concat([alpha, colours, colours * alpha, *products], -1))
    mean_alpha, mean, with_alpha = means[..., 0], means[..., 1:4], means[..., 4:7]
    r, g, b = tf.unstack(with_alpha - mean * mean_alpha[..., None], axis=-1)
    rr, gg, bb = tf.unstack(means[..., 7:10] - mean * mean + reference.EPSILON, axis=-1)
    m_r, m_g, m_b = tf.unstack(mean, axis=-1)
    rg = means[..., 10] - m_r * m_g
    rb = means[..., 11] - m_r * m_b
    gb = means[..., 12] - m_g * m_b
    # Elimination in the symmetric matrix; its cofactors would cancel in float32.
    g_by_r, b_by_r = rg / rr, rb / rr
    gg, gb = gg - g_by_r * rg, gb - g_by_r * rb
    b_by_g = gb / gg
    bb -= b_by_r * rb + b_by_g * gb
    g -= g_by_r * r
    b = (b - b_by_r * r - b_by_g * g) / bb
    g = g / gg - b_by_g * b
    r = r / rr - g_by_r * g - b_by_r * b
    slope = tf.stack([r, g, b], -1)
    offset = mean_alpha - tf.reduce_sum(slope * mean, -1)
    averaged = _mean(tf.concat([slope, offset[..., None]], -1))
    slope, offset = averaged[..., :3], averaged[..., 3]
    inner = slice(2, -2)
    fitted = offset + tf.reduce_sum(slope * colours[:, inner, inner], -1)
    return slope, offset, tf.square(fitted - alpha[:, inner, inner, 0])


def _trust(alpha: Any, guide: Any, slope: Any, error: Any) -> Any:
    """Says how far the fit may replace the bilinear enlargement.

    Args:
        alpha: float32 tensor (h, w) in [0, 1].
        guide: uint8 tensor (h, w, 3), the photo at the same size.
        slope: float32 tensor (h, w, 3), of the fit.
        error: float32 tensor (h, w), squared error of the fit.

    Returns:
        float32 tensor (h, w) in [0, 1].
    """
    shape = tf.shape(alpha)
    across = cut(alpha, tf.range(shape[0]), tf.range(1, shape[1] + 1)) - alpha
    down = cut(alpha, tf.range(1, shape[0] + 1), tf.range(shape[1])) - alpha
    steps = tf.sqrt(across * across + down * down)
    extent = _largest(alpha, 9) + _largest(-alpha, 9)
    steepness = _largest(steps, 5) / tf.maximum(extent, reference.LEAST_RANGE)
    own = _detail(alpha[..., None])
    taken = tf.reduce_sum(slope * _detail(tf.cast(guide, tf.float32)), -1, keepdims=True)
    energy = tf.maximum(_sum(tf.square(own), 5)[..., 0], 1e-6)
    gain = _sum(own * taken, 5)[..., 0] / energy
    focus = tf.maximum(
        _share(steepness, *reference.STEEP),
        _share(steepness, *reference.SOFT) * _share(steepness * gain, *reference.SHARPENED),
    )
    unexplained = _sum(error[..., None], 5)[..., 0] / energy
    return focus * (1 - _share(unexplained, *reference.UNEXPLAINED))


def _detail(values: Any) -> Any:
    """Takes the difference of a tensor (h, w, C) from its 3x3 mean."""
    return values - _sum(values, 3) / 9


def _share(values: Any, low: float, high: float) -> Any:
    """Says how far values are on the way from `low`, 0, to `high`, 1."""
    return tf.clip_by_value((values - low) / (high - low), 0, 1)


def _filtered(values: Any, weights: Any) -> Any:
    """Filters a tensor (N, h, w, C) by weights along both axes, where it has all they reach."""
    for axis in (1, 2):
        kept = tf.shape(values)[axis] - len(weights) + 1
        total = 0
        for shift, weight in enumerate(weights):
            part = slice(shift, shift + kept)
            total += weight * (values[:, part] if axis == 1 else values[:, :, part])
        values = total
    return values


def _mean(values: Any) -> Any:
    """Takes the mean of each 3x3 window."""
    return _filtered(values, (1 / 3, 1 / 3, 1 / 3))


def _largest(values: Any, side: int) -> Any:
    """Takes the largest value of the window of side x side pixels around each; (h, w)."""
    return tf.nn.max_pool2d(values[None, ..., None], side, 1, "SAME")[0, ..., 0]


def _sum(values: Any, side: int) -> Any:
    """Sums the window of side x side pixels around each; borders are repeated; (h, w, C)."""
    sides = tf.unstack(tf.shape(values)[:2])
    around = [tf.range(-(side // 2), length + side // 2) for length in sides]
    return _filtered(cut(values, *around)[None], [1.0] * side)[0]


def _without_grain(image: Any, corner: Any, sigma: Any) -> Any:
    """Cuts a tile from the photo and softens it slightly; float32 (_TILE, _TILE, 3)."""
    box = tf.cast(tf.round(tf.sqrt(6 * sigma * sigma + 1)), tf.int32)
    ramp = tf.range(1, box)
    weights = tf.cast(tf.concat([ramp, [box], ramp[::-1]], 0), tf.float32)  # of two boxes
    rows, columns = (corner[axis] + tf.range(1 - box, _TILE + box - 1) for axis in (0, 1))
    values = tf.cast(cut(image, rows, columns), tf.float32)[None]
    for shape in [(1, -1, 1, 1), (-1, 1, 1, 1)]:
        kernel = tf.tile(tf.reshape(weights, shape), (1, 1, 3, 1))
        values = tf.nn.depthwise_conv2d(values, kernel, (1, 1, 1, 1), "VALID")
    return tf.ensure_shape(values[0], (_TILE, _TILE, 3)) / tf.cast(box, tf.float32) ** 4
