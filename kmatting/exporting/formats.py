"""The formats of `kmatting export`: one record and one module for each.

The module has a function `export(job, **options)`. It gets the `Job` and the options of its record,
by their names, and returns the paths that it wrote. It is imported when it is needed. It imports
TensorFlow only after it has checked its options, since that takes seconds.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmatting.cli import at_least, parse_size
from kmatting.sizes import STRIDE, height_width

# The variants, with the largest mean difference from the Keras model's alphas that is accepted.
VARIANTS = {"float32": 1e-5, "float16": 0.002, "dynamic": 0.01, "int8": 0.01, "integer": 0.02}


@dataclass(frozen=True, eq=False)
class Option:
    """An option of some formats. Left out, it is None.

    Attributes:
        name: as an argument of `export`; the flag is `--name`, with hyphens.
        settings: what `add_argument` takes.
    """

    name: str
    settings: Mapping[str, Any]

    @property
    def flag(self) -> str:
        """The option of the command."""
        return "--" + self.name.replace("_", "-")


@dataclass(frozen=True)
class Format:
    """A format of `kmatting export`.

    Attributes:
        writes: what it writes into the folder of exports.
        suffix: of its files, or None if it writes a folder.
        module: the module that exports it.
        options: those that it takes, besides what all take.
        packages: what has to be installed, beyond the extra `train`.
    """

    writes: str
    suffix: str | None
    module: str
    options: tuple[Option, ...] = ()
    packages: tuple[str, ...] = ()


def _parse_sides(text: str) -> tuple[int, int]:
    """Reads `512` or `288x512`, height first."""
    size = height_width(parse_size(text))
    if any(side % STRIDE for side in size):
        raise argparse.ArgumentTypeError(f"expected multiples of {STRIDE}, received {text!r}")
    return size


VERSION = Option(
    "version",
    {
        "type": at_least(1), "metavar": "N",
        "help": "version of the model (default: 1; of a SavedModel the next free one)",
    },
)  # fmt: skip
MAX_SIZE = Option(
    "max_size",
    {
        "type": at_least(STRIDE), "metavar": "PIXELS",
        "help": "photos larger than about PIXELS x PIXELS are reduced to it for the network, and "
        "their alpha is enlarged (default: the size that the model was trained at). A SavedModel "
        "does that itself, `kmatting predict` does it for an .onnx file",
    },
)  # fmt: skip
REMBG = Option(
    "rembg",
    {
        "action": "store_true", "default": None,
        "help": "write NAME-rembg.onnx, which takes photos as rembg feeds them to u2net_custom",
    },
)  # fmt: skip
SIZE = Option(
    "size",
    {
        "type": _parse_sides, "nargs": "+", "action": "extend", "metavar": "SIZE",
        "help": "side, or height x width, multiples of 16. A file of several runs at each of them "
        "and holds the weights once (default: the size that the model was trained at)",
    },
)  # fmt: skip
VARIANT = Option(
    "variant",
    {
        "choices": VARIANTS, "nargs": "+",
        "help": "how numbers are stored, see below; one file for each (default: float32)",
    },
)  # fmt: skip
CALIBRATION = Option(
    "calibration",
    {
        "type": Path, "metavar": "DIR",
        "help": "folder of photos from which int8 and integer take the ranges of activations "
        "(default: synthetic ones)",
    },
)  # fmt: skip
LIMIT = Option(
    "limit",
    {
        "type": float, "metavar": "MEAN",
        "help": "largest mean difference of the alphas that is accepted (default: "
        + ", ".join(f"{limit:g} for {variant}" for variant, limit in VARIANTS.items()) + ")",
    },
)  # fmt: skip

FORMATS = {
    "saved_model": Format(
        "NAME/VERSION/", None, "kmatting.exporting.saved_model", (VERSION, MAX_SIZE)
    ),
    "tflite": Format(
        "NAME-SIZES-VARIANT.tflite",
        ".tflite",
        "kmatting.exporting.tflite",
        (VERSION, SIZE, VARIANT, CALIBRATION, LIMIT),
    ),
    "onnx": Format(
        "NAME.onnx",
        ".onnx",
        "kmatting.exporting.onnx",
        (VERSION, MAX_SIZE, REMBG),
        ("onnx", "onnxruntime", "tf2onnx"),
    ),
    "keras": Format("NAME.keras", ".keras", "kmatting.exporting.keras_file"),
}


def options_with_formats() -> dict[tuple[str, ...], list[Option]]:
    """Groups all options by the formats that take them."""
    groups: dict[tuple[str, ...], list[Option]] = {}
    for option in dict.fromkeys(option for each in FORMATS.values() for option in each.options):
        takers = tuple(name for name, each in FORMATS.items() if option in each.options)
        groups.setdefault(takers, []).append(option)
    return groups
