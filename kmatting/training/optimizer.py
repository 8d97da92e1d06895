"""Adam as one fused operation a variable, and its learning-rate schedule."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from kmatting.config import TrainingConfig


@keras.saving.register_keras_serializable(package="kmatting")
class Adam(keras.optimizers.Adam):
    """`keras.optimizers.Adam` with TensorFlow's fused update.

    The numbers are the same. Keras writes the update of each variable out in many operations; one
    makes the graph quicker to trace and optimise, which counts until the first step.

    Args:
        **kwargs: of `keras.optimizers.Adam`; `amsgrad` is not supported.

    Reference:
        Kingma and Ba 2015, Adam (https://arxiv.org/abs/1412.6980), the formulation before
        section 2.1.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable and its two moments in place."""
        step = ops.cast(self.iterations + 1, "float32")
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(self._momentums[index]),
            v=_handle(self._velocities[index]),
            beta1_power=ops.power(self.beta_1, step),
            beta2_power=ops.power(self.beta_2, step),
            lr=ops.cast(learning_rate, "float32"),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=ops.cast(gradient, "float32"),
        )


def make_optimizer(config: TrainingConfig, steps_per_epoch: int) -> Adam:
    """Makes Adam with its learning-rate schedule.

    Args:
        config: the training section of a config.
        steps_per_epoch: steps that an epoch has.

    Returns:
        The optimizer.
    """
    rate: Any = config.learning_rate
    schedule = config.schedule
    if schedule.kind == "cosine" or schedule.warmup_epochs:
        warmup = round(schedule.warmup_epochs * steps_per_epoch)
        rate = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else config.learning_rate,
            warmup_target=config.learning_rate if warmup else None,
            warmup_steps=warmup,
            decay_steps=max(1, config.epochs * steps_per_epoch - warmup),
            alpha=schedule.final if schedule.kind == "cosine" else 1.0,
        )
    return Adam(
        learning_rate=rate,
        beta_1=config.beta_1,
        beta_2=config.beta_2,
        global_clipnorm=config.clip_norm,
    )


def _handle(variable: Any) -> Any:
    """Returns the resource of a Keras or TensorFlow variable, under a strategy its replica's."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle
