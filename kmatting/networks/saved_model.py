"""Runs SavedModel folders."""

from pathlib import Path
from typing import Any

import numpy as np

from kmatting.errors import ModelError
from kmatting.networks.metadata import find_metadata, parse_metadata
from kmatting.networks.network import (
    PLAIN_SIGNATURE,
    SIGNATURE,
    Network,
    fixed_size,
    foreign,
    only_one,
)
from kmatting.networks.runtime import limit_tensorflow, refuse_fork, tensorflow_memory
from kmatting.sizes import Size

_KIND = "a SavedModel"


def load(path: Path, threads: int | None = None, size: Size | None = None) -> "SavedModelNetwork":
    """Loads a SavedModel, see `kmatting.networks.formats.load_network`."""
    return SavedModelNetwork(version_folder(path), threads)


class SavedModelNetwork(Network):
    """A SavedModel.

    Args:
        path: folder that holds `saved_model.pb`.
        threads: number of TensorFlow's threads; its default if None.

    Raises:
        ModelError: if it is not a matting model, the threads can no longer be set, or this
            process was forked from one that ran TensorFlow.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        super().__init__(path, threads)
        refuse_fork()
        with foreign(_KIND):
            import tensorflow as tf
        limit_tensorflow(threads)
        with foreign(_KIND):
            # Kept: the signature holds no reference to the model, whose variables would be freed.
            self._model = tf.saved_model.load(str(path))
        signatures = self._model.signatures
        if SIGNATURE not in signatures:
            raise ModelError(f"has no signature {SIGNATURE!r}; export it by kmatting export.")
        self._served = PLAIN_SIGNATURE if PLAIN_SIGNATURE in signatures else SIGNATURE
        signature = signatures[self._served]
        self._input, image = only_one("input", signature.structured_input_signature[1])
        self._output, _ = only_one("output", signature.structured_outputs)
        self._takes_bytes = image.dtype == tf.uint8
        self.fixed_size = fixed_size(image.shape.as_list())
        self._metadata = parse_metadata(find_metadata(path))
        if not self._metadata and "encoded" in signatures:
            raise ModelError(
                "was exported by an older kmatting and does not say its size; export it again by "
                "kmatting export."
            )
        # The graph reduces larger photos to `max_size` when it serves.
        self.best_size = self.max_size = self._metadata.get("max_size")

    @property
    def metadata(self) -> dict[str, Any]:
        """Content of the model's `kmatting.json`."""
        return self._metadata

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Runs the network, as `Network.run` says."""
        import tensorflow as tf

        values = tf.constant(batch if self._takes_bytes else batch / np.float32(255))
        with tensorflow_memory():
            outputs = self._model.signatures[self._served](**{self._input: values})
            alpha: np.ndarray = outputs[self._output].numpy()
        return alpha


def version_folder(path: Path) -> Path:
    """Finds the SavedModel in a folder: the folder itself, or its highest numbered version.

    Args:
        path: the folder.

    Raises:
        ModelError: if there is none.
    """
    if (path / "saved_model.pb").exists():
        return path
    versions = [
        folder
        for folder in path.iterdir()
        if folder.name.isdecimal() and (folder / "saved_model.pb").exists()
    ]
    if not versions:
        raise ModelError(
            "not a SavedModel: expected saved_model.pb in this folder or in a numbered one in it."
        )
    return max(versions, key=lambda folder: int(folder.name))
