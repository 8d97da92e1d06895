"""Loads a model of any format. Only the module of that format is imported, which saves time."""

import importlib
from dataclasses import dataclass
from pathlib import Path

from kmatting.errors import ModelError
from kmatting.networks.network import Network, loading
from kmatting.sizes import Size


@dataclass(frozen=True)
class ModelFile:
    """A kind of model file.

    Attributes:
        kind: what messages call it.
        module: what loads it, by `load(path, threads, size)`; the arguments are those of
            `load_network`, and it returns a `Network`.
    """

    kind: str
    module: str


FOLDER = ""  # stands for the suffix of a folder
MODEL_FILES = {
    ".tflite": ModelFile("a TFLite model", "kmatting.networks.tflite"),
    ".onnx": ModelFile("an ONNX model", "kmatting.networks.onnx"),
    ".keras": ModelFile("a Keras model", "kmatting.networks.keras_model"),
    FOLDER: ModelFile("a SavedModel", "kmatting.networks.saved_model"),
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
    found = MODEL_FILES.get(suffix)
    if found is None or (suffix == FOLDER and not path.is_dir()):
        raise ModelError(
            f"{path}: expected {describe_model_files()}"
            + ("." if path.exists() else ", and there is no such file.")
        )
    with loading(path, found.kind):
        network: Network = importlib.import_module(found.module).load(path, threads, size)
        return network


def describe_model_files() -> str:
    """Returns what a model may be: "a .tflite, .onnx or .keras file or a SavedModel folder"."""
    *suffixes, last = (suffix for suffix in MODEL_FILES if suffix)
    return f"a {', '.join(suffixes)} or {last} file or a SavedModel folder"
