"""Finds and loads the network to export."""

import os
from pathlib import Path
from typing import Any

from kmatting.training.run_folder import BEST, LAST

CHECKPOINTS = (BEST, LAST)  # of a run, the first one that is there


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """Finds the model file.

    Args:
        path: a `.keras` file, or the folder of a training run.

    Returns:
        The `.keras` file: of a run `best.keras`, or else `last.keras`.

    Raises:
        ValueError: if there is none.
    """
    path = Path(path)
    if path.is_dir():
        for checkpoint in CHECKPOINTS:
            if (path / checkpoint).is_file():
                return path / checkpoint
        raise ValueError(f"{path}: expected a run's folder, but it holds no {CHECKPOINTS[0]}.")
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; expected a run or a .keras file.")
    if path.suffix != ".keras":
        raise ValueError(f"{path}: expected the folder of a run or a .keras file.")
    return path


def load_checkpoint(path: Path) -> Any:
    """Loads a matting network for export.

    Args:
        path: a `.keras` file.

    Returns:
        The Keras model, computing in float32 whatever precision it was trained in.

    Raises:
        ValueError: if the file cannot be loaded, or holds another kind of model.
    """
    import keras

    import kmatting.layers  # noqa: F401  registers the layers that a model file names

    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises nearly every type on a wrong file
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: cannot be loaded as a Keras model ({reason}).") from error
    shapes = [tuple(tensor.shape) for tensor in (*model.inputs, *model.outputs)]
    if shapes != [(None, None, None, 3), (None, None, None, 1)]:
        raise ValueError(
            f"{path}: is no kmatting model: expected an image (None, None, None, 3) in and "
            f"an alpha (None, None, None, 1) out, received {' and '.join(map(str, shapes))}."
        )
    return _in_float32(model)


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
