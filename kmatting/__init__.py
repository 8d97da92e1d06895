"""kmatting: trimap-free image matting for TensorFlow and Keras.

A photo goes in, an alpha matte comes out. Importing the package is cheap: TensorFlow is imported
only by the parts that need it (`kmatting.models`, `kmatting.train`, ...).

Example:
    >>> from kmatting import Matter
    >>> matte = Matter("model.tflite")("photo.jpg")
    >>> matte.cutout().save("cutout.png")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kmatting.inference.matter import Matter

__all__ = ["Matter", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Matter":  # imported on first use: it brings numpy and Pillow
        from kmatting.inference.matter import Matter

        return Matter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
