"""Loads and runs `.keras` files."""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kmatting.errors import ModelError
from kmatting.keras_setup import import_keras
from kmatting.networks.metadata import find_metadata, parse_metadata, trained_size
from kmatting.networks.network import Network, fixed_size, foreign
from kmatting.networks.runtime import limit_tensorflow, refuse_fork, tensorflow_memory
from kmatting.networks.shipped import find_model
from kmatting.sizes import Size

if TYPE_CHECKING:
    import keras

_KIND = "a Keras model"


def load_model(path: str | os.PathLike[str] | None = None) -> "keras.Model":
    """Loads the Keras network of a `.keras` file, to inspect it or to train it further.

    Args:
        path: the file, such as `best.keras` of a training run, or the name of a network that
            kmatting ships, `general` (the default), `detail` or `open`.

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
    path = find_model(path, ".keras")
    if path.is_dir() or path.suffix.lower() != ".keras":
        raise ModelError(f"{path}: expected a .keras file.")
    if not path.exists():
        raise ModelError(f"{path}: no such file.")
    try:
        return _load(path)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def load(path: Path, threads: int | None = None, size: Size | None = None) -> "KerasNetwork":
    """Loads a `.keras` file, see `kmatting.networks.formats.load_network`."""
    return KerasNetwork(path.absolute(), threads)


class KerasNetwork(Network):
    """A `.keras` file.

    Args:
        path: the file.
        threads: number of TensorFlow's threads; its default if None.

    Raises:
        ModelError: if the model does not take an image, the threads can no longer be set, or
            this process was forked from one that ran TensorFlow.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        super().__init__(path, threads)
        refuse_fork()
        with foreign(_KIND):
            keras = import_keras()
        with_tensorflow = keras.backend.backend() == "tensorflow"
        if with_tensorflow:
            limit_tensorflow(threads)
        model = _load(path)
        self.fixed_size = fixed_size(model.input_shape)
        self._metadata = parse_metadata(find_metadata(path))
        trained_at = trained_size(self._metadata)
        self.best_size = trained_at and round(math.prod(trained_at) ** 0.5)

        call = model.predict_on_batch  # compiles the network, anew for each shape
        if with_tensorflow:
            import tensorflow as tf

            def traced(image: Any) -> Any:
                return model(image, training=False)

            # One graph for photos of all shapes.
            signature = [tf.TensorSpec((1, *model.input_shape[1:]), tf.float32)]
            call = tensorflow_memory()(tf.function(traced, input_signature=signature))
        self._call = call

    @property
    def metadata(self) -> dict[str, Any]:
        """Content of the model's `kmatting.json`."""
        return self._metadata

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Runs the network, as `Network.run` says."""
        import keras

        alpha: np.ndarray = keras.ops.convert_to_numpy(self._call(batch / np.float32(255)))
        return alpha


def _load(path: Path) -> Any:
    with foreign(_KIND):
        keras = import_keras()
    import kmatting.layers  # noqa: F401  registers the layers that a model file names

    with foreign(_KIND):
        return keras.saving.load_model(path, compile=False)
