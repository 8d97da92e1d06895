"""The network of a run: built, compiled and, in a resumed run, with its trained weights."""

import warnings
from pathlib import Path
from typing import Any

import keras

from kmatting import models
from kmatting.config import Config
from kmatting.errors import CheckpointError
from kmatting.models.weights import explain, load_weights
from kmatting.training import replicas
from kmatting.training.compiling import compile_model
from kmatting.training.feeding import scale_on_device
from kmatting.training.optimizer import make_optimizer


def make_network(
    config: Config,
    strategy: Any,
    steps_per_epoch: int,
    checkpoint: Path | None = None,
) -> keras.Model:
    """Makes the network of a run, ready for `fit`.

    Args:
        config: the whole config.
        strategy: where it is trained.
        steps_per_epoch: training steps of an epoch.
        checkpoint: the `last.keras` to resume from. Weights to start from are not read then.

    Returns:
        The compiled Keras model.

    Raises:
        ConfigError: if weights to start from are missing or do not fit.
        CheckpointError: if the checkpoint is damaged or belongs to another network.
    """
    architecture = config.model
    if checkpoint:
        architecture = architecture.model_copy(update={"weights": None, "encoder_weights": "none"})
    with strategy.scope():
        model = models.build_model(architecture)
        if config.training.recompute:
            models.recompute_dense_blocks(model)
        compile_model(model, make_optimizer(config.training, steps_per_epoch), config.training)
    if config.training.encoder_rate != 1:
        encoder = [v for layer in models.encoder_layers(model) for v in layer.trainable_variables]
        model.optimizer.slow_down(encoder, config.training.encoder_rate)
    scale_on_device(model)
    if replicas.is_on_several_machines(strategy):
        replicas.let_keras_fit(model)
    if checkpoint:
        _load_checkpoint(model, checkpoint)
    return model


def _load_checkpoint(model: keras.Model, checkpoint: Path) -> None:
    """Loads the weights and the state of the optimizer."""
    try:
        with warnings.catch_warnings():
            # Keras only warns if the state is that of another optimizer, and starts from step 0.
            warnings.filterwarnings("error", message="Skipping variable loading")
            load_weights(model, checkpoint)
    except Exception as error:  # h5py and Keras raise many types for a damaged file
        raise CheckpointError(
            f"{checkpoint}: damaged, or of another network or optimizer: {explain(error)}."
        ) from error
