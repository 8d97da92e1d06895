"""Resizes images in a TensorFlow graph bit for bit as Pillow does.

A network may answer to a photo that differs by a level here and there with a matte that differs by
forty. `tf.image.resize` has Pillow's bilinear filter, but Pillow resizes the columns first and the
rows then, with weights of 22 bits, and rounds 8-bit images after each of the two.
"""

import math
from typing import Any

import tensorflow as tf

_BITS = 22  # of a weight
_REACH = {"bilinear": 1.0, "box": 0.5, "lanczos": 3.0}  # pixels, of the larger of both images


def resize(image: Any, size: Any, kernel: str) -> Any:
    """Resizes images as Pillow does.

    Args:
        image: tensor (N, H, W, C) of uint8 or float32.
        size: int32 tensor (2,), height and width.
        kernel: "bilinear", "box" or "lanczos", as Pillow's filters are called.

    Returns:
        Tensor (N, height, width, C) of the same dtype.
    """
    for axis in (2, 1):
        image = _resize_axis(image, axis, size[axis - 1], kernel)
    return image


def transform(image: Any, size: Any, scale: Any, translation: Any) -> Any:
    """Scales and moves an image, bilinearly.

    Args:
        image: tensor (H, W, C) of numbers.
        size: height and width of what is returned.
        scale: float32 tensor (2,), by which both axes are enlarged.
        translation: float32 tensor (2,), by which they are moved then, in pixels.

    Returns:
        float32 tensor (height, width, C).
    """
    moved = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=size,
        scale=scale,
        translation=translation,
        kernel_type="triangle",
        antialias=True,
    )
    return moved[0]


def _resize_axis(image: Any, axis: int, length: Any, kernel: str) -> Any:
    """Resizes the rows (axis 1) or the columns (axis 2)."""
    before = tf.shape(image)[axis]
    starts, weights = _weights(before, length, kernel)
    in_bits = image.dtype == tf.uint8
    if in_bits:
        weights = tf.cast(tf.floor(weights * 2**_BITS + 0.5), tf.int32)
    weights = tf.cast(weights, tf.int32 if in_bits else tf.float32)
    weights = weights[:, None, :, None, None] if axis == 1 else weights[:, None, None, :, None]

    def add(tap: Any, total: Any) -> tuple[Any, Any]:
        part = tf.gather(image, tf.minimum(starts + tap, before - 1), axis=axis)
        return tap + 1, total + weights[tap] * tf.cast(part, weights.dtype)

    shape = tf.tensor_scatter_nd_update(tf.shape(image), [[axis]], [length])
    invariant = tf.TensorShape((image.shape[0], None, None, image.shape[3]))
    taps = tf.shape(weights)[0]
    total = tf.while_loop(
        lambda tap, _: tap < taps,
        add,
        (0, tf.zeros(shape, weights.dtype)),
        shape_invariants=(tf.TensorShape(()), invariant),
    )[1]
    if in_bits:
        total = tf.bitwise.right_shift(total + 2 ** (_BITS - 1), _BITS)
        total = tf.clip_by_value(total, 0, 255)
    return tf.cast(total, image.dtype)


def _weights(before: Any, after: Any, kernel: str) -> tuple[Any, Any]:
    """Computes the filter for each pixel of a resized axis.

    Args:
        before: int32 tensor (), length of the axis.
        after: int32 tensor (), length that it gets.
        kernel: as in `resize`.

    Returns:
        The first pixel that each new pixel takes, int32 (after,), and the weights of the pixels
        from there on, float64 (taps, after).
    """
    length = tf.cast(before, tf.float64)
    scale = length / tf.cast(after, tf.float64)
    wide = tf.maximum(scale, 1)
    reach = wide * _REACH[kernel]
    centres = (tf.cast(tf.range(after), tf.float64) + 0.5) * scale
    starts = tf.maximum(tf.floor(centres - reach + 0.5), 0)
    ends = tf.minimum(tf.floor(centres + reach + 0.5), length)
    pixels = starts + tf.range(2 * tf.math.ceil(reach) + 1)[:, None]
    distances = (pixels - centres + 0.5) * (1 / wide)
    if kernel == "bilinear":
        weights = tf.maximum(1 - tf.abs(distances), 0)
    elif kernel == "lanczos":
        inside = (distances >= -3) & (distances < 3)
        weights = tf.where(inside, _sinc(distances) * _sinc(distances / 3), 0)
    else:
        weights = tf.cast((distances > -0.5) & (distances <= 0.5), tf.float64)
    weights = tf.where(pixels < ends, weights, 0)
    return tf.cast(starts, tf.int32), weights / tf.reduce_sum(weights, 0)


def _sinc(values: Any) -> Any:
    angles = values * math.pi
    return tf.where(
        angles == 0, tf.ones_like(angles), tf.math.divide_no_nan(tf.sin(angles), angles)
    )
