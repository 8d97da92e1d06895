"""Random geometry, light and image quality for training, inside the tf.data graph.

Image and alpha go through the geometry as one 4-channel tensor, `sample`, so that no step can move
one without the other. Pixels from outside the picture are a reflection of it, in all four channels:
a corner is never black in the image while opaque in the alpha.
"""

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from kmatting.data.config import Augmentation

COARSE_BAND = 0.02  # half the width of an outline that is not learned from
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def augment(sample: Any, size: tuple[int, int], config: Augmentation, seed: Any) -> Any:
    """Flips, rotates and crops a sample at random, resizes it, and changes its light and quality.

    It is resampled twice: an antialiased resize, then one bilinear warp for flip, rotation and crop
    together.

    Args:
        sample: float32 tensor (H, W, 4) in [0, 1]: red, green, blue, alpha.
        size: height and width of the output.
        config: which changes are made, and how strong they are.
        seed: integer tensor (2,); the same seed draws the same changes.

    Returns:
        float32 tensor (height, width, 4) in [0, 1].
    """
    sample = _move(sample, size, config, tf.random.stateless_uniform([7], seed))
    sample = tf.ensure_shape(tf.clip_by_value(sample, 0.0, 1.0), (*size, 4))
    image, alpha = sample[..., :3], sample[..., 3:]
    if config.colour:
        image = change_light(image, config.colour, seed)
    if config.blur:
        image = _in_half(lambda image: blur(image, config.blur, seed), image, seed, 3)
    if config.noise:
        image = _in_half(lambda image: add_noise(image, config.noise, seed), image, seed, 5)
    if config.jpeg_quality is not None:
        quality = config.jpeg_quality
        image = _in_half(lambda image: compress(image, quality, seed), image, seed, 7)
    return tf.concat([image, alpha], axis=-1)


def _in_half(change: Callable[[Any], Any], image: Any, seed: Any, stream: int) -> Any:
    """Makes a change in half of the samples; the others do not pay for it."""
    draw = tf.random.stateless_uniform([], _stream(seed, stream))
    return tf.cond(draw < 0.5, lambda: change(image), lambda: image)


def _stream(seed: Any, stream: int) -> Any:
    """Makes a seed of its own for each kind of draw; geometry draws from the seed itself."""
    return tf.random.experimental.stateless_fold_in(seed, stream)


def _move(sample: Any, size: tuple[int, int], config: Augmentation, draws: Any) -> Any:
    """Resizes, flips, rotates and crops a sample for `augment`."""
    height, width = size
    # Size of the resized picture, and the corner (y, x) of the part of it that is shown.
    if config.fit == "resize":
        resized = tf.constant([height, width])
        corner = tf.constant([0.0, 0.0])
    else:
        low, high = config.crop_scale
        share = low + draws[:2] * (high - low)
        if config.fit == "stretch":
            resized = [height, width] / share
        else:
            sides = tf.cast(tf.shape(sample)[:2], tf.float32)
            resized = sides / (tf.reduce_min(sides / [height, width]) * share[0])
        resized = tf.maximum(tf.cast(tf.round(resized), tf.int32), [height, width])
        # Whole pixels, so that a part that is not rotated is not blurred.
        room = tf.cast(resized - [height, width] + 1, tf.float32)
        corner = tf.floor(draws[2:4] * room)
    sample = tf.image.resize(sample, resized, antialias=True)

    if config.fit == "resize" and not (
        config.rotation_degrees or config.horizontal_flip or config.vertical_flip
    ):
        return sample

    turn = rotation((2 * draws[4] - 1) * math.radians(config.rotation_degrees), height, width)
    flip_x = config.horizontal_flip and draws[5] < 0.5
    flip_y = config.vertical_flip and draws[6] < 0.5
    flip = tf.convert_to_tensor(
        [
            [tf.where(flip_x, -1.0, 1.0), 0, tf.where(flip_x, width - 1.0, 0.0)],
            [0, tf.where(flip_y, -1.0, 1.0), tf.where(flip_y, height - 1.0, 0.0)],
            [0, 0, 1],
        ]
    )
    shift = tf.convert_to_tensor([[1, 0, corner[1]], [0, 1, corner[0]], [0, 0, 1]])
    return warp(sample[None], shift @ turn @ flip, size)[0]


