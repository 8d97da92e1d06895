"""Runs SavedModel folders."""

import functools
from pathlib import Path

import numpy as np

from kmatting.errors import ModelError
from kmatting.networks.metadata import read_metadata
from kmatting.networks.network import PLAIN_SIGNATURE, SIGNATURE, Network, fixed_frame, only_one
from kmatting.networks.runtime import limit_tensorflow, refuse_fork, tensorflow_memory


def load_saved_model(path: Path, threads: int | None = None) -> Network:
    """Loads a SavedModel.

    Args:
        path: folder that holds `saved_model.pb`.
        threads: number of TensorFlow's threads; its default if None.

    Returns:
        The `Network`.

    Raises:
        ModelError: if it is not a matting model, the threads can no longer be set, or this
            process was forked from one that ran TensorFlow.
    """
    refuse_fork()
    import tensorflow as tf

    limit_tensorflow(threads)
    model = tf.saved_model.load(str(path))
    if SIGNATURE not in model.signatures:
        raise ModelError(f"has no signature {SIGNATURE!r}; export it by kmatting export.")
    served = PLAIN_SIGNATURE if PLAIN_SIGNATURE in model.signatures else SIGNATURE
    signature = model.signatures[served]
    name, image = only_one("input", signature.structured_input_signature[1])
    alpha_name, _ = only_one("output", signature.structured_outputs)

    @tensorflow_memory()
    def run(batch: np.ndarray) -> np.ndarray:
        values = tf.constant(batch if image.dtype == tf.uint8 else batch / np.float32(255))
        # The signature holds no reference to the model, whose variables would be collected.
        return model.signatures[served](**{name: values})[alpha_name].numpy()

    metadata = read_metadata(path)
    if not metadata and "encoded" in model.signatures:
        raise ModelError(
            "was exported by an older kmatting and does not say its size; export it again by "
            "kmatting export."
        )
    # The graph reduces larger photos to `max_size` when it serves.
    max_size: int | None = metadata.get("max_size")
    reload = functools.partial(load_saved_model, path, threads)
    return Network(run, fixed_frame(image.shape.as_list()), reload, max_size, max_size)


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
