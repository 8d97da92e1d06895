"""Exports a trained network: SavedModel for TF Serving, TFLite for phones, ONNX, small `.keras`."""

import argparse
import contextlib
import importlib.util
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kmatting.cli import at_least, command, make_parser, parse_size
from kmatting.errors import ModelError, UsageError
from kmatting.exporting.checkpoint import default_name, find_checkpoint, load_checkpoint
from kmatting.exporting.frames import join
from kmatting.exporting.keras_file import export_keras
from kmatting.exporting.parity import milliseconds
from kmatting.exporting.tflite import LIMITS, compare, convert, describe, write
from kmatting.extras import install_command
from kmatting.images import read_image, scan_folder
from kmatting.networks.metadata import read_size
from kmatting.networks.runtime import limit_tensorflow
from kmatting.networks.shipped import SHIPPED_LICENCE, shipped_model
from kmatting.quiet import quiet
from kmatting.sizes import DEFAULT_SIZE, STRIDE, as_frame, size_text

THREADS = 2  # for the times that are reported
PHOTOS = 4  # on which an export is checked
CALIBRATED = ("int8", "integer")  # variants with scales that are taken from photos
CALIBRATION_PHOTOS = 40  # of them, spread over the folder

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
    kmatting export --model runs/mine --format onnx
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
    args = _parse(argv)
    _check_arguments(args)
    path = find_checkpoint(args.model or shipped_model(".keras"))
    name = args.name or default_name(path)
    if args.format == "saved_model":
        _export_saved_model(args, path, name)
    elif args.format == "keras":
        _export_keras(args, path, name)
    elif args.format == "onnx":
        _export_onnx(args, path, name)
    else:
        _export_tflite(args, path, name)
    return 0


