"""Loads a model of any format. Only the module of that format is imported, which saves time."""

import importlib
from collections.abc import Sequence
from pathlib import Path

from kmatting.errors import ModelError
from kmatting.networks.network import Network
from kmatting.networks.shipped import SHIPPED
from kmatting.sizes import Size

FOLDER = ""  # stands for the suffix of a folder
# What loads each kind of model file, by a function `load(path, threads, size)`. Its arguments are
# those of `load_network`; it returns a `Network`, and its `ModelError`s need not name the file.
MODEL_FILES = {
    ".tflite": "kmatting.networks.tflite",
    ".onnx": "kmatting.networks.onnx",
    ".keras": "kmatting.networks.keras_model",
    FOLDER: "kmatting.networks.saved_model",
}


def load_network(path: Path, threads: int | None = None, size: Size | None = None) -> Network:
    """Loads a model of any format.

    Args:
        path: a `.keras`, `.tflite` or `.onnx` file, or a SavedModel folder (or a folder of numbered
            versions, of which the highest is loaded).
        threads: number of processor threads; all by default (at most 8 for a `.tflite` file).
        size: which of its sizes to load of a `.tflite` file; the first by default. It does not
            matter for the other formats.

    Returns:
        The `Network`.

    Raises:
        ModelError: if the model is missing, cannot be loaded or is not a matting model, lacks the
            size, or if TensorFlow's threads can no longer be set.
    """
    suffix = FOLDER if path.is_dir() else path.suffix.lower()
    if suffix not in MODEL_FILES or (suffix == FOLDER and not path.is_dir()):
        raise ModelError(
            f"{path}: expected {describe_models()}"
            + ("." if path.exists() else ", and there is no such file.")
        )
    if not path.exists():
        raise ModelError(f"{path}: no such file.")
    try:
        network: Network = importlib.import_module(MODEL_FILES[suffix]).load(path, threads, size)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    return network


def describe_models() -> str:
    """Returns what a model may be."""
    suffixes = _either([suffix for suffix in MODEL_FILES if suffix])
    return (
        f"a {suffixes} file or a SavedModel folder, or a model that kmatting ships: "
        f"{_either(SHIPPED)}"
    )


def _either(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}"
