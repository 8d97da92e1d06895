"""Loads and runs `.keras` files."""

import functools
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kmatting.errors import ModelError
from kmatting.networks.metadata import read_size
from kmatting.networks.network import Network, fixed_frame, loading
from kmatting.networks.runtime import limit_tensorflow, refuse_fork, tensorflow_memory
from kmatting.networks.shipped import shipped_model

if TYPE_CHECKING:
    import keras


def load_model(path: str | os.PathLike[str] | None = None) -> "keras.Model":
    """Loads the Keras network of a `.keras` file, to inspect it or to train it further.

    Args:
        path: the file, such as `best.keras` of a training run. By default the network that
            kmatting ships.

    Returns:
        The Keras model, not compiled: float32 image (N, H, W, 3) in [0, 1] to float32 alpha
        (N, H, W, 1) in [0, 1], where H and W are multiples of 16.

    Raises:
        ModelError: (a `ValueError`) if the file is missing or cannot be loaded, or TensorFlow is
            not installed (extra `train`).

    Examples:
        >>> model = kmatting.load_model("runs/mine/best.keras")
        >>> model.summary()
    """
    path = shipped_model(".keras") if path is None else Path(path)
    if path.is_dir() or path.suffix.lower() != ".keras":
        raise ModelError(f"{path}: expected a .keras file.")
    with loading(path, "a Keras model"):
        return _load(path)


def load_keras(path: Path, threads: int | None = None) -> Network:
    """Loads a `.keras` file.

    Args:
        path: the file.
        threads: number of TensorFlow's threads; its default if None.

    Returns:
        The `Network`.

    Raises:
        ModelError: if the model does not take an image, the threads can no longer be set, or
            this process was forked from one that ran TensorFlow.
    """
    refuse_fork()
    import keras

    with_tensorflow = keras.backend.backend() == "tensorflow"
    if with_tensorflow:
        limit_tensorflow(threads)
    model = _load(path)

    def call(image: Any) -> Any:
        return model(image, training=False)

    if with_tensorflow:
        import tensorflow as tf

        # One graph for photos of all shapes; `predict` would trace a new one for each.
        signature = [tf.TensorSpec((1, *model.input_shape[1:]), tf.float32)]
        call = tensorflow_memory()(tf.function(call, input_signature=signature))

    def run(batch: np.ndarray) -> np.ndarray:
        return keras.ops.convert_to_numpy(call(batch / np.float32(255)))

    trained_at = read_size(path)
    size = trained_at and round(math.prod(trained_at) ** 0.5)
    reload = functools.partial(load_keras, path, threads)
    return Network(run, fixed_frame(model.input_shape), reload, size)


def _load(path: Path) -> Any:
    import keras

    import kmatting.layers  # noqa: F401  registers the layers that a model file names

    return keras.saving.load_model(path, compile=False)
