"""Adam, its learning-rate schedule, and the clipping of its gradients."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kmatting.config import TrainingConfig


@keras.saving.register_keras_serializable(package="kmatting")
class FusedAdam(keras.optimizers.Adam):
    """Adam with TensorFlow's fused update and a norm over the gradients of all replicas.

    The updates equal those of `keras.optimizers.Adam`. Keras writes out the update of each variable
    in many operations; one operation makes the graph faster to trace. Keras also clips on each
    replica before it sums the gradients; here the norm of the sum is clipped.

    `fit` leaves the weights as they were trained, also where they are averaged.

    Adam enlarges its first steps, whose moments are still near zero, by the number of steps so far.
    Of variables that were frozen until now that number is too large, and their steps would come out
    up to 17 times as long as the learning rate says; `restart` counts anew.

    Private names of Keras are used; a test says when Keras's own Adam will do.

    Args:
        clip_norm: largest global norm of the gradients; larger ones are scaled down to it. None
            clips nothing.
        **kwargs: passed on to `keras.optimizers.Adam`. `amsgrad` and Keras's own clipping are not
            supported.

    Reference:
        Kingma and Ba 2015, Adam (https://arxiv.org/abs/1412.6980), the formulation before
        section 2.1.
    """

    def __init__(self, clip_norm: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.clip_norm = clip_norm
        self._begin = keras.Variable(
            0,
            name="begin",
            dtype=self.iterations.dtype,
            trainable=False,
            aggregation="only_first_replica",
        )
        self._shares: dict[int, float] = {}

    def slow_down(self, variables: Sequence[Any], share: float) -> None:
        """Updates some variables at a share of the learning rate; call it before the first step."""
        for variable in variables:
            self._shares[self._get_variable_index(variable)] = share

    def restart(self) -> None:
        """Forgets the moments, and counts steps from here; the learning rate goes on as planned.

        For a network of which a part was frozen until now.
        """
        for moment in (*self._momentums, *self._velocities):
            moment.assign(ops.zeros(moment.shape, moment.dtype))
        # A copy: JAX gives buffers away, and must not give one away twice.
        self._begin.assign(ops.convert_to_numpy(self.iterations))

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Clips the gradients and updates the variables.

        With several replicas the clipping costs a second reduction of the gradients.
        """
        if self.clip_norm is not None:
            whole = _summed_over_replicas(grads) if _on_tensorflow() else grads
            squares = [ops.sum(ops.square(ops.cast(each, "float32"))) for each in whole]
            scale = self.clip_norm / ops.maximum(ops.sqrt(sum(squares)), self.clip_norm)
            grads = [gradient * ops.cast(scale, gradient.dtype) for gradient in grads]
        super().apply(grads, trainable_variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a variable and its two moments in place."""
        step = ops.cast(self.iterations + 1 - self._begin, "float32")
        powers = ops.power(self.beta_1, step), ops.power(self.beta_2, step)
        index = self._get_variable_index(variable)
        learning_rate = ops.cast(learning_rate, "float32") * self._shares.get(index, 1.0)
        first, second = self._momentums[index], self._velocities[index]
        if not _on_tensorflow():
            first.assign(first + (1 - self.beta_1) * (gradient - first))
            second.assign(second + (1 - self.beta_2) * (ops.square(gradient) - second))
            rate = learning_rate * ops.sqrt(1 - powers[1]) / (1 - powers[0])
            variable.assign(variable - rate * first / (ops.sqrt(second) + self.epsilon))
            return
        import tensorflow as tf

        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(first),
            v=_handle(second),
            beta1_power=powers[0],
            beta2_power=powers[1],
            lr=learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=ops.cast(gradient, "float32"),
        )

    def build(self, variables: Sequence[Any]) -> None:
        """Makes the moments; averages start from the weights, so that those of frozen ones hold."""
        super().build(variables)
        if self.use_ema:
            for average, variable in zip(
                self._model_variables_moving_average, self._trainable_variables, strict=True
            ):
                average.assign(ops.convert_to_numpy(variable))  # a copy, as above

    def stateless_apply(
        self,
        optimizer_variables: Sequence[Any],
        grads: Sequence[Any],
        trainable_variables: Sequence[Any],
    ) -> tuple[list[Any], list[Any]]:
        """Updates variables on JAX, also where some of them were frozen after `build`.

        Keras expects all that the optimizer was built with, and hands over those that are trained.
        """
        trained = [each for each in self._trainable_variables if each.trainable]
        states = [
            *zip(trained, trainable_variables, strict=True),
            *zip(self.variables, optimizer_variables, strict=True),
        ]
        with keras.StatelessScope(state_mapping=states) as scope:
            self.apply(grads, trained)
        return (
            [scope.get_current_value(each) for each in trained],
            [scope.get_current_value(each) for each in self.variables],
        )

    def _update_model_variables_moving_average(self, trainable_variables: Sequence[Any]) -> None:
        """Averages what is trained; frozen weights are not there on JAX, and do not change."""
        averages = self._model_variables_moving_average
        momentum = ops.where(ops.equal(self.iterations, 0), 0.0, self.ema_momentum)
        for variable, average in zip(trainable_variables, averages, strict=True):
            if variable.trainable:
                average.assign(momentum * average + (1 - momentum) * variable)

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """Keeps the trained weights, where Keras would put the averaged ones into the network."""

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        return {**super().get_config(), "clip_norm": self.clip_norm}


def make_optimizer(config: TrainingConfig, steps_per_epoch: int) -> FusedAdam:
    """Makes Adam with the learning rates of a run.

    Args:
        config: the `training` section of a config.
        steps_per_epoch: training steps of an epoch.

    Returns:
        The optimizer.
    """
    return FusedAdam(
        learning_rate=_learning_rate(config, steps_per_epoch),
        beta_1=config.beta_1,
        beta_2=config.beta_2,
        clip_norm=config.clip_norm,
        use_ema=config.average is not None,
        ema_momentum=config.average or 0.0,
    )


def _learning_rate(
    config: TrainingConfig, steps_per_epoch: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    schedule = config.schedule
    if schedule.kind == "constant" and not schedule.warmup_epochs:
        return config.learning_rate
    warmup = round(schedule.warmup_epochs * steps_per_epoch)
    return keras.optimizers.schedules.CosineDecay(
        # From 0 the first step would change nothing.
        initial_learning_rate=config.learning_rate / max(1, warmup),
        warmup_target=config.learning_rate if warmup else None,
        warmup_steps=warmup,
        decay_steps=max(1, config.epochs * steps_per_epoch - warmup),
        alpha=schedule.final if schedule.kind == "cosine" else 1.0,
    )


def _on_tensorflow() -> bool:
    return keras.backend.backend() == "tensorflow"


def _summed_over_replicas(gradients: Sequence[Any]) -> Sequence[Any]:
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return gradients
    return context.all_reduce(tf.distribute.ReduceOp.SUM, list(gradients))


def _handle(variable: Any) -> Any:
    """Returns the resource handle of a Keras or TensorFlow variable, as raw operations need it."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle
