"""Finds and loads the network to export."""

import os
import re
from pathlib import Path
from typing import Any

from kmatting.errors import ModelError, UsageError
from kmatting.networks.keras_model import load_model


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """Finds the `.keras` file to export.

    Args:
        path: a `.keras` file, or the folder of a training run.

    Returns:
        Path of the `.keras` file: of a run `best.keras`, or `last.keras` if that is missing.

    Raises:
        ValueError: if there is none.
    """
    path = Path(path)
    if path.is_dir():
        for checkpoint in _checkpoints():
            if (path / checkpoint).is_file():
                return path / checkpoint
        raise UsageError(
            f"{path}: expected the folder of a run, but it holds no {_checkpoints()[0]}."
        )
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder; expected a run or a .keras file.")
    if path.suffix != ".keras":
        raise UsageError(f"{path}: expected the folder of a run or a .keras file.")
    return path


def default_name(path: Path) -> str:
    """Names a model after its run, or after its file.

    Args:
        path: a `.keras` file.

    Returns:
        The name, of letters, digits, `_`, `-` and `.`.
    """
    name = path.absolute().parent.name if path.name in _checkpoints() else path.stem
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip(".-") or "model"


def load_checkpoint(path: Path) -> Any:
    """Loads a matting network for export.

    Args:
        path: a `.keras` file.

    Returns:
        The Keras model in float32, whatever precision it was trained in.

    Raises:
        ModelError: (a `ValueError`) if the file cannot be loaded or is not a matting network.
    """
    model = load_model(path)
    shapes = [tuple(tensor.shape) for tensor in (*model.inputs, *model.outputs)]
    if shapes != [(None, None, None, 3), (None, None, None, 1)]:
        raise ModelError(
            f"{path}: not a kmatting model: expected an image (None, None, None, 3) in and "
            f"an alpha (None, None, None, 1) out, received {' and '.join(map(str, shapes))}."
        )
    return _in_float32(model)


def _checkpoints() -> tuple[str, str]:
    """Files of a run, the preferred one first."""
    from kmatting.training.run_folder import BEST, LAST

    return BEST, LAST


def _in_float32(model: Any) -> Any:
    """Rebuilds a network that was trained in mixed precision."""
    import keras

    if all(layer.compute_dtype == "float32" for layer in model.layers):
        return model

    def rebuild(layer: Any) -> Any:
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    rebuilt = keras.models.clone_model(model, clone_function=rebuild)
    rebuilt.set_weights(model.get_weights())
    return rebuilt
