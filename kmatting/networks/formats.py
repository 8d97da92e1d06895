"""Loads a model of any format. Only the module of that format is imported, which saves time."""

from pathlib import Path

from kmatting.errors import ModelError
from kmatting.networks.network import Network, loading
from kmatting.sizes import Size, as_frame


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
    if path.is_dir():
        with loading(path, "a SavedModel"):
            from kmatting.networks.saved_model import load_saved_model, version_folder

            return load_saved_model(version_folder(path), threads)
    if path.suffix.lower() == ".keras":
        with loading(path, "a Keras model"):
            from kmatting.networks.keras_model import load_keras

            return load_keras(path, threads)
    if path.suffix.lower() == ".tflite":
        with loading(path, "a TFLite model"):
            from kmatting.networks.tflite import load_tflite

            frame = None if size is None else as_frame(size)
            return load_tflite(path.read_bytes(), threads, frame)
    if path.suffix.lower() == ".onnx":
        with loading(path, "an ONNX model"):
            from kmatting.networks.onnx import load_onnx

            return load_onnx(path, threads)
    raise ModelError(
        f"{path}: expected a .tflite, .onnx or .keras file or a SavedModel folder"
        + ("." if path.exists() else ", and there is no such file.")
    )
