"""Gives a network its loss, its optimizer and the metrics that are logged."""

import keras

from kmatting.config import TrainingConfig
from kmatting.training.keras_metrics import MAD, MSE, SAD
from kmatting.training.losses import MattingLoss


def compile_model(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, config: TrainingConfig
) -> None:
    """Compiles a network for training and builds its optimizer.

    Args:
        model: a matting network.
        optimizer: what updates the weights. One that has trained before keeps its state.
        config: the `training` section of a config.
    """
    loss = MattingLoss(config.loss.model_dump())
    model.compile(
        optimizer=optimizer,
        loss=loss,
        weighted_metrics=[*loss.metrics(), SAD(), MSE(), MAD()],
        # Keras compiles on JAX whatever the config says: without it every operation waits.
        jit_compile=True if keras.backend.backend() == "jax" else config.jit,
    )
    # The first step would build it inside the graph, and then trace the graph a second time.
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
