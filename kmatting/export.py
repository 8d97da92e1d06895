"""Exports a trained network: SavedModel for TF Serving, TFLite for phones, ONNX, small `.keras`."""

import argparse
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kmatting.callable_module import CallableModule
from kmatting.cli import command, make_parser
from kmatting.errors import UsageError
from kmatting.exporting.checkpoint import default_name, find_checkpoint
from kmatting.exporting.formats import FORMATS, Format, options_with_formats
from kmatting.exporting.job import Job, check_photos
from kmatting.files import check_folder, check_writable
from kmatting.networks.shipped import find_model

__all__ = ["export", "main"]

EXAMPLES = """\
variants of --format tflite:
  float32   the trained numbers
  float16   weights in 16 bits; half the size
  dynamic   weights in 8 bits; a quarter of the size
  int8      weights and activations in 8 bits but for some layers; the fastest on processors
  integer   all in 8 bits, input and output too, for chips without floats; less exact
int8 and integer take the ranges of activations from the photos of --calibration. int8 needs the
extra `quantize`.

Each export is compared with the Keras model on photos. If the alphas differ too much, the command
says so, writes nothing and returns 2.

examples:
  for TF Serving, as the next version in saved_models/mine:
    kmatting export --model runs/mine --format saved_model
  for a phone, one file that runs at two sizes:
    kmatting export --model runs/mine --format tflite --size 256 512 --variant dynamic
  to share or to fine-tune, at half the size of the run's own file:
    kmatting export --model runs/mine --format keras
  for ONNX Runtime, at any size:
    kmatting export --model runs/mine --format onnx --output mine.onnx
  the fastest file, calibrated and checked on photos like those that it will see:
    kmatting export --model runs/mine --format tflite --variant int8 --calibration photos \\
      --photos photos
  for a chip without floats, 288 pixels high and 512 wide:
    kmatting export --model runs/mine --format tflite --size 288x512 --variant integer \\
      --calibration photos
"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    export(**vars(_parse(argv)), verbose=True)
    return 0


def export(
    format: str,
    model: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] = "saved_models",
    name: str | None = None,
    photos: str | os.PathLike[str] | None = None,
    verbose: bool = False,
    **options: Any,
) -> list[Path]:
    """Exports a network, as `kmatting export` does, whose options the arguments are.

    Args:
        format: "saved_model", "tflite", "onnx" or "keras".
        model: folder of a run, a `.keras` file, or the name of a network that kmatting ships,
            `general` (the default), `detail` or `open`.
        output: folder to write to, or a file with the suffix of the format.
        name: name of the model; by default that of the run or the file.
        photos: folder of photos to check the export on; by default synthetic ones.
        verbose: whether to print steps and results.
        **options: those of the format: `version`, `max_size` (SavedModel and ONNX), `rembg` (ONNX),
            `size`, `variant`, `calibration` and `limit` (TFLite). `kmatting export --help` explains
            them. `size` and `variant` are one or a list: 256, (288, 512) or [256, 512].

    Returns:
        The files that were written, or the folder of the SavedModel.

    Raises:
        UsageError: if an argument is wrong, or the export differs too much from the Keras model.
            Nothing is written then.
        ModelError: if the network cannot be loaded.
        ModuleNotFoundError: if the extra of a format is not installed.
        OSError: if the files cannot be written.

    Examples:
        >>> export("tflite", "runs/mine", size=256, variant="dynamic")
        [PosixPath('saved_models/mine-256x256-dynamic.tflite')]
    """
    kind = FORMATS.get(format)
    if kind is None:
        raise UsageError(f"format: expected one of {', '.join(FORMATS)}, received {format!r}.")
    given = {option: value for option, value in options.items() if value is not None}
    _check_options(format, given)
    output = Path(output)
    _check_output(kind, output)
    if name is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise UsageError(f"--name: expected letters, digits, `_`, `-` and `.`, received {name!r}.")
    for package in kind.packages:
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(package, name=package)
    photos = None if photos is None else Path(photos)
    check_photos("--photos", photos)
    source = find_checkpoint(find_model(model, ".keras"))
    job = Job(source, name or default_name(source), output, photos, verbose)
    module = importlib.import_module(kind.module)
    written: list[Path] = module.export(job, **given)
    return written


def _check_options(format: str, given: dict[str, Any]) -> None:
    """Refuses options that the format does not take."""
    takers = {option: names for names, group in options_with_formats().items() for option in group}
    by_name = {option.name: option for option in takers}
    for name in given:
        if name not in by_name:
            raise TypeError(f"export() got an unexpected keyword argument {name!r}")
        option = by_name[name]
        if format not in takers[option]:
            raise UsageError(
                f"{option.flag} goes with --format {' or '.join(takers[option])}, received "
                f"--format {format}."
            )


def _check_output(kind: Format, output: Path) -> None:
    """Refuses a place that cannot be written to, and the name of a file of another format."""
    if kind.suffix is not None and output.suffix == kind.suffix and not output.is_dir():
        check_writable(output.absolute().parent)
    else:
        check_folder(output, "--output")
        check_writable(output)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(
        "export",
        "Export a trained network: SavedModel for TF Serving, TFLite, ONNX or a small .keras.",
        EXAMPLES,
    )
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="folder of a run, a .keras file, or a network that kmatting ships: general (the "
        "default), detail or open",
    )
    parser.add_argument("--format", required=True, choices=FORMATS)
    parser.add_argument(
        "--output", type=Path, default=Path("saved_models"), metavar="PATH",
        help=f"folder for {', '.join(kind.writes for kind in FORMATS.values())}, or the file to "
        "write (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--name", help="name of the model (default: that of the run or the file)")
    parser.add_argument(
        "--photos", type=Path, metavar="DIR",
        help="folder of photos to check the export on (default: synthetic ones)",
    )  # fmt: skip
    for formats, options in options_with_formats().items():
        group = parser.add_argument_group(f"--format {' or '.join(formats)}")
        for option in options:
            group.add_argument(option.flag, **option.settings)
    return parser.parse_args(argv)


sys.modules[__name__].__class__ = CallableModule

if __name__ == "__main__":
    sys.exit(main())
