"""Exports a trained network: a SavedModel for TF Serving, or TFLite files for phones."""

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

from kmatting.exporting.checkpoint import CHECKPOINTS, find_checkpoint, load_checkpoint
from kmatting.images import list_images, read_image
from kmatting.inference.metadata import read_size
from kmatting.inference.network import ModelError
from kmatting.inference.runtime import limit_tensorflow
from kmatting.quiet import quiet
from kmatting.sizes import DEFAULT_SIZE, STRIDE

VARIANTS = ("float32", "float16", "dynamic", "int8")
THREADS = 2  # that latencies are measured at
PHOTOS = 4  # that an export is checked on
CALIBRATION_PHOTOS = 40  # that the scales of int8 are taken from, spread over the folder

EXAMPLES = """\
variants of --format tflite:
  float32  as trained        float16  half the size      dynamic  weights in 8 bits, a quarter of
  int8     weights and activations in 8 bits, for chips that know integers only; needs --calibration

Each export is held against the Keras model on photos before it is written. If the alphas differ
too much, the command says so, writes nothing and returns 2.

examples:
  for TF Serving, as the next version in saved_models/mine:
    python -m kmatting.export --model runs/mine --format saved_model
  for a phone, at two sizes:
    python -m kmatting.export --model runs/mine --format tflite --size 256 512 --variant dynamic
  a landscape frame of 288 x 512 pixels, in integers only:
    python -m kmatting.export --model runs/mine --format tflite --size 288x512 --variant int8 \\
      --calibration photos
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parse(argv)
    try:
        _check_arguments(args)
        path = find_checkpoint(args.model)
        trained_at = read_size(path) or (DEFAULT_SIZE, DEFAULT_SIZE)
        args.size = args.size or [trained_at]
        args.max_size = args.max_size or round(math.prod(trained_at) ** 0.5)
        name = args.name or _default_name(path)
        if args.format == "saved_model":
            _export_saved_model(args, path, name)
        else:
            _export_tflite(args, path, name)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing half-written was left.", file=sys.stderr)
        return 130
    return 0


def _export_saved_model(args: argparse.Namespace, path: Path, name: str) -> None:
    side = max(STRIDE, min(256, args.max_size) // STRIDE * STRIDE)
    photos = _photos(args.photos, (side, side), PHOTOS)
    with quiet():
        with contextlib.suppress(ModelError):  # TensorFlow runs already, with the threads it has
            limit_tensorflow(THREADS)
        from kmatting.exporting.saved_model import export_saved_model

        model = load_checkpoint(path)
        warmup = importlib.util.find_spec("tensorflow_serving") is not None
        trained_at = read_size(path)
        folder = export_saved_model(
            model,
            args.output,
            name,
            args.version,
            args.max_size,
            photos,
            warmup,
            size=trained_at and round(math.prod(trained_at) ** 0.5),
        )
    if not warmup:
        print("note: without warm-up requests; they need: pip install 'kmatting[serving]'")
    size = sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB, equal to {path} on {len(photos)} photos.")


def _export_tflite(args: argparse.Namespace, path: Path, name: str) -> None:
    version = args.version or 1
    with quiet():
        with contextlib.suppress(ModelError):  # TensorFlow runs already, with the threads it has
            limit_tensorflow(THREADS)
        from kmatting.exporting import tflite

        model = load_checkpoint(path)
    print(f"{'':40} {'MB':>6} {'mean':>8} {'max':>8} {'ms':>7}   alpha against Keras")
    for size in args.size:
        photos = _photos(args.photos, size, PHOTOS)
        with quiet():
            expected, keras_time = _run_keras(model, photos)
        print(f"{f'Keras at {size[0]}x{size[1]}':40} {'':24} {keras_time:7.0f}", flush=True)
        for variant in args.variant:
            calibration = []
            if variant == "int8":
                calibration = _photos(args.calibration, size, CALIBRATION_PHOTOS)
            with quiet():
                content = tflite.convert(model, size, variant, calibration)
                parity = tflite.compare(content, photos, expected)
            target = Path(args.output) / f"{name}-{size[0]}x{size[1]}-{variant}.tflite"
            print(
                f"{target.name:40} {len(content) / 1e6:6.1f} {parity.mean:8.5f} "
                f"{parity.largest:8.5f} {parity.milliseconds:7.0f}",
                flush=True,
            )
            limit = tflite.LIMITS[variant] if args.limit is None else args.limit
            if not parity.mean <= limit:
                raise ValueError(
                    f"{target}: not written: its alphas differ from the Keras model's by "
                    f"{parity.mean:.5f} in the mean, more than the limit of {limit:g}. Try another "
                    "variant, photos like yours for --calibration and --photos, or --limit."
                )
            tflite.write(target, content, tflite.describe(name, version, size, variant))


def _run_keras(model: Any, photos: Sequence[np.ndarray]) -> tuple[list[np.ndarray], float]:
    """Takes the alphas that exports are held against, and the milliseconds of one."""
    import tensorflow as tf

    from kmatting.exporting.tflite import milliseconds

    run = tf.function(lambda image: model(image, training=False))
    images = [photo[None] / np.float32(255) for photo in photos]
    return [run(image).numpy() for image in images], milliseconds(lambda: run(images[0]).numpy())


def _photos(folder: Path | None, size: tuple[int, int], count: int) -> list[np.ndarray]:
    """Reads photos spread over a folder, stretched to a size; makes synthetic ones without it."""
    if folder is None:
        from kmatting.data.synthetic import sample

        return [sample(0, index, size)[0] for index in range(count)]
    paths = list_images(folder)
    count = min(count, len(paths))
    spread = [paths[index * len(paths) // count] for index in range(count)]
    shape = (size[1], size[0])
    return [
        np.asarray(Image.fromarray(read_image(path)).resize(shape, Image.Resampling.BILINEAR))
        for path in spread
    ]


def _check_arguments(args: argparse.Namespace) -> None:
    """Finds what can be found wrong before TensorFlow is loaded."""
    if args.name is not None:
        _check_name(args.name)
    if args.version is not None and args.version < 1:
        raise ValueError(f"--version: expected at least 1, received {args.version}.")
    if args.max_size is not None and args.max_size < STRIDE:
        raise ValueError(f"--max-size: expected at least {STRIDE}, received {args.max_size}.")
    if args.format == "saved_model" and (args.size or args.variant or args.calibration):
        raise ValueError(
            "--size, --variant and --calibration go with --format tflite; a SavedModel takes any "
            "size (see --max-size)."
        )
    args.variant = args.variant or ["float32"]
    if "int8" in args.variant and args.calibration is None:
        raise ValueError("--variant int8: needs --calibration, a folder of photos like yours.")
    for option in ("photos", "calibration"):
        folder = getattr(args, option)
        if folder is not None and not list_images(folder):
            raise ValueError(f"--{option} {folder}: no photos in this folder.")
    existing = next(
        each for each in (args.output, *args.output.absolute().parents) if each.exists()
    )
    if not existing.is_dir():
        raise ValueError(f"{args.output}: expected a folder to write to, but {existing} is a file.")
    if not os.access(existing, os.W_OK):
        raise ValueError(f"{args.output}: no permission to write to {existing}.")


def _default_name(path: Path) -> str:
    """Names a model for its run, or for its file."""
    name = path.absolute().parent.name if path.name in CHECKPOINTS else path.stem
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip(".-") or "model"


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise ValueError(f"--name: expected letters, digits, `_`, `-` and `.`, received {name!r}.")


def _parse_size(text: str) -> tuple[int, int]:
    """Reads `512` or `288x512`, height first."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise argparse.ArgumentTypeError(
            f"expected a size such as 512 or 288x512 (height x width), received {text!r}"
        )
    height, width = int(sides[0]), int(sides[-1])
    if min(height, width) < STRIDE or height % STRIDE or width % STRIDE:
        raise argparse.ArgumentTypeError(f"expected multiples of {STRIDE}, received {text!r}")
    return height, width


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m kmatting.export",
        description="Export a trained network: a SavedModel for TF Serving, or TFLite for phones.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model", required=True, metavar="PATH", help="folder of a run, or a .keras file"
    )
    parser.add_argument("--format", required=True, choices=("saved_model", "tflite"))
    parser.add_argument(
        "--output", type=Path, default=Path("saved_models"), metavar="DIR",
        help="DIR/NAME/VERSION/ or DIR/NAME-HxW-VARIANT.tflite is written (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--name", help="the model's name (default: that of the run or the file)")
    parser.add_argument(
        "--version", type=int, metavar="N",
        help="the model's version (default: the next free one; 1 for tflite)",
    )  # fmt: skip
    parser.add_argument(
        "--max-size", type=int, metavar="PIXELS",
        help="saved_model: a photo of a larger area than PIXELS squared is reduced to about that "
        "for the network, and its alpha enlarged (default: the size that it was trained at)",
    )  # fmt: skip
    parser.add_argument(
        "--size", type=_parse_size, nargs="+", metavar="SIZE",
        help="tflite: side, or height x width, multiples of 16; a file for each (default: the size "
        "that it was trained at)",
    )  # fmt: skip
    parser.add_argument(
        "--variant", choices=VARIANTS, nargs="+",
        help="tflite: how numbers are stored, see below; a file for each (default: float32)",
    )  # fmt: skip
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help="tflite: photos that int8 takes its scales from",
    )
    parser.add_argument(
        "--photos", type=Path, metavar="DIR",
        help="photos that the export is checked on (default: synthetic ones)",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=float, metavar="MEAN",
        help="tflite: largest mean difference of the alphas that is let through (default: "
        "0.00001 for float32, 0.002 for float16, 0.01 for dynamic, 0.02 for int8)",
    )  # fmt: skip
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
