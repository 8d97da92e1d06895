"""Finds the models that kmatting ships."""

from pathlib import Path

from kmatting.errors import ModelError

_SHIPPED_NAME = "general"  # in saved_models/, of a clone or of the installed package

SHIPPED_LICENCE = "not for commercial use, see saved_models/README.md of kmatting"


def shipped_model(suffix: str = ".tflite") -> Path:
    """Finds a model that kmatting ships; `saved_models/README.md` is its model card.

    Args:
        suffix: ".tflite", which is small and fast, or ".keras", which can be trained further.

    Returns:
        Path of the file.

    Raises:
        ValueError: if this copy of kmatting came without it.
    """
    package = Path(__file__).resolve().parents[1]
    name = _SHIPPED_NAME + suffix
    for home in (package, package.parent):  # of the installed package, of a clone
        path = home / "saved_models" / name
        if path.is_file():
            return path
    raise ModelError(
        f"This copy of kmatting came without the model {name}. Give the path of a model."
    )
