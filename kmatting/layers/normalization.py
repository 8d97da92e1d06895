"""Batch norm as one fused operation."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kmatting")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Batch norm over the last axis, as one operation on TensorFlow.

    Keras writes out batch norm in many operations and computes them in float32 whatever the
    precision. TensorFlow's fused operation gives the same outputs with a smaller graph, and keeps
    16-bit activations under mixed precision (its statistics stay float32). The moving variance is
    the unbiased one, as in the paper; Keras's is (n - 1) / n times that. On Keras's other backends
    this is Keras's layer.

    Args:
        momentum: of the moving averages, in [0, 1).
        epsilon: added to the variance.
        **kwargs: passed on to `keras.layers.Layer`.

    Input shape:
        (N, H, W, C), float; N, H and W may be unknown.

    Output shape:
        Same as the input.

    Reference:
        Ioffe and Szegedy 2015, Batch Normalization (https://arxiv.org/abs/1502.03167).
    """

    def __init__(self, momentum: float = 0.99, epsilon: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalises with the statistics of the batch in training, else with the moving ones."""
        if keras.backend.backend() != "tensorflow":
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        training = bool(training) and self.trainable
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=ops.cast(inputs, self.compute_dtype),
            scale=ops.convert_to_tensor(self.gamma),
            offset=ops.convert_to_tensor(self.beta),
            mean=ops.convert_to_tensor(self.moving_mean),
            variance=ops.convert_to_tensor(self.moving_variance),
            epsilon=self.epsilon,
            exponential_avg_factor=1 - self.momentum,
            is_training=training,
        )
        if training:
            self.moving_mean.assign(mean)
            self.moving_variance.assign(variance)
        return outputs

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        arguments = ("name", "trainable", "dtype", "momentum", "epsilon")
        config = super().get_config()
        return {name: config[name] for name in arguments}
