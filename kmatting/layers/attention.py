"""The two attention modules of CBAM (Woo et al. 2018), one layer each."""

from typing import Any

import keras
from keras import ops

from kmatting.errors import UsageError


@keras.saving.register_keras_serializable(package="kmatting")
class CWise(keras.layers.Layer):
    """Channel-wise attention: weights the channels of a feature map.

    Average and maximum over space give two vectors. Both go through the same bottleneck MLP without
    biases, and the sigmoid of their sum multiplies the input:
    `x * sigmoid(W1 relu(W0 mean(x)) + W1 relu(W0 max(x)))`.

    Args:
        ratio: input channels per unit of the bottleneck, which has at least one unit.
        **kwargs: passed on to `keras.layers.Layer`.

    Input shape:
        (N, H, W, C), float; H and W may be unknown.

    Output shape:
        Same as the input.

    Examples:
        >>> CWise()(keras.ops.ones((1, 4, 4, 64))).shape
        (1, 4, 4, 64)

    Reference:
        Woo et al. 2018, CBAM: Convolutional Block Attention Module, section 3, equation 2
        (https://arxiv.org/abs/1807.06521).
    """

    def __init__(self, ratio: int = 16, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if ratio < 1:
            raise UsageError(f"Expected a ratio of at least 1, received {ratio}.")
        self.ratio = ratio

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the shared MLP for the input's number of channels."""
        channels = _known_channels(self, input_shape)
        hidden = max(1, channels // self.ratio)
        self.squeeze = keras.layers.Dense(
            hidden,
            activation="relu",
            use_bias=False,
            kernel_initializer="he_normal",
            dtype=self.dtype_policy,
            name="squeeze",
        )
        self.excite = keras.layers.Dense(
            channels, use_bias=False, dtype=self.dtype_policy, name="excite"
        )
        self.squeeze.build((None, channels))
        self.excite.build((None, hidden))
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        """Multiplies each channel by its attention in (0, 1)."""
        # In float32, since the sum over all pixels overflows float16.
        average = ops.cast(ops.mean(ops.cast(inputs, "float32"), axis=(1, 2)), self.compute_dtype)
        maximum = ops.max(inputs, axis=(1, 2))
        logits = self.excite(self.squeeze(average)) + self.excite(self.squeeze(maximum))
        return inputs * ops.sigmoid(logits)[:, None, None, :]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        return {**super().get_config(), "ratio": self.ratio}


@keras.saving.register_keras_serializable(package="kmatting")
class SWise(keras.layers.Layer):
    """Spatial attention: weights the pixels of a feature map.

    Average and maximum over channels give two maps. The sigmoid of a convolution over both, without
    bias, multiplies the input: `x * sigmoid(conv([mean(x); max(x)]))`.

    Args:
        kernel_size: side of the kernel in pixels, odd.
        **kwargs: passed on to `keras.layers.Layer`.

    Input shape:
        (N, H, W, C), float; H and W may be unknown.

    Output shape:
        Same as the input.

    Examples:
        >>> SWise()(keras.ops.ones((1, 32, 32, 8))).shape
        (1, 32, 32, 8)

    Reference:
        Woo et al. 2018, CBAM: Convolutional Block Attention Module, section 3, equation 3
        (https://arxiv.org/abs/1807.06521).
    """

    def __init__(self, kernel_size: int = 7, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise UsageError(f"Expected an odd kernel_size, received {kernel_size}.")
        self.kernel_size = kernel_size

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the convolution over the two pooled maps."""
        _known_channels(self, input_shape)
        self.convolution = keras.layers.Conv2D(
            1,
            self.kernel_size,
            padding="same",
            use_bias=False,
            dtype=self.dtype_policy,
            name="convolution",
        )
        self.convolution.build((None, None, None, 2))
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        """Multiplies each pixel by its attention in (0, 1)."""
        pooled = ops.concatenate(
            [ops.mean(inputs, axis=-1, keepdims=True), ops.max(inputs, axis=-1, keepdims=True)],
            axis=-1,
        )
        return inputs * ops.sigmoid(self.convolution(pooled))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        return {**super().get_config(), "kernel_size": self.kernel_size}


def _known_channels(layer: keras.layers.Layer, input_shape: tuple[int | None, ...]) -> int:
    if len(input_shape) != 4 or input_shape[-1] is None:
        raise UsageError(
            f"{type(layer).__name__}: expected input of shape (N, H, W, C) with known C, "
            f"received {tuple(input_shape)}."
        )
    return input_shape[-1]
