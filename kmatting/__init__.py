"""kmatting: trimap-free image matting. A photo goes in, an alpha matte comes out.

Importing the package is cheap: NumPy and Pillow are imported on first use, and TensorFlow only by
the parts that need it (training, export, models that are not `.tflite` files).

Examples:
    >>> import kmatting
    >>> kmatting.remove("photo.jpg").save("cutout.png")
    >>> matte = kmatting.Matter()("photo.jpg")
    >>> matte.composite("white").save("white.jpg")
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kmatting.inference.matte import Matte
    from kmatting.inference.matter import Matter
    from kmatting.inference.remove import remove
    from kmatting.networks.keras_model import load_model

__all__ = ["Matte", "Matter", "__version__", "load_model", "remove"]

__version__ = "0.1.0"

_HOMES = {
    "Matte": "kmatting.inference.matte",
    "Matter": "kmatting.inference.matter",
    "load_model": "kmatting.networks.keras_model",
    "remove": "kmatting.inference.remove",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
