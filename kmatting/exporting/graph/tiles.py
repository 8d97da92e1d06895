"""Works on large photos tile by tile in a TensorFlow graph, so that float tensors stay small."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from kmatting.exporting.graph.resize import transform


def over_tiles(tile: Callable[[Any], Any], size: Any, side: int, spec: tf.TensorSpec) -> Any:
    """Computes an image tile by tile.

    Args:
        tile: returns the tile whose top and left border it is given, int32 (2,). Tiles at the right
            and at the bottom may reach over the border; what is outside is cut off.
        size: int32 tensor (2,), height and width of the image.
        side: height and width of a tile.
        spec: shape (side, side, ...) and dtype of a tile.

    Returns:
        The image, (height, width, ...).
    """
    grid = -(-size // side)
    computed = tf.map_fn(
        lambda index: tile(side * tf.stack([index // grid[1], index % grid[1]])),
        tf.range(grid[0] * grid[1]),
        parallel_iterations=2,
        fn_output_signature=spec,
    )
    rest = list(spec.shape[2:])
    rows = tf.reshape(computed, [grid[0], grid[1], side, side, *rest])
    rows = tf.transpose(rows, (0, 2, 1, 3, *range(4, 4 + len(rest))))
    whole = tf.reshape(rows, [side * grid[0], side * grid[1], *rest])
    return whole[: size[0], : size[1]]


def cut(values: Any, rows: Any, columns: Any) -> Any:
    """Takes rows and columns of an image; outside of it its borders are repeated.

    Args:
        values: tensor (H, W, ...).
        rows: int32 tensor (h,).
        columns: int32 tensor (w,).

    Returns:
        Tensor (h, w, ...).
    """
    rows = tf.clip_by_value(rows, 0, tf.shape(values)[0] - 1)
    columns = tf.clip_by_value(columns, 0, tf.shape(values)[1] - 1)
    return tf.gather(tf.gather(values, rows), columns, axis=1)


def enlarge_tile(small: Any, large: Any, corner: Any, side: int) -> Any:
    """Computes one tile of an image's bilinear enlargement.

    Args:
        small: tensor (h, w, C) of numbers.
        large: int32 tensor (2,), height and width of the whole enlargement.
        corner: int32 tensor (2,), top and left border of the tile.
        side: height and width of the tile, which may reach over the border.

    Returns:
        float32 tensor (side, side, C). What lies outside of the enlargement is arbitrary.
    """
    scale = tf.cast(large / tf.shape(small)[:2], tf.float32)
    corner = tf.cast(corner, tf.float32)
    return transform(small, (side, side), scale, -corner)