def change_light(image: Any, strength: float, seed: Any) -> Any:
    """Changes brightness, contrast, saturation and tint at random.

    Args:
        image: float32 tensor (H, W, 3) in [0, 1].
        strength: 0 changes nothing; with 1 brightness, contrast and saturation are multiplied by 0
            to 2, and each channel by 0.5 to 1.5 on top.
        seed: integer tensor (2,); the same seed draws the same change.

    Returns:
        float32 tensor (H, W, 3) in [0, 1].
    """
    draws = strength * tf.random.stateless_uniform([6], _stream(seed, 1), -1.0, 1.0)
    brightness, contrast, saturation, tint = draws[0], draws[1], draws[2], draws[3:]
    grey = tf.reduce_sum(image * _LUMA, axis=-1, keepdims=True)
    image = grey + (1 + saturation) * (image - grey)
    mean = tf.reduce_mean(grey)
    image = mean + (1 + contrast) * (image - mean)
    image *= (1 + brightness) * (1 + 0.5 * tint)
    return tf.clip_by_value(image, 0.0, 1.0)


def blur(image: Any, largest: float, seed: Any) -> Any:
    """Blurs an image by a Gaussian of random width.

    Args:
        image: float32 tensor (H, W, 3).
        largest: the standard deviation is drawn from 0 to this many pixels.
        seed: integer tensor (2,); the same seed draws the same blur.

    Returns:
        float32 tensor (H, W, 3).
    """
    sigma = largest * tf.random.stateless_uniform([], _stream(seed, 2))
    radius = min(math.ceil(3 * largest), *(side - 1 for side in image.shape[:2]))
    offsets = tf.range(-radius, radius + 1, dtype=tf.float32)
    kernel = tf.exp(-0.5 * (offsets / tf.maximum(sigma, 1e-3)) ** 2)
    kernel = tf.tile((kernel / tf.reduce_sum(kernel))[:, None, None, None], [1, 1, 3, 1])
    padded = tf.pad(image, [[radius, radius], [radius, radius], [0, 0]], "REFLECT")[None]
    rows = tf.nn.depthwise_conv2d(padded, kernel, [1, 1, 1, 1], "VALID")
    columns = tf.transpose(kernel, [1, 0, 2, 3])
    return tf.nn.depthwise_conv2d(rows, columns, [1, 1, 1, 1], "VALID")[0]


def add_noise(image: Any, largest: float, seed: Any) -> Any:
    """Adds Gaussian noise of random strength.

    Args:
        image: float32 tensor (H, W, 3) in [0, 1].
        largest: the standard deviation is drawn from 0 to this.
        seed: integer tensor (2,); the same seed draws the same noise.

    Returns:
        float32 tensor (H, W, 3) in [0, 1].
    """
    sigma = largest * tf.random.stateless_uniform([], _stream(seed, 4))
    noise = tf.random.stateless_normal(image.shape, _stream(seed, 6))
    return tf.clip_by_value(image + sigma * noise, 0.0, 1.0)


def compress(image: Any, lowest: int, seed: Any) -> Any:
    """Compresses an image as a JPEG of random quality and decodes it again.

    Args:
        image: float32 tensor (H, W, 3) in [0, 1].
        lowest: the quality is drawn from this, 1 to 99, to 100.
        seed: integer tensor (2,); the same seed draws the same quality.

    Returns:
        float32 tensor (H, W, 3) in [0, 1].
    """
    compressed = tf.image.stateless_random_jpeg_quality(image, lowest, 100, _stream(seed, 8))
    return tf.ensure_shape(compressed, image.shape)


def without_outline(alpha: Any) -> Any:
    """Marks a band along the outlines of a coarse alpha as unknown.

    Args:
        alpha: float32 tensor (H, W, 1) in [0, 1].

    Returns:
        float32 tensor (H, W, 1): -1 where both foreground and background are within `COARSE_BAND`
        times the shorter side, else the alpha.
    """
    side = 2 * max(1, round(COARSE_BAND * min(alpha.shape[:2]))) + 1
    highest = tf.nn.max_pool2d(alpha[None], side, 1, "SAME")[0]
    lowest = -tf.nn.max_pool2d(-alpha[None], side, 1, "SAME")[0]
    return tf.where(highest - lowest > 0.5, -1.0, alpha)


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
        fill_mode: what fills the outside of the images: `reflect`, `nearest`, `wrap` or `constant`.
        fill_value: value outside the images with `constant`.

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
    """Computes the matrix of a rotation about the centre of a picture.

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
