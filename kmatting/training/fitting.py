"""Fits the network; freezes the parts that the config says."""

import contextlib
import sys
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from kmatting.config import Config, ModelConfig
from kmatting.data.pipeline import Data
from kmatting.errors import DeviceMemoryError
from kmatting.models import encoder_layers
from kmatting.training import replicas
from kmatting.training.compiling import compile_model

_LONGEST_REASON = 200  # characters of what TensorFlow says


def fit(
    model: keras.Model,
    strategy: tf.distribute.Strategy,
    config: Config,
    data: Data,
    callbacks: Sequence[keras.callbacks.Callback],
    first_epoch: int = 0,
    verbose: bool = True,
) -> None:
    """Trains a network to the last epoch of its config.

    Args:
        model: the compiled network; changed in place.
        strategy: where it is trained.
        config: the whole config.
        data: what it is trained on.
        callbacks: called by Keras in this order.
        first_epoch: epochs that are already complete.
        verbose: whether to print progress.

    Raises:
        DataError: if a file can no longer be read.
        NaNLossError: if the loss becomes NaN or infinite.
        LostWorkerError: if another worker of the cluster ended.
        DeviceMemoryError: if a step needs more memory than the device has.
    """
    last_epoch = config.training.epochs
    thaw = min(config.model.freeze_encoder_epochs, last_epoch)
    freezes = thaw > 0 or config.model.freeze_batch_norm
    for begin, end in ((0, thaw), (thaw, last_epoch)):
        begin = max(begin, first_epoch)
        if begin >= end:
            continue
        if freezes:
            _freeze(model, config.model, encoder=begin < thaw)
            with strategy.scope():
                compile_model(model, model.optimizer, config.training)
        with _clear_memory_error(config), data.clear_errors(), replicas.name_lost_worker():
            model.fit(
                replicas.distribute(strategy, data.train(begin)),
                validation_data=replicas.distribute(strategy, data.validation()),
                initial_epoch=begin,
                epochs=end,
                steps_per_epoch=data.steps_per_epoch,
                validation_steps=data.validation_steps,
                callbacks=list(callbacks),
                shuffle=False,  # the data are shuffled already
                verbose=(1 if sys.stdout.isatty() else 2) if verbose else 0,
            )


@contextlib.contextmanager
def _clear_memory_error(config: Config) -> Iterator[None]:
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        height, width = config.data.size
        reason = str(error.message).partition("\n")[0][:_LONGEST_REASON]
        dense = config.model.encoder.startswith("densenet") and not config.training.recompute
        or_recompute = ", or set training.recompute=true" if dense else ""
        raise DeviceMemoryError(
            f"training.batch_size={config.training.batch_size} at data.size {height}x{width} does "
            f"not fit into the memory of the device ({reason}). Reduce one of them by --set"
            f"{or_recompute}"
        ) from error


def _freeze(model: keras.Model, config: ModelConfig, encoder: bool) -> None:
    for layer in encoder_layers(model):
        layer.trainable = not encoder
    if config.freeze_batch_norm:
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
