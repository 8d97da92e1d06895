"""The terms of the training loss, one function each.

A function here is a term once `kmatting.config.LossConfig` has a weight of its name. All of them
take and return the same:

    y_true: alphas (N, H, W, 1) in [0, 1]; a negative value marks a pixel that is not known, which
        adds nothing to a term.
    y_pred: predicted alphas of the same shape.
    Returns: float32 (N,), one value per image; the lower the better.
"""

from typing import Any

import keras
from keras import ops

_SMALLEST_SUBJECT = 0.003  # mean alpha


def l1(y_true: Any, y_pred: Any) -> Any:
    """Computes the mean absolute difference of each image, in [0, 1]."""
    y_true, y_pred = _without_unknown(y_true, y_pred)
    return ops.mean(ops.abs(y_true - y_pred), axis=(1, 2, 3))


def ssim(y_true: Any, y_pred: Any) -> Any:
    """Computes 1 - SSIM of each image, in [0, 2]; sides must be 11 pixels or more.

    Reference:
        Wang et al. 2004, Image Quality Assessment: From Error Visibility to Structural Similarity;
        11x11 Gaussian window of sigma 1.5, k1 0.01, k2 0.03, averaged over all complete windows.
    """
    y_true, y_pred = _without_unknown(y_true, y_pred)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return 1.0 - tf.image.ssim(y_true, y_pred, max_val=1.0)
    return 1.0 - ops.image.ssim(y_true, y_pred, max_val=1.0, data_format="channels_last")


def cross_entropy(y_true: Any, y_pred: Any) -> Any:
    """Computes the mean binary cross-entropy of each image in nats, at least 0.

    L1 and SSIM have nearly no gradient at a pixel that is wrong and confident, where the sigmoid is
    flat. This term does. Predictions are clipped to [1e-7, 1 - 1e-7].
    """
    y_true, y_pred = _without_unknown(y_true, y_pred)
    return ops.mean(keras.losses.binary_crossentropy(y_true, y_pred), axis=(1, 2))


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
    both = ops.sum(ops.minimum(y_true, y_pred), axis=(1, 2, 3))
    either = ops.sum(ops.maximum(y_true, y_pred), axis=(1, 2, 3))
    has_subject = ops.mean(y_true, axis=(1, 2, 3)) > _SMALLEST_SUBJECT
    return ops.where(has_subject, 1.0 - both / ops.maximum(either, _SMALLEST_SUBJECT), 0.0)


def gradient(y_true: Any, y_pred: Any) -> Any:
    """Computes how much the steps from pixel to pixel differ in each image, in [0, 4].

    The mean of |d(y_true) - d(y_pred)| over horizontal neighbours plus the mean over vertical ones;
    pairs with an unknown pixel count as 0.
    """
    y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
    known = y_true >= 0
    error = y_pred - y_true
    x = ops.where(known[:, :, 1:] & known[:, :, :-1], error[:, :, 1:] - error[:, :, :-1], 0.0)
    y = ops.where(known[:, 1:] & known[:, :-1], error[:, 1:] - error[:, :-1], 0.0)
    return ops.mean(ops.abs(x), axis=(1, 2, 3)) + ops.mean(ops.abs(y), axis=(1, 2, 3))


def _without_unknown(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Casts both alphas to float32 and sets both to 0 where the true one is not known."""
    y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
    unknown = y_true < 0
    return ops.where(unknown, 0.0, y_true), ops.where(unknown, 0.0, y_pred)