def _export_saved_model(args: argparse.Namespace, path: Path, name: str) -> None:
    size, max_size = _sides(args, path)
    side = max(STRIDE, min(256, max_size) // STRIDE * STRIDE)
    photos = _photos(args.photos, (side, side), PHOTOS)
    with quiet():
        _limit_threads()
        from kmatting.exporting.saved_model import export_saved_model

        model = load_checkpoint(path)
        warmup = importlib.util.find_spec("tensorflow_serving") is not None
        folder = export_saved_model(
            model, args.output, name, args.version, max_size, photos, warmup, size=size
        )
    if not warmup:
        print(f"note: without warm-up requests, which need {install_command('serving')}")
    size_on_disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {size_on_disk / 1e6:.1f} MB, equal to {path} on {len(photos)} photos.")


def _export_tflite(args: argparse.Namespace, path: Path, name: str) -> None:
    sizes = args.size or [read_size(path) or (DEFAULT_SIZE, DEFAULT_SIZE)]
    with quiet():
        _limit_threads()
        model = load_checkpoint(path)
    print(f"{'':40} {'MB':>6} {'mean':>8} {'max':>8} {'ms':>7}   alpha compared with Keras")
    photos = {size: _photos(args.photos, size, PHOTOS) for size in sizes}
    expected = {}
    for size in photos:
        with quiet():
            expected[size], keras_time = _run_keras(model, photos[size])
        print(f"{f'Keras at {size_text(size)}':40} {'':24} {keras_time:7.0f}", flush=True)
    for variant in args.variant:
        models = {}
        for size in photos:
            calibration = []
            if variant in CALIBRATED:
                calibration = _photos(args.calibration, size, CALIBRATION_PHOTOS)
            with quiet():
                models[size] = convert(model, size, variant, calibration)
        content = join(models)
        names = "-".join(size_text(size) for size in photos)
        target = Path(args.output) / f"{name}-{names}-{variant}.tflite"
        limit = LIMITS[variant] if args.limit is None else args.limit
        _check_tflite(target, content, photos, expected, limit)
        write(target, content, describe(name, args.version or 1, list(photos), variant))


def _check_tflite(
    target: Path,
    content: bytes,
    photos: dict[tuple[int, int], list[np.ndarray]],
    expected: dict[tuple[int, int], list[np.ndarray]],
    limit: float,
) -> None:
    """Prints how a file compares with the Keras model at each size; refuses what differs much."""
    label, megabytes = target.name, f"{len(content) / 1e6:.1f}"
    if len(photos) > 1:
        print(f"{label:40} {megabytes:>6}")
    for size in photos:
        if len(photos) > 1:
            label, megabytes = f"  at {size_text(size)}", ""
        with quiet():
            parity = compare(content, photos[size], expected[size], THREADS, size)
        print(
            f"{label:40} {megabytes:>6} {parity.mean:8.5f} {parity.largest:8.5f} "
            f"{parity.milliseconds:7.0f}",
            flush=True,
        )
        if not parity.mean <= limit:
            raise UsageError(
                f"{target}: not written: its alphas at {size_text(size)} differ from the Keras "
                f"model's by {parity.mean:.5f} in the mean, more than the limit of {limit:g}. Try "
                "another variant, photos like yours for --calibration and --photos, or --limit."
            )


def _export_keras(args: argparse.Namespace, path: Path, name: str) -> None:
    target = args.output / f"{name}.keras"
    size = read_size(path)
    photos = _photos(args.photos, size or (DEFAULT_SIZE, DEFAULT_SIZE), PHOTOS)
    with quiet():
        _limit_threads()
        difference = export_keras(load_checkpoint(path), target, photos, size)
    megabytes = target.stat().st_size / 1e6
    print(f"{target}: {megabytes:.1f} MB, its alphas differ from {path} by {difference:.5f}.")


def _export_onnx(args: argparse.Namespace, path: Path, name: str) -> None:
    target = args.output / f"{name}{'-rembg' if args.rembg else ''}.onnx"
    size, max_size = _sides(args, path)
    side = max(STRIDE, min(256, max_size) // STRIDE * STRIDE)
    photos = _photos(args.photos, (side, side), PHOTOS)
    photos.append(photos[0][:STRIDE])  # of another shape
    licence = None if args.model else SHIPPED_LICENCE
    with quiet():
        _limit_threads()
        from kmatting.exporting.onnx import describe, export_onnx

        metadata = describe(name, args.version or 1, size, max_size, licence, args.rembg)
        parity = export_onnx(load_checkpoint(path), target, photos, metadata, args.rembg)
    print(
        f"{target}: {target.stat().st_size / 1e6:.1f} MB, its alphas differ from {path} by "
        f"{parity.mean:.1e} in the mean, {parity.largest:.1e} at most; "
        f"{parity.milliseconds:.0f} ms at {side}x{side}."
    )


def _sides(args: argparse.Namespace, path: Path) -> tuple[int | None, int]:
    """Returns the side of the square that a network was trained at, if known, and `max_size`."""
    trained_at = read_size(path)
    size = round(math.prod(trained_at) ** 0.5) if trained_at else None
    return size, args.max_size or size or DEFAULT_SIZE


def _limit_threads() -> None:
    with contextlib.suppress(ModelError):  # TensorFlow already runs, with the threads it has
        limit_tensorflow(THREADS)


def _run_keras(model: Any, photos: Sequence[np.ndarray]) -> tuple[list[np.ndarray], float]:
    """Returns the alphas to compare exports with, and the milliseconds of a photo."""
    import tensorflow as tf

    run = tf.function(lambda image: model(image, training=False))
    images = [photo[None] / np.float32(255) for photo in photos]
    return [run(image).numpy() for image in images], milliseconds(lambda: run(images[0]).numpy())


def _photos(folder: Path | None, size: tuple[int, int], count: int) -> list[np.ndarray]:
    """Reads photos spread over a folder, resized to (height, width); without it, makes some."""
    if folder is None:
        from kmatting.data.synthetic import sample

        return [sample(0, index, size)[0] for index in range(count)]
    paths = scan_folder(folder).photos
    count = min(count, len(paths))
    height, width = size
    photos = []
    for index in range(count):
        photo = Image.fromarray(read_image(paths[index * len(paths) // count]))
        photos.append(np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR)))
    return photos


def _check_arguments(args: argparse.Namespace) -> None:
    """Finds what is wrong with the arguments before TensorFlow is loaded."""
    if args.name is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", args.name):
        raise UsageError(
            f"--name: expected letters, digits, `_`, `-` and `.`, received {args.name!r}."
        )
    if args.format != "tflite" and (args.size or args.variant or args.calibration):
        raise UsageError(
            f"--size, --variant and --calibration go with --format tflite. A {args.format} export "
            "takes any size."
        )
    if args.format != "tflite" and args.limit is not None:
        raise UsageError("--limit goes with --format tflite; the limits of the others are fixed.")
    if args.format not in ("saved_model", "onnx") and args.max_size:
        raise UsageError("--max-size goes with --format saved_model or onnx.")
    if args.format != "onnx" and args.rembg:
        raise UsageError("--rembg goes with --format onnx.")
    args.variant = args.variant or ["float32"]
    calibrated = [variant for variant in args.variant if variant in CALIBRATED]
    if args.calibration is None and calibrated:
        print(
            f"note: {' and '.join(calibrated)}: calibrated on synthetic photos. --calibration DIR, "
            "a folder of photos like yours, may be more exact.",
            file=sys.stderr,
        )
    if args.calibration is not None and not calibrated:
        raise UsageError(
            f"--calibration goes with --variant int8 or integer, received {' '.join(args.variant)}."
        )
    if "int8" in args.variant and importlib.util.find_spec("ai_edge_quantizer") is None:
        raise ModuleNotFoundError("ai_edge_quantizer", name="ai_edge_quantizer")
    for option in ("photos", "calibration"):
        folder = getattr(args, option)
        if folder is None:
            continue
        listing = scan_folder(folder)
        if not listing.photos:
            reason = f" ({listing.note()})" if listing.note() else ""
            raise UsageError(f"--{option} {folder}: no photos in this folder{reason}.")
        if listing.note():
            print(f"note: --{option} {folder}: {listing.note()}", file=sys.stderr)
    existing = next(
        folder for folder in (args.output, *args.output.absolute().parents) if folder.exists()
    )
    if not existing.is_dir():
        raise UsageError(f"{args.output}: expected a folder to write to, but {existing} is a file.")
    if not os.access(existing, os.W_OK):
        raise UsageError(f"{args.output}: no permission to write to {existing}.")


def _parse_size(text: str) -> tuple[int, int]:
    """Reads `512` or `288x512`, height first."""
    frame = as_frame(parse_size(text))
    if any(side % STRIDE for side in frame):
        raise argparse.ArgumentTypeError(f"expected multiples of {STRIDE}, received {text!r}")
    return frame


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(
        "export",
        "Export a trained network: SavedModel for TF Serving, TFLite, ONNX or a small .keras.",
        EXAMPLES,
    )
    parser.add_argument(
        "--model",
        metavar="PATH",
        help="folder of a run, or a .keras file (default: the shipped network)",
    )
    parser.add_argument(
        "--format", required=True, choices=("saved_model", "tflite", "onnx", "keras")
    )
    parser.add_argument(
        "--output", type=Path, default=Path("saved_models"), metavar="DIR",
        help="folder for NAME/VERSION/, NAME-SIZES-VARIANT.tflite, NAME.onnx, NAME.keras (default: "
        "%(default)s)",
    )  # fmt: skip
    parser.add_argument("--name", help="name of the model (default: that of the run or the file)")
    parser.add_argument(
        "--version", type=at_least(1), metavar="N",
        help="version of the model (default: the next free one; 1 for tflite and onnx)",
    )  # fmt: skip
    parser.add_argument(
        "--photos", type=Path, metavar="DIR",
        help="folder of photos to check the export on (default: synthetic ones)",
    )  # fmt: skip
    any_size = parser.add_argument_group("--format saved_model, --format onnx")
    any_size.add_argument(
        "--max-size", type=at_least(STRIDE), metavar="PIXELS",
        help="photos larger than about PIXELS x PIXELS are reduced to it for the network, and "
        "their alpha is enlarged (default: the size that the model was trained at). A SavedModel "
        "does that itself, `kmatting predict` does it for an .onnx file",
    )  # fmt: skip
    onnx = parser.add_argument_group("--format onnx")
    onnx.add_argument(
        "--rembg", action="store_true",
        help="write NAME-rembg.onnx, which takes photos as rembg feeds them to u2net_custom",
    )  # fmt: skip
    tflite = parser.add_argument_group("--format tflite")
    tflite.add_argument(
        "--size", type=_parse_size, nargs="+", action="extend", metavar="SIZE",
        help="side, or height x width, multiples of 16. A file of several runs at each of them and "
        "holds the weights once (default: the size that the model was trained at)",
    )  # fmt: skip
    tflite.add_argument(
        "--variant", choices=LIMITS, nargs="+",
        help="how numbers are stored, see below; one file for each (default: float32)",
    )  # fmt: skip
    tflite.add_argument(
        "--calibration", type=Path, metavar="DIR",
        help="folder of photos from which int8 and integer take the ranges of activations "
        "(default: synthetic ones)",
    )  # fmt: skip
    tflite.add_argument(
        "--limit", type=float, metavar="MEAN",
        help="largest mean difference of the alphas that is accepted (default: "
        + ", ".join(f"{limit:g} for {variant}" for variant, limit in LIMITS.items()) + ")",
    )  # fmt: skip
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
