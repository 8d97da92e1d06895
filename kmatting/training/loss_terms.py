"""The terms of the training loss, one function each.

A function here is a term once `kmatting.config.LossConfig` has a weight of its name. All of them
take and return the same:

    y_true: alphas (N, H, W, 1) in [0, 1]; a negative value marks a pixel that is not known, which
        adds nothing to a term.
    y_pred: predicted alphas of the same shape.
    Returns: float32 (N,), one value an image; the lower the better.
"""

from typing import Any

import keras
import tensorflow as tf

_SHARP_WINDOW = 7  # pixels; an alpha counts as plain if it is constant over this neighbourhood
_SHARP_TOLERANCE = 0.02


def l1(y_true: Any, y_pred: Any) -> Any:
    """Computes the mean absolute difference of each image, in [0, 1]."""
    y_true, y_pred = _without_unknown(y_true, y_pred)
    return tf.reduce_mean(tf.abs(y_true - y_pred), axis=(1, 2, 3))


def ssim(y_true: Any, y_pred: Any) -> Any:
    """Computes 1 - SSIM of each image, in [0, 2]; sides must be 11 pixels or more.

    Reference:
        Wang et al. 2004, Image Quality Assessment: From Error Visibility to Structural Similarity;
        11x11 Gaussian window of sigma 1.5, k1 0.01, k2 0.03, averaged over all complete windows.
    """
    y_true, y_pred = _without_unknown(y_true, y_pred)
    return 1.0 - tf.image.ssim(y_true, y_pred, max_val=1.0)


def cross_entropy(y_true: Any, y_pred: Any) -> Any:
    """Computes the mean binary cross-entropy of each image in nats, at least 0.

    L1 and SSIM have nearly no gradient at a pixel that is wrong and confident, where the sigmoid is
    flat. This term does. Predictions are clipped to [1e-7, 1 - 1e-7].
    """
    y_true, y_pred = _without_unknown(y_true, y_pred)
    return tf.reduce_mean(keras.losses.binary_crossentropy(y_true, y_pred), axis=(1, 2))


def sharpness(y_true: Any, y_pred: Any) -> Any:
    """Computes how undecided each image is where its true alpha is plainly 0 or 1, in [0, 1].

    The mean of 4 p (1 - p) over the pixels whose true alpha is 0 or 1 (within 0.02) in the whole
    7x7 neighbourhood; 0 where an image has no such pixel. It says that a pixel should be decided,
    not which way, so it only makes sense beside another term.
    """
    y_true, y_pred = tf.cast(y_true, tf.float32), tf.cast(y_pred, tf.float32)
    highest = tf.nn.max_pool2d(y_true, _SHARP_WINDOW, strides=1, padding="SAME")
    lowest = -tf.nn.max_pool2d(-y_true, _SHARP_WINDOW, strides=1, padding="SAME")
    clear = (lowest >= 0) & (highest < _SHARP_TOLERANCE)
    opaque = lowest > 1 - _SHARP_TOLERANCE
    plain = tf.cast(clear | opaque, tf.float32)
    total = tf.reduce_sum(plain * 4 * y_pred * (1 - y_pred), axis=(1, 2, 3))
    return tf.math.divide_no_nan(total, tf.reduce_sum(plain, axis=(1, 2, 3)))


def _without_unknown(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Casts both alphas to float32 and sets both to 0 where the true one is not known."""
    y_true, y_pred = tf.cast(y_true, tf.float32), tf.cast(y_pred, tf.float32)
    unknown = y_true < 0
    return tf.where(unknown, 0.0, y_true), tf.where(unknown, 0.0, y_pred)
