"""Keras metrics to watch while training: SAD, MSE and MAD.

Each is computed per image and averaged over images, so that the result does not depend on the batch
size and `sample_weight` weights images. They see alphas as the network does: at the training size
and not rounded to 8 bits. To compare with figures from papers use `kmatting.evaluate`, which also
has the gradient and connectivity errors.
"""

from typing import Any

import keras
from keras import ops

from kmatting.errors import UsageError

_PIXELS = (1, 2, 3)  # all axes of a batch of alphas but the first


class _PerImageMean(keras.metrics.Mean):
    """Averages a figure of each image over all images, in float32."""

    def __init__(self, name: str, dtype: str | None = None) -> None:
        super().__init__(name=name, dtype=dtype or "float32")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch.

        Args:
            y_true: true alphas, float in [0, 1], (N, H, W, 1). A negative value marks a pixel that
                is not known; any prediction counts as correct there.
            y_pred: predicted alphas of the same shape.
            sample_weight: one weight per image, (N,), or None.

        Raises:
            ValueError: if the shapes of the alphas differ.
        """
        y_true = ops.cast(ops.convert_to_tensor(y_true), self.dtype)
        y_pred = ops.cast(ops.convert_to_tensor(y_pred), self.dtype)
        if not _same_shape(y_true.shape, y_pred.shape):
            raise UsageError(
                f"Metric '{self.name}': expected y_true and y_pred of the same shape (N, H, W, 1), "
                f"received {tuple(y_true.shape)} and {tuple(y_pred.shape)}."
            )
        difference = ops.where(y_true < 0, 0.0, y_pred - y_true)
        super().update_state(self._figure(difference), sample_weight)

    def _figure(self, difference: Any) -> Any:
        """Computes the figure of each image, (N,), from differences (N, H, W, 1)."""
        raise NotImplementedError


@keras.saving.register_keras_serializable(package="kmatting")
class SAD(_PerImageMean):
    """Sum of absolute differences of an image, divided by 1000; averaged over images.

    It grows with the number of pixels, so only compare runs at the same size.

    Args:
        name: name in logs.
        dtype: dtype of the computation; float32 also under a mixed precision policy.

    Examples:
        >>> model.compile(optimizer, loss, metrics=[SAD(), MSE(), MAD()])

    Reference:
        Rhemann et al. 2009, A Perceptually Motivated Online Benchmark for Image Matting (CVPR);
        scaled as in Xu et al. 2017, Deep Image Matting (CVPR).
    """

    def __init__(self, name: str = "sad", dtype: str | None = None) -> None:
        super().__init__(name, dtype)

    def _figure(self, difference: Any) -> Any:
        return ops.sum(ops.abs(difference), axis=_PIXELS) / 1000.0


@keras.saving.register_keras_serializable(package="kmatting")
class MSE(_PerImageMean):
    """Mean squared difference over the pixels of an image; averaged over images.

    Args:
        name: name in logs.
        dtype: dtype of the computation; float32 also under a mixed precision policy.
    """

    def __init__(self, name: str = "mse", dtype: str | None = None) -> None:
        super().__init__(name, dtype)

    def _figure(self, difference: Any) -> Any:
        return ops.mean(ops.square(difference), axis=_PIXELS)


@keras.saving.register_keras_serializable(package="kmatting")
class MAD(_PerImageMean):
    """Mean absolute difference over the pixels of an image; averaged over images.

    Args:
        name: name in logs.
        dtype: dtype of the computation; float32 also under a mixed precision policy.
    """

    def __init__(self, name: str = "mad", dtype: str | None = None) -> None:
        super().__init__(name, dtype)

    def _figure(self, difference: Any) -> Any:
        return ops.mean(ops.abs(difference), axis=_PIXELS)


def _same_shape(left: Any, right: Any) -> bool:
    """Compares static shapes; an unknown side (None) matches any."""
    return len(left) == len(right) == 4 and all(
        a == b or a is None or b is None for a, b in zip(left, right, strict=True)
    )
