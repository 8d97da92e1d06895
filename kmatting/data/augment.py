"""Random geometry for training: one transform for image and alpha, inside the tf.data graph.

Image and alpha travel as one 4-channel tensor, `sample`, so that no step can treat them apart.
Whatever the transform finds outside of the picture is a reflection of it, in all four channels: a
corner is never black in the image while opaque in the alpha.
"""

import math
from typing import Any

import tensorflow as tf

from kmatting.config import Augmentation


def augment(sample: Any, size: tuple[int, int], config: Augmentation, seed: Any) -> Any:
    """Flips and turns a sample at random and brings it to size.

    There are two resamplings: an antialiased resize, then one bilinear warp for all of flip,
    rotation and crop.

    Args:
        sample: float32 tensor (H, W, 4) in [0, 1]: red, green, blue, alpha.
        size: height and width of the output.
        config: what is drawn, and from where.
        seed: integer tensor (2,); the same seed draws the same transform.

    Returns:
        float32 tensor (height, width, 4) in [0, 1].
    """
    draws = tf.random.stateless_uniform([6], seed)
    height, width = size
    # The part of the picture that is shown: its size after the resize, and its corner (y, x).
    if config.fit == "crop":
        low, high = config.crop_scale
        share = low + draws[0] * (high - low)
        sides = tf.cast(tf.shape(sample)[:2], tf.float32)
        shrink = tf.reduce_min(sides / [height, width]) * share
        resized = tf.maximum(tf.cast(tf.round(sides / shrink), tf.int32), [height, width])
        # Whole pixels, so that a crop that is not turned is not blurred either.
        room = tf.cast(resized - [height, width] + 1, tf.float32)
        corner = tf.floor(draws[1:3] * room)
    else:
        resized = tf.constant([height, width])
        corner = tf.constant([0.0, 0.0])
    sample = tf.image.resize(sample, resized, antialias=True)

    if config.fit == "resize" and not (
        config.rotation_degrees or config.horizontal_flip or config.vertical_flip
    ):
        return tf.clip_by_value(sample, 0.0, 1.0)

    turn = rotation((2 * draws[3] - 1) * math.radians(config.rotation_degrees), height, width)
    flip_x = config.horizontal_flip and draws[4] < 0.5
    flip_y = config.vertical_flip and draws[5] < 0.5
    flip = tf.convert_to_tensor(
        [
            [tf.where(flip_x, -1.0, 1.0), 0, tf.where(flip_x, width - 1.0, 0.0)],
            [0, tf.where(flip_y, -1.0, 1.0), tf.where(flip_y, height - 1.0, 0.0)],
            [0, 0, 1],
        ]
    )
    shift = tf.convert_to_tensor([[1, 0, corner[1]], [0, 1, corner[0]], [0, 0, 1]])
    sample = warp(sample[None], shift @ turn @ flip, size)[0]
    return tf.clip_by_value(sample, 0.0, 1.0)


def rotate(
    images: Any,
    angle: Any,
    interpolation: str = "bilinear",
    fill_mode: str = "reflect",
    fill_value: float = 0.0,
) -> Any:
    """Rotates images counterclockwise about their centre, as `tfa.image.rotate` did.

    Args:
        images: tensor (N, H, W, C), float32 or uint8.
        angle: scalar, in radians.
        interpolation: `bilinear` or `nearest`.
        fill_mode: what is outside of the images: `reflect`, `nearest`, `wrap`, or `constant`.
        fill_value: with `constant`, the value outside.

    Returns:
        Tensor (N, H, W, C) of the dtype of `images`.
    """
    height, width = images.shape[1:3]
    return warp(
        images,
        rotation(angle, height, width),
        (height, width),
        interpolation,
        fill_mode,
        fill_value,
    )


def rotation(angle: Any, height: int, width: int) -> Any:
    """Makes the matrix of a rotation about the centre of a picture.

    Args:
        angle: scalar, in radians, counterclockwise.
        height: of the picture.
        width: of the picture.

    Returns:
        float32 tensor (3, 3) for `warp`.
    """
    sine, cosine = tf.sin(angle), tf.cos(angle)
    right, bottom = width - 1.0, height - 1.0
    x = (right - (cosine * right - sine * bottom)) / 2
    y = (bottom - (sine * right + cosine * bottom)) / 2
    return tf.convert_to_tensor([[cosine, -sine, x], [sine, cosine, y], [0, 0, 1]])


def warp(
    images: Any,
    matrix: Any,
    size: tuple[int, int],
    interpolation: str = "bilinear",
    fill_mode: str = "reflect",
    fill_value: float = 0.0,
) -> Any:
    """Transforms images by an affine matrix, in one resampling without antialiasing.

    Args:
        images: tensor (N, H, W, C), float32 or uint8.
        matrix: float32 tensor (3, 3) from pixels (x, y, 1) of the output to those of the input;
            the centre of the first pixel is (0, 0).
        size: height and width of the output.
        interpolation: as in `rotate`.
        fill_mode: as in `rotate`.
        fill_value: as in `rotate`.

    Returns:
        Tensor (N, height, width, C) of the dtype of `images`.
    """
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.reshape(matrix, [1, 9])[:, :8],
        output_shape=tf.constant(size, tf.int32),
        interpolation=interpolation.upper(),
        fill_mode=fill_mode.upper(),
        fill_value=fill_value,
    )
