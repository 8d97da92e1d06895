"""Estimates foreground colours in a TensorFlow graph.

The steps are those of `kmatting.inference.foreground`, which says what they are for.
"""

from typing import Any

import tensorflow as tf

from kmatting.exporting.graph.resize import resize
from kmatting.exporting.graph.tiles import enlarge_tile, over_tiles
from kmatting.inference import foreground as reference

_TILE = 256  # pixels a side
_BORDERS = [(0, 0), (1, 1), (1, 1), (0, 0)]


def estimate_foreground(image: Any, alpha: Any) -> Any:
    """Estimates the colours of the foreground, as method "ml" does.

    Args:
        image: uint8 tensor (H, W, 3), RGB.
        alpha: float32 tensor (H, W) in [0, 1].

    Returns:
        uint8 tensor (H, W, 3). Where alpha is 1, to 8 bits, these are the colours of the photo;
        where it is 0 they are black.
    """
    opacity = tf.cast(tf.round(alpha * 255), tf.uint8)
    soft = (opacity > 0) & (opacity < 255)
    colours = tf.where((opacity > 0)[..., None], image, 0)
    estimate = tf.cond(
        tf.reduce_any(soft),
        lambda: _complete(image, alpha, _estimate_layers(image, alpha), soft),
        lambda: colours,
    )
    return tf.where(soft[..., None], estimate, colours)


def _complete(image: Any, alpha: Any, layers: Any, soft: Any) -> Any:
    """Completes the enlarged layers by the pixels of the photo; uint8 (H, W, 3)."""
    size = tf.shape(alpha)
    layers = tf.concat([layers[0], layers[1]], -1)

    def tile(corner: Any) -> Any:
        part = tuple(slice(corner[axis], corner[axis] + _TILE) for axis in (0, 1))

        def completed() -> Any:
            photo = tf.cast(image[part], tf.float32)
            height, width = tf.unstack(tf.shape(photo)[:2])
            large = tf.round(enlarge_tile(layers, size, corner, _TILE))[:height, :width]
            shares = tf.stack([alpha[part], 1 - alpha[part]])[..., None]
            pair = tf.stack([large[..., :3], large[..., 3:]])
            foreground = tf.cast(tf.round(_completed(pair, shares, photo)[0]), tf.uint8)
            return tf.pad(foreground, [(0, _TILE - height), (0, _TILE - width), (0, 0)])

        nothing = tf.zeros((_TILE, _TILE, 3), tf.uint8)
        return tf.cond(tf.reduce_any(soft[part]), completed, lambda: nothing)

    return over_tiles(tile, size, _TILE, tf.TensorSpec((_TILE, _TILE, 3), tf.uint8))


@tf.function(
    input_signature=[
        tf.TensorSpec((None, None, 3), tf.uint8),
        tf.TensorSpec((None, None), tf.float32),
    ]
)
def _estimate_layers(image: Any, alpha: Any) -> Any:
    """Estimates foreground and background of the reduced photo, float32 (2, h, w, 3)."""
    sides = tf.cast(tf.shape(alpha), tf.float64)
    scale = tf.sqrt(tf.clip_by_value(reference.ESTIMATE_PIXELS / tf.reduce_prod(sides), 0, 1))
    size = tf.maximum(1, tf.cast(tf.round(sides * scale), tf.int32))
    photo, matte = (
        resize(image[None], size, "box"),
        resize(alpha[None, ..., None], size, "box"),
    )
    photos = _list_of(photo, 3)
    mattes = _list_of(matte, 1)
    levels = 1
    while tf.reduce_max(tf.shape(matte)[1:3]) > 2:
        tf.autograph.experimental.set_loop_options(
            shape_invariants=[
                (photo, tf.TensorShape((1, None, None, 3))),
                (matte, tf.TensorShape((1, None, None, 1))),
            ]
        )
        size = -(-tf.shape(matte)[1:3] // 2)
        photo, matte = resize(photo, size, "box"), resize(matte, size, "box")
        photos = photos.write(levels, photo)
        mattes = mattes.write(levels, matte)
        levels += 1

    layers = tf.cast(tf.repeat(photo, 2, 0), tf.float32)
    while levels > 0:
        tf.autograph.experimental.set_loop_options(
            shape_invariants=[(layers, tf.TensorShape((2, None, None, 3)))]
        )
        levels -= 1
        layers = _improved(layers, tf.cast(photos.read(levels)[0], tf.float32), mattes.read(levels))
    return tf.round(layers)


def _list_of(first: Any, channels: int) -> Any:
    """A list of images of different sizes."""
    images = tf.TensorArray(
        first.dtype,
        1,
        dynamic_size=True,
        clear_after_read=False,
        infer_shape=False,
        element_shape=(1, None, None, channels),
    )
    return images.write(0, first)


def _improved(layers: Any, photo: Any, matte: Any) -> Any:
    """Takes both layers (2, h, w, 3) to the next level, photo (H, W, 3) and matte (1, H, W, 1)."""
    height, width = tf.unstack(tf.shape(photo)[:2])
    layers = tf.cond(
        tf.reduce_all(tf.shape(layers)[1:3] == tf.shape(photo)[:2]),
        lambda: layers,
        lambda: tf.repeat(tf.repeat(layers, 2, 1), 2, 2)[:, :height, :width],
    )
    shares = tf.concat([matte, 1 - matte], 0)
    weights = shares + reference.LEAST_WEIGHT
    total = _sum_of_neighbours(weights)
    for _step in range(reference.STEPS):
        means = _sum_of_neighbours(weights * layers) / total
        layers = _completed(means, shares, photo)
    return layers


def _completed(layers: Any, shares: Any, photo: Any) -> Any:
    """Adds to foreground and background what their mixture lacks of the photo's colour.

    Args:
        layers: float32 tensor (2, H, W, 3), colours in [0, 255] of foreground and background.
        shares: float32 tensor (2, H, W, 1), alpha and 1 - alpha.
        photo: float32 tensor (H, W, 3).

    Returns:
        float32 tensor (2, H, W, 3) in [0, 255].
    """
    rest = photo - tf.reduce_sum(shares * layers, 0)
    corrected = layers + shares * (rest / tf.reduce_sum(tf.square(shares), 0))
    return tf.clip_by_value(corrected, 0, 255)


def _sum_of_neighbours(values: Any) -> Any:
    """Sums the four neighbours in tensors (2, H, W, C); borders are repeated."""
    padded = tf.pad(values, _BORDERS, "SYMMETRIC")
    total = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1]
    return total + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
