"""Resizing that also works when height and width are unknown."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kmatting.errors import UsageError


@keras.saving.register_keras_serializable(package="kmatting")
class BilinearUpsampling(keras.layers.Layer):
    """Enlarges a feature map bilinearly, with pixel centres at half-integers.

    `keras.layers.UpSampling2D(interpolation="bilinear")` gives the same numbers, but in Keras 3.15
    its TensorFlow graph fails when H and W are unknown, as they are in every export.

    Args:
        factor: ratio of output side to input side, 1 or more.
        **kwargs: passed on to `keras.layers.Layer`.

    Input shape:
        (N, H, W, C), float; H and W may be unknown.

    Output shape:
        (N, factor * H, factor * W, C), of the layer's compute dtype.
    """

    def __init__(self, factor: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if factor < 1:
            raise UsageError(f"Expected a factor of at least 1, received {factor}.")
        self.factor = factor

    def call(self, inputs: Any) -> Any:
        """Enlarges the input."""
        height, width = ops.shape(inputs)[1:3]
        return _resize(inputs, (height * self.factor, width * self.factor), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the output."""
        batch, height, width, channels = input_shape
        return (
            batch,
            None if height is None else height * self.factor,
            None if width is None else width * self.factor,
            channels,
        )

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        """Returns the output's shape and dtype without running `call`."""
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable(package="kmatting")
class ResizeLike(keras.layers.Layer):
    """Resizes a feature map bilinearly to the height and width of another one.

    Input shape:
        Two tensors: (N, h, w, C), float, and (N, H, W, any); all sides may be unknown.

    Output shape:
        (N, H, W, C), of the layer's compute dtype.
    """

    def call(self, inputs: Any, like: Any) -> Any:
        """Resizes the first input."""
        return _resize(inputs, tuple(ops.shape(like)[1:3]), self.compute_dtype)

    def compute_output_spec(self, inputs: Any, like: Any) -> keras.KerasTensor:
        """Returns the output's shape and dtype without running `call`."""
        shape = (inputs.shape[0], *like.shape[1:3], inputs.shape[3])
        return keras.KerasTensor(shape, self.compute_dtype)


@keras.saving.register_keras_serializable(package="kmatting")
class ReduceTo(keras.layers.Layer):
    """Reduces images to about the area of a square, and leaves smaller ones as they are.

    The shape is kept as far as sides that 16 divides allow. Each pixel is the mean of a block: the
    image is first resized bilinearly to the nearest whole multiple of the new size.

    Args:
        size: side of the square in pixels, a multiple of 16.
        **kwargs: passed on to `keras.layers.Layer`.

    Input shape:
        (N, H, W, C), float; N, H and W may be unknown. 16 divides H and W.

    Output shape:
        (N, h, w, C), of the layer's compute dtype. 16 divides h and w.
    """

    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if size < 16 or size % 16:
            raise ValueError(f"Expected a size that 16 divides, received {size}.")
        self.size = size

    def call(self, inputs: Any) -> Any:
        """Reduces the input."""
        height, width = ops.shape(inputs)[1:3]
        if isinstance(height, int) and isinstance(width, int):
            rows, columns, block = map(int, _reduced(np, height, width, self.size))
            if (block * rows, block * columns) != (height, width):
                inputs = _resize(inputs, (block * rows, block * columns), self.compute_dtype)
            # The same mean as below, for which runtimes have a fast operation.
            return ops.average_pool(inputs, block, block, data_format="channels_last")
        rows, columns, block = (
            ops.cast(number, "int32") for number in _reduced(ops, height, width, self.size)
        )
        inputs = _resize(inputs, (block * rows, block * columns), self.compute_dtype)
        blocks = ops.reshape(inputs, (-1, rows, block, columns, block, inputs.shape[3]))
        return ops.mean(blocks, axis=(2, 4))

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        """Returns the output's shape and dtype without running `call`."""
        batch, _, _, channels = inputs.shape
        return keras.KerasTensor((batch, None, None, channels), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        return {**super().get_config(), "size": self.size}


def _reduced(math: Any, height: Any, width: Any, size: int) -> tuple[Any, Any, Any]:
    """Computes the sides of a reduced image, and the side of the blocks that are averaged.

    Args:
        math: `numpy` for known sides, `keras.ops` for tensors; both round alike in float32.
        height: height of the image.
        width: width of the image.
        size: as in `ReduceTo`.

    Returns:
        Height, width and the blocks' side, whole numbers in float32.
    """
    height, width = math.add(height, np.float32(0)), math.add(width, np.float32(0))
    ratio = math.maximum(math.sqrt(height * width) / np.float32(size), np.float32(1))
    height, width = (
        16 * math.maximum(math.round(side / (16 * ratio)), np.float32(1))
        for side in (height, width)
    )
    return height, width, math.round(ratio)


def _resize(inputs: Any, size: tuple[Any, Any], dtype: str) -> Any:
    """Resizes (N, H, W, C) bilinearly."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # tf.image.resize always returns float32.
        return ops.cast(tf.image.resize(inputs, size, "bilinear"), dtype)
    return ops.image.resize(inputs, size, interpolation="bilinear", data_format="channels_last")
