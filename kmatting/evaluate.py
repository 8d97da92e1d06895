"""Scores mattes against true alphas with the metrics that matting papers report.

The mattes come from a model, or from a folder, made by any method. Files are matched by their
stems. TensorFlow is imported only if the model needs it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kmatting.bugs import STATUS
from kmatting.callable_module import CallableModule
from kmatting.cli import (
    add_model,
    add_quality,
    add_size,
    add_threads,
    at_least,
    command,
    make_parser,
    say,
)
from kmatting.scoring.metrics import BAND_WIDTH, DTSSD, METRICS
from kmatting.scoring.report import report_text
from kmatting.scoring.run import WORKERS, evaluate, evaluate_video

__all__ = ["evaluate", "main"]

_EPILOG = """\
files:
  Images, alphas, predictions and trimaps are matched by their stems: cat.jpg, cat.png. A prediction
  may also be called cat.alpha.png, as kmatting predict --alpha writes it.

figures:
{figures}
  Both mattes are rounded to 8 bits and compared at the size of the true one, over the whole image
  and over the unknown band. Means are over images, that of dtSSD over all frames but the first.

exit status:
  0 all images scored, 1 some could not be (one line each on standard error; the means leave them
  out and say so), 2 the command cannot be run as given, 70 a bug of kmatting, 130 interrupted,
  143 terminated.

examples:
  kmatting evaluate --data images alphas
  kmatting evaluate --data images alphas --model runs/mine/best.keras --output report
  kmatting evaluate --predictions mattes --alphas alphas --trimaps trimaps
  kmatting evaluate --video matte.mp4 truth.mp4
"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = vars(_parse(argv))
    if video := options.pop("video"):
        names = ("band", "resize_predictions", "output")
        report = evaluate_video(*video, **{name: options[name] for name in names})
    else:
        report = evaluate(**options)
    text = report_text(report)
    if options["output"]:
        sheet = "" if video else ", sheet.png"
        text += f"\n\nreport.json, report.csv{sheet} are in {options['output']}"
    say(text)
    if report["internal_errors"]:
        return STATUS
    return 1 if report["failed"] else 0


def _epilog() -> str:
    figures = (f"  {figure.caption:<13} {figure.meaning}" for figure in (*METRICS, DTSSD))
    return _EPILOG.format(figures="\n".join(figures))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(
        "evaluate",
        "Score mattes against true alphas with the metrics that matting papers report.",
        _epilog(),
    )
    model = parser.add_argument_group("score a model")
    add_model(model)
    model.add_argument(
        "--data",
        type=Path,
        nargs=2,
        metavar=("IMAGES", "ALPHAS"),
        help="folders of photos and of their true alphas",
    )
    add_size(model)
    add_threads(model)
    add_quality(model)
    files = parser.add_argument_group("score files")
    files.add_argument("--predictions", type=Path, help="folder of predicted mattes")
    files.add_argument("--alphas", type=Path, help="folder of true alphas")
    files.add_argument(
        "--images", type=Path, help="folder of photos, only to be shown in the sheet"
    )
    parser.add_argument(
        "--video",
        type=Path,
        nargs=2,
        metavar=("PREDICTION", "TRUTH"),
        help="score each frame of a video, and its flicker (dtSSD): two videos of mattes, in grey "
        "or with transparency, or two folders of their frames",
    )
    parser.add_argument(
        "--trimaps",
        type=Path,
        help="folder of trimaps (0, grey, 255) whose grey is the unknown band; "
        "without it the band is made from the true alphas",
    )
    parser.add_argument(
        "--groups",
        type=Path,
        metavar="FILE",
        help="CSV file with the columns name and group: prints the means of each group, too",
    )
    parser.add_argument(
        "--recursive", action="store_true", help="search the folders in the folders too"
    )
    parser.add_argument(
        "--band",
        type=at_least(0),
        metavar="PIXELS",
        default=BAND_WIDTH,
        help="pixels by which semi-transparent pixels and borders of the true alpha are dilated "
        "to make the unknown band (default: %(default)s)",
    )
    parser.add_argument(
        "--resize-predictions",
        action="store_true",
        help="resize predictions to the size of the true alpha (bilinear) instead of refusing "
        "those of another size",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder for report.json, report.csv (per image) and sheet.png (the worst, median and "
        "best by MAD); without it the means are only printed",
    )
    parser.add_argument(
        "--workers",
        type=at_least(1),
        metavar="N",
        default=WORKERS,
        help="number of images scored at a time (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    if args.video is not None:
        shared = ("video", "band", "resize_predictions", "output")
        if any(
            value != parser.get_default(name)
            for name, value in vars(args).items()
            if name not in shared
        ):
            parser.error(
                "--video can only be combined with --band, --resize-predictions and --output"
            )
    return args


sys.modules[__name__].__class__ = CallableModule

if __name__ == "__main__":
    sys.exit(main())
