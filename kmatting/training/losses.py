"""The training loss: L1 plus SSIM, and cross-entropy where a recipe asks for it."""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="kmatting")
class L1SSIMLoss(keras.losses.Loss):
    """Weighted sum of L1, 1 - SSIM and cross-entropy, computed in float32.

    Args:
        l1_weight: weight of the mean absolute difference.
        ssim_weight: weight of 1 - SSIM.
        cross_entropy_weight: weight of the binary cross-entropy. The other two hardly pull at a
            pixel that is wrong and sure of it, since the sigmoid is flat there; this one does.
        name: name of the loss.
        **kwargs: of `keras.losses.Loss`.

    Input shape:
        Both alphas (N, H, W, 1) in [0, 1], H and W at least 11. Where the true one is negative it
        is unknown, and whatever is predicted there counts as right.

    Output shape:
        (N,) before reduction: one value an image. L1 and 1 - SSIM are exactly 0 for equal alphas;
        cross-entropy is least there, and 0 where they are 0 or 1.

    Reference:
        Wang et al. 2004, Image Quality Assessment: From Error Visibility to Structural Similarity;
        11x11 Gaussian window of sigma 1.5, k1 0.01, k2 0.03, mean over all whole windows.
    """

    def __init__(
        self,
        l1_weight: float = 1.0,
        ssim_weight: float = 1.0,
        cross_entropy_weight: float = 0.0,
        name: str = "l1_ssim",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.l1_weight = l1_weight
        self.ssim_weight = ssim_weight
        self.cross_entropy_weight = cross_entropy_weight

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each image, shape (N,)."""
        loss = self.l1_weight * l1(y_true, y_pred) + self.ssim_weight * ssim_loss(y_true, y_pred)
        if self.cross_entropy_weight:
            loss += self.cross_entropy_weight * cross_entropy(y_true, y_pred)
        return loss

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs."""
        return {
            **super().get_config(),
            "l1_weight": self.l1_weight,
            "ssim_weight": self.ssim_weight,
            "cross_entropy_weight": self.cross_entropy_weight,
        }


@keras.saving.register_keras_serializable(package="kmatting")
def l1(y_true: Any, y_pred: Any) -> Any:
    """Returns the mean absolute difference of each image.

    Args:
        y_true: alphas (N, H, W, 1) in [0, 1]; negative where unknown.
        y_pred: alphas of the same shape.

    Returns:
        float32 (N,) in [0, 1].
    """
    y_true, y_pred = _known(y_true, y_pred)
    return tf.reduce_mean(tf.abs(y_true - y_pred), axis=(1, 2, 3))


@keras.saving.register_keras_serializable(package="kmatting")
def ssim_loss(y_true: Any, y_pred: Any) -> Any:
    """Returns 1 - SSIM of each image.

    Args:
        y_true: alphas (N, H, W, 1) in [0, 1], H and W at least 11; negative where unknown.
        y_pred: alphas of the same shape.

    Returns:
        float32 (N,) in [0, 2].
    """
    y_true, y_pred = _known(y_true, y_pred)
    return 1.0 - tf.image.ssim(y_true, y_pred, max_val=1.0)


@keras.saving.register_keras_serializable(package="kmatting")
def cross_entropy(y_true: Any, y_pred: Any) -> Any:
    """Returns the mean binary cross-entropy of each image.

    Args:
        y_true: alphas (N, H, W, 1) in [0, 1]; negative where unknown.
        y_pred: alphas of the same shape.

    Returns:
        float32 (N,), at least 0, in nats; predictions count as 1e-7 away from 0 and 1 at least.
    """
    y_true, y_pred = _known(y_true, y_pred)
    return tf.reduce_mean(keras.losses.binary_crossentropy(y_true, y_pred), axis=(1, 2))


def _known(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Makes both alphas float32, and one and the same where the true one is unknown."""
    y_true, y_pred = tf.cast(y_true, tf.float32), tf.cast(y_pred, tf.float32)
    unknown = y_true < 0
    return tf.where(unknown, 0.0, y_true), tf.where(unknown, 0.0, y_pred)
