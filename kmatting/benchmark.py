"""Measures kmatting's speed on this machine: `kmatting benchmark`.

Every row runs in a process of its own, so that its memory is its own and nothing is warm from the
row before. A row's rate is also given as a share of what the machine can do: the rate of a large
matrix product, measured in the same process, since a shared machine is not as fast at one moment as
at another.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kmatting.cli import at_least, command, make_parser, say
from kmatting.files import check_writable, whole_file
from kmatting.measuring.data import input_pipeline, pipelines
from kmatting.measuring.machine import describe_machine
from kmatting.measuring.prediction import FORMATS, export_models, prediction, shipped_network
from kmatting.measuring.rows import TITLES, Row, row_text
from kmatting.measuring.shell import by_megapixels, from_the_shell
from kmatting.measuring.training import training_step
from kmatting.sizes import STRIDE

__all__ = ["main"]

_EPILOG = """\
examples:
  everything:
    kmatting benchmark
  only training, and the figures for a script:
    kmatting benchmark --train --json train.json
  the small encoder:
    kmatting benchmark --predict --encoder densenet121

rows:
  train      a step of fit: forward pass, backward pass, update. The batch is in memory already; the
             clock stops when the device has finished.
  predict    the network alone: from 8-bit pixels in memory to an alpha in memory. With a GPU, Keras
             and SavedModel rows include the copies to and from it; TFLite runs on the processor.
             Rows "from the shell" include all that kmatting predict does.
  data       reading and augmenting a sample of 384x512, as processor time; the same by
             albumentations, if that is installed.

columns:
  ms         median time of a step, a photo or a sample
  images/s   images of a step by that time
  CPU ms     time that processors worked in a step or a photo, all threads together
  GFLOP/s    operations of the convolutions and matrix products in the graph, by that time
  of peak    GFLOP/s as a share of a large matrix product's, in the same process, on the same device
             and in the same precision (float32 for TFLite), copies left out
  first s    from the start of the process until the first step or photo is done
  MB         largest memory of the process
  includes   what was timed
"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parse(argv)
    if args.json:
        check_writable(args.json.parent)
    facts = _alone(describe_machine)
    for name, value in facts.items():
        say(f"{name:16} {value if isinstance(value, str | int) else f'{value:.1f}'}")
    say(f"\n{TITLES}")
    rows = []
    with tempfile.TemporaryDirectory(prefix="kmatting-benchmark-") as folder:
        for row in _measured(args, Path(folder)):
            say(row_text(row))
            rows.append(asdict(row))
    if args.json:
        with whole_file(args.json) as partial:
            partial.write_text(json.dumps({"machine": facts, "rows": rows}, indent=2) + "\n")
    return 0


def _measured(args: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Measures what was asked for; yields each row as soon as it is there."""
    everything = not (args.train or args.predict or args.shell or args.data)
    encoder = args.encoder
    if args.train or everything:
        for size in args.train_sizes:
            batch = 4 if size <= 256 else 2
            for name in ("model1", "model2"):
                for precision in ("float32", "mixed_bfloat16"):
                    yield _alone(training_step, encoder, name, size, batch, precision)
            if encoder.startswith("densenet"):
                yield _alone(training_step, encoder, "model2", size, batch, "float32", True)
    if args.predict or everything:
        for size in args.sizes:
            count = _alone(export_models, encoder, size, str(folder))
            for kind in FORMATS:
                yield _alone(prediction, encoder, kind, size, str(folder), count)
    if args.predict or args.shell or everything:
        yield _alone(shipped_network)
        yield from from_the_shell(folder)
    if args.shell or everything:
        yield from by_megapixels(folder)
    if args.data or everything:
        for kind, augmentation in pipelines():
            yield _alone(input_pipeline, kind, augmentation, 256)


def _alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    from kmatting.models.names import ENCODERS

    parser = make_parser(
        "benchmark", "Measure kmatting's speed on this machine, which should be idle.", _EPILOG
    )
    parser.add_argument("--train", action="store_true", help="measure training steps")
    parser.add_argument("--predict", action="store_true", help="measure prediction in every format")
    parser.add_argument(
        "--shell",
        action="store_true",
        help="measure only kmatting predict with the shipped model, on photos up to 48 megapixels",
    )
    parser.add_argument("--data", action="store_true", help="measure the input pipeline")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE too")
    parser.add_argument(
        "--encoder",
        default="densenet201",
        choices=ENCODERS,
        help="encoder of the networks (default: %(default)s)",
    )
    parser.add_argument(
        "--train-sizes",
        type=at_least(STRIDE),
        nargs="+",
        default=[256, 512],
        metavar="PIXELS",
        help="sides of the training images (default: 256 512)",
    )
    parser.add_argument(
        "--sizes",
        type=at_least(STRIDE),
        nargs="+",
        default=[512, 1024],
        metavar="PIXELS",
        help="sides of the photos to predict (default: 512 1024)",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
