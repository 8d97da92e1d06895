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

_SMALLEST_SUBJECT = 0.003  # mean alpha


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


def iou(y_true: Any, y_pred: Any) -> Any:
    """Computes 1 - the soft intersection over union of each image, in [0, 1].

    The sum of min(y_true, y_pred) over the sum of max(y_true, y_pred), which is 1 only where the
    alphas are equal. It weighs small subjects as much as large ones. Images with a subject on less
    than 0.3 % of their area add 0: a single wrong pixel would cost all of it.

    Reference:
        Ruzicka 1958, for the ratio; Qin et al. 2019, BASNet (CVPR), for its use beside SSIM and
        cross-entropy.
    """
    y_true, y_pred = _without_unknown(y_true, y_pred)
    both = tf.reduce_sum(tf.minimum(y_true, y_pred), axis=(1, 2, 3))
    either = tf.reduce_sum(tf.maximum(y_true, y_pred), axis=(1, 2, 3))
    has_subject = tf.reduce_mean(y_true, axis=(1, 2, 3)) > _SMALLEST_SUBJECT
    return tf.where(has_subject, 1.0 - tf.math.divide_no_nan(both, either), 0.0)


def gradient(y_true: Any, y_pred: Any) -> Any:
    """Computes how much the steps from pixel to pixel differ in each image, in [0, 4].

    The mean of |d(y_true) - d(y_pred)| over all neighbours side by side, plus that over all
    neighbours one above the other; neighbours of which one is not known add 0.
    """
    y_true, y_pred = tf.cast(y_true, tf.float32), tf.cast(y_pred, tf.float32)
    known = y_true >= 0
    error = y_pred - y_true
    x = tf.where(known[:, :, 1:] & known[:, :, :-1], error[:, :, 1:] - error[:, :, :-1], 0.0)
    y = tf.where(known[:, 1:] & known[:, :-1], error[:, 1:] - error[:, :-1], 0.0)
    return tf.reduce_mean(tf.abs(x), axis=(1, 2, 3)) + tf.reduce_mean(tf.abs(y), axis=(1, 2, 3))


def _without_unknown(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Casts both alphas to float32 and sets both to 0 where the true one is not known."""
    y_true, y_pred = tf.cast(y_true, tf.float32), tf.cast(y_pred, tf.float32)
    unknown = y_true < 0
    return tf.where(unknown, 0.0, y_true), tf.where(unknown, 0.0, y_pred)
