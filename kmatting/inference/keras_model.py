"""Runs `.keras` files."""

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np

from kmatting.inference.metadata import read_size
from kmatting.inference.network import Network, fixed_frame
from kmatting.inference.runtime import limit_tensorflow, refuse_fork, tensorflow_memory


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

    import kmatting.layers  # noqa: F401  registers the layers that a model file names

    with_tensorflow = keras.backend.backend() == "tensorflow"
    if with_tensorflow:
        limit_tensorflow(threads)
    model = keras.saving.load_model(path, compile=False)

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
