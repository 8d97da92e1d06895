"""Matting figures as Keras metrics, to watch while training: SAD, MSE and MAD.

Each is computed per image and averaged over images, so that it does not depend on how a data set
falls into batches, and so that `sample_weight` weighs images. They see what the network sees:
mattes at the training size, not rounded to 8 bits. For figures that can stand beside those of
papers, with gradient and connectivity error, see `kmatting.metrics` and `kmatting.evaluate`.
"""

from typing import Any

import keras
from keras import ops

_PIXELS = (1, 2, 3)  # all axes of a batch of alphas but the first


class _PerImageMean(keras.metrics.Mean):
    """Averages a figure of single images over all images seen, in float32."""

    def __init__(self, name: str, dtype: str | None = None) -> None:
        super().__init__(name=name, dtype=dtype or "float32")
        self._direction = "down"  # for callbacks with mode="auto"

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch.

        Args:
            y_true: true alphas, float in [0, 1], (B, H, W, 1); where negative, they are unknown
                and whatever is predicted counts as right.
            y_pred: predicted alphas of the same shape.
            sample_weight: one weight an image, (B,), or None.

        Raises:
            ValueError: if the shapes of the alphas differ.
        """
        y_true = ops.cast(ops.convert_to_tensor(y_true), self.dtype)
        y_pred = ops.cast(ops.convert_to_tensor(y_pred), self.dtype)
        if not _same_shape(y_true.shape, y_pred.shape):
            raise ValueError(
                f"Metric '{self.name}' expected y_true and y_pred of one shape (B, H, W, 1), "
                f"received {tuple(y_true.shape)} and {tuple(y_pred.shape)}."
            )
        difference = ops.where(y_true < 0, 0.0, y_pred - y_true)
        super().update_state(self._figure(difference), sample_weight)

    def _figure(self, difference: Any) -> Any:
        """Computes the figure of each image, (B,), from differences (B, H, W, 1)."""
        raise NotImplementedError


@keras.saving.register_keras_serializable(package="kmatting")
class SAD(_PerImageMean):
    """Sum of absolute differences of an image, divided by 1000; mean over images.

    It grows with the number of pixels: compare only trainings at one size.

    Args:
        name: name in logs.
        dtype: dtype of the computation; float32 also under a mixed precision policy.

    Example:
        >>> model.compile(optimizer, loss, metrics=[SAD(), MSE(), MAD()])

    Reference:
        Rhemann et al., "A Perceptually Motivated Online Benchmark for Image Matting", CVPR 2009;
        scaled as in "Deep Image Matting", Xu et al., CVPR 2017.
    """

    def __init__(self, name: str = "sad", dtype: str | None = None) -> None:
        super().__init__(name, dtype)

    def _figure(self, difference: Any) -> Any:
        return ops.sum(ops.abs(difference), axis=_PIXELS) / 1000.0


@keras.saving.register_keras_serializable(package="kmatting")
class MSE(_PerImageMean):
    """Mean squared difference over the pixels of an image; mean over images.

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
    """Mean absolute difference over the pixels of an image; mean over images.

    Args:
        name: name in logs.
        dtype: dtype of the computation; float32 also under a mixed precision policy.
    """

    def __init__(self, name: str = "mad", dtype: str | None = None) -> None:
        super().__init__(name, dtype)

    def _figure(self, difference: Any) -> Any:
        return ops.mean(ops.abs(difference), axis=_PIXELS)


def _same_shape(one: Any, other: Any) -> bool:
    """Compares static shapes; an unknown size (None) agrees with any."""
    return len(one) == len(other) == 4 and all(
        a == b or a is None or b is None for a, b in zip(one, other, strict=True)
    )
