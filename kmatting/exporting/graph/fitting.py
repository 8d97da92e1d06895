"""Fits photos to the network in a TensorFlow graph: `kmatting.networks.fitting` for any size."""

from typing import Any

import tensorflow as tf

from kmatting.exporting.graph.decode import MAX_PIXELS
from kmatting.exporting.graph.resize import resize
from kmatting.sizes import LONGEST, STRETCH, STRIDE

MAX_BATCH = 16  # photos of the network's full size in one run of the network


def reduce(image: Any, max_size: int) -> Any:
    """Resizes a batch (N, H, W, 3) to the network's size, as `kmatting.sizes.network_size` says.

    Args:
        image: uint8 tensor (N, H, W, 3).
        max_size: side in pixels of the square whose area the network sees.

    Returns:
        uint8 tensor (N, h, w, 3).

    Raises:
        tf.errors.InvalidArgumentError: when the graph runs, for an empty batch, and for one that is
            too large.
    """
    shape = tf.shape(image, out_type=tf.int64)
    count, height, width = shape[0], shape[1], shape[2]
    with tf.control_dependencies(_check_pixels(shape)):
        sides = tf.cast(tf.maximum(shape[1:3], 1), tf.float64)
    scale = tf.minimum(
        max_size / tf.sqrt(sides[0] * sides[1]), LONGEST * max_size / tf.reduce_max(sides)
    )
    taller = tf.sqrt(tf.clip_by_value(sides[1] / sides[0], 1 / STRETCH, STRETCH))
    small = tf.round(sides * scale * tf.stack([taller, 1 / taller]))
    small = tf.cast(tf.maximum(small, 1), tf.int32)
    with tf.control_dependencies([check_batch(count, small, max_size)]):
        small = tf.identity(small)
    image = tf.cond(
        tf.reduce_prod(tf.cast(small, tf.int64)) > height * width,
        lambda: resize(image, small, "lanczos"),
        lambda: resize(image, small, "bilinear"),
    )
    image.set_shape((None, None, None, 3))
    return image


def pad(image: Any) -> Any:
    """Repeats the last row and column until the stride divides both sides."""
    for axis in (1, 2):
        side = tf.shape(image)[axis]
        padded = -(-side // STRIDE) * STRIDE
        image = tf.gather(image, tf.minimum(tf.range(padded), side - 1), axis=axis)
    return image


def check_batch(count: Any, size: Any, max_size: int) -> Any:
    """Refuses a batch that is too large for the network: `count` images of a size (2,)."""
    padded = tf.cast(-(-size // STRIDE) * STRIDE, tf.int64)
    most = MAX_BATCH * (max_size + STRIDE) ** 2
    return tf.debugging.Assert(
        tf.cast(count, tf.int64) * padded[0] * padded[1] <= most,
        [
            f"image: expected at most {MAX_BATCH} images of {max_size}x{max_size} pixels at a time "
            f"({most} pixels in all), received (number, then height and width for the network)",
            count,
            padded,
        ],
        summarize=4,
    )


def _check_pixels(shape: Any) -> list[Any]:
    """Refuses a batch of a shape (4,) without pixels, and one of too many."""
    return [
        tf.debugging.Assert(
            tf.reduce_all(shape[:3] > 0),
            ["image: expected at least one image of at least 1x1 pixels, received", shape],
            summarize=4,
        ),
        tf.debugging.Assert(
            shape[0] * shape[1] * shape[2] <= MAX_PIXELS,
            [f"image: expected at most {MAX_PIXELS} pixels in a request, received", shape],
            summarize=4,
        ),
    ]
