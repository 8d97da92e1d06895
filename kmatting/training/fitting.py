"""Trains the network and freezes the layers named by the config."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from kmatting.config import Config, ModelConfig
from kmatting.data.pipeline import Data
from kmatting.errors import DeviceMemoryError
from kmatting.models import encoder_layers
from kmatting.training import replicas
from kmatting.training.compiling import compile_model
from kmatting.training.feeding import feed, own_errors

_LONGEST_REASON = 200  # characters of what TensorFlow says


def fit(
    model: keras.Model,
    strategy: Any,
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
        verbose: whether to show a bar for each epoch, if standard output is a terminal.

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
                if begin == thaw > 0:
                    model.optimizer.restart()
                compile_model(model, model.optimizer, config.training)
        train, seen = data.train(begin * data.steps_per_epoch), data.validation()
        with _clear_memory_error(config), replicas.name_lost_worker(), own_errors(train, seen):
            model.fit(
                replicas.distribute(strategy, feed(train, data)),
                validation_data=replicas.distribute(strategy, feed(seen, data)),
                initial_epoch=begin,
                epochs=end,
                steps_per_epoch=data.steps_per_epoch,
                validation_steps=data.validation_steps,
                callbacks=list(callbacks),
                shuffle=False,  # the data are shuffled already
                verbose=1 if verbose and sys.stdout.isatty() else 0,
            )


@contextlib.contextmanager
def _clear_memory_error(config: Config) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        height, width = config.data.size
        reason = str(getattr(error, "message", error)).partition("\n")[0][:_LONGEST_REASON]
        dense = config.model.encoder.startswith("densenet") and not config.training.recompute
        or_recompute = ", or set training.recompute=true" if dense else ""
        raise DeviceMemoryError(
            f"training.batch_size={config.training.batch_size} at data.size {height}x{width} does "
            f"not fit into the memory of the device ({reason}). Reduce one of them by --set"
            f"{or_recompute}"
        ) from error


def _is_out_of_memory(error: Exception) -> bool:
    """Recognises the error of TensorFlow, JAX or PyTorch without importing any of them."""
    name = type(error).__name__
    return name in ("ResourceExhaustedError", "OutOfMemoryError") or (
        name in ("XlaRuntimeError", "JaxRuntimeError") and "RESOURCE_EXHAUSTED" in str(error)
    )


def _freeze(model: keras.Model, config: ModelConfig, encoder: bool) -> None:
    for layer in encoder_layers(model):
        layer.trainable = not encoder
    if config.freeze_batch_norm:
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
