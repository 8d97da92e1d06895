"""Finds the models that kmatting ships."""

import os
from pathlib import Path

from kmatting.errors import ModelError

SHIPPED = ("general", "detail", "open")  # in saved_models/, of a clone or the installed package


def shipped_model(suffix: str = ".tflite", name: str = SHIPPED[0]) -> Path:
    """Finds a model that kmatting ships; `saved_models/README.md` is its model card.

    Args:
        suffix: ".tflite", which is small and fast, or ".keras", which can be trained further.
        name: one of `SHIPPED`.

    Returns:
        Path of the file.

    Raises:
        ValueError: if this copy of kmatting came without it.
    """
    package = Path(__file__).resolve().parents[1]
    for home in (package, package.parent):  # of the installed package, of a clone
        path = home / "saved_models" / (name + suffix)
        if path.is_file():
            return path
    raise ModelError(
        f"This copy of kmatting came without the model {name}{suffix}. Give the path of a model."
    )


def find_model(model: str | os.PathLike[str] | None, suffix: str = ".tflite") -> Path:
    """Finds a model by its path or by its name.

    Args:
        model: path of a file or a folder, or the name of a model that kmatting ships; None means
            the first of them. What lies at that path counts before the name.
        suffix: of a shipped model, as for `shipped_model`.

    Returns:
        The path of the model; whether anything is there is not checked.

    Raises:
        ValueError: if this copy of kmatting came without that shipped model.
    """
    if model is None:
        return shipped_model(suffix)
    if is_shipped(model):
        return shipped_model(suffix, os.fspath(model))
    return Path(model)


def find_weights(weights: Path) -> Path:
    """Finds the file of `model.weights` of a config, where `shipped` names the first model, too."""
    return find_model(None if str(weights) == "shipped" else weights, ".keras")


def is_shipped(model: str | os.PathLike[str]) -> bool:
    """Tells whether this is the name of a shipped model, and no file or folder here."""
    return os.fspath(model) in SHIPPED and not Path(model).exists()
