"""kmatting: trimap-free image matting. A photo goes in, an alpha matte comes out.

Importing the package is cheap: NumPy and Pillow are imported on first use, and TensorFlow only by
the parts that need it (training, export, models that are not `.tflite` files).

Examples:
    >>> import kmatting
    >>> kmatting.remove("photo.jpg").save("cutout.png")
    >>> matte = kmatting.Matter()("photo.jpg")
    >>> matte.composite("white").save("white.jpg")
    >>> run = kmatting.train("configs/quickstart.yaml")
    >>> kmatting.export("tflite", run, size=256)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kmatting.errors import Error
    from kmatting.export import export
    from kmatting.inference.matter import Matter
    from kmatting.inference.remove import remove
    from kmatting.networks.keras_model import load_model
    from kmatting.pictures.matte import Matte
    from kmatting.pictures.wanted import Wanted
    from kmatting.scoring.run import evaluate
    from kmatting.train import train

__all__ = [
    "Error",
    "Matte",
    "Matter",
    "Wanted",
    "__version__",
    "evaluate",
    "export",
    "load_model",
    "remove",
    "train",
]

__version__ = "0.2.0"

_HOMES = {
    "Error": "kmatting.errors",
    "Matte": "kmatting.pictures.matte",
    "Matter": "kmatting.inference.matter",
    "Wanted": "kmatting.pictures.wanted",
    "load_model": "kmatting.networks.keras_model",
    "remove": "kmatting.inference.remove",
}
_CALLABLE = ("evaluate", "export", "train")  # modules, see kmatting.callable_module


def __getattr__(name: str) -> Any:
    if name in _CALLABLE:
        return importlib.import_module(f"kmatting.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
