"""Loads a model of any format; finds the models that kmatting ships."""

from pathlib import Path

from kmatting.extras import EXTRA_OF, install_command
from kmatting.inference.keras_model import load_keras
from kmatting.inference.network import ModelError, Network
from kmatting.inference.saved_model import load_saved_model, version_folder
from kmatting.inference.tflite import load_tflite

_SHIPPED_NAME = "portrait"  # in saved_models/, of a clone or of the installed package


def shipped_model(suffix: str = ".tflite") -> Path:
    """Finds a model that kmatting ships; `saved_models/README.md` is its model card.

    Args:
        suffix: ".tflite", which is small and fast, or ".keras", which can be trained further.

    Returns:
        Path of the file.

    Raises:
        ValueError: if this copy of kmatting came without it.
    """
    package = Path(__file__).resolve().parent.parent
    name = _SHIPPED_NAME + suffix
    for home in (package, package.parent):  # of the installed package, of a clone
        path = home / "saved_models" / name
        if path.is_file():
            return path
    raise ValueError(
        f"This copy of kmatting came without the model {name}. Give the path of a model."
    )


def load_network(path: Path, threads: int | None = None) -> Network:
    """Loads a model of any format.

    Args:
        path: a `.keras` file, a `.tflite` file, or a SavedModel folder (or a folder of numbered
            versions, of which the highest is loaded).
        threads: number of processor threads; all by default (at most 8 for a `.tflite` file).

    Returns:
        The `Network`.

    Raises:
        ModelError: if the model is missing, cannot be loaded or is not a matting model, or if
            TensorFlow's threads can no longer be set.
    """
    try:
        if path.is_dir():
            kind = "SavedModel"
            return load_saved_model(version_folder(path), threads)
        if path.suffix not in (".keras", ".tflite"):
            raise ModelError(
                "expected a .keras file, a SavedModel folder or a .tflite file"
                + ("." if path.exists() else ", and there is no such file.")
            )
        if not path.exists():
            raise ModelError("no such file.")
        if path.suffix == ".keras":
            kind = "Keras model"
            return load_keras(path, threads)
        kind = "TFLite model"
        return load_tflite(path.read_bytes(), threads)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # loaders raise nearly every type on broken files
        package = (getattr(error, "name", None) or "").partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and package in EXTRA_OF:
            hint = install_command(EXTRA_OF[package])
            raise ModelError(f"{path}: a {kind} needs {package}: {hint}") from error
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"{path}: cannot be loaded as a {kind} ({reason}).") from error
