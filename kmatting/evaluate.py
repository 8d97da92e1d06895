"""Scores mattes against true alphas with the metrics that matting papers report.

The mattes come from a model, or from a folder, made by any method. Files are matched by their
stems. TensorFlow is imported only if the model needs it.
"""

import argparse
import csv
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from kmatting.cli import (
    add_model,
    add_size,
    add_threads,
    at_least,
    command,
    make_parser,
    say,
)
from kmatting.errors import ImageError
from kmatting.files import check_writable, whole_file
from kmatting.images import faint_set, read_alpha, read_image, scan_folder, write_image
from kmatting.images.panel import draw_panel
from kmatting.pictures.names import matte_stem
from kmatting.quiet import quiet
from kmatting.scoring.metrics import (
    BAND_WIDTH,
    FIGURES,
    SIGMA,
    score,
    to_levels,
    unknown_band,
    unknown_of_trimap,
)
from kmatting.sizes import Size, size_text

EXAMPLES = """\
files:
  Images, alphas, predictions and trimaps are matched by their stems: cat.jpg, cat.png. A prediction
  may also be called cat.alpha.png, as kmatting predict --alpha writes it.

exit status:
  0 all images scored, 1 some could not be (one line each on standard error; the means leave them
  out and say so), 2 the command cannot be run as given, 130 interrupted, 143 terminated.

examples:
  kmatting evaluate --data images alphas
  kmatting evaluate --data images alphas --model runs/mine/best.keras --output report
  kmatting evaluate --predictions mattes --alphas alphas --trimaps trimaps
  kmatting evaluate --video matte.mp4 truth.mp4
"""

PROTOCOL = {
    "size": "the original size of each true alpha",
    "rounding": "truth and prediction rounded to 8 bits, no other change",
    "mean": "over images",
    "sad": "sum over pixels of |prediction - truth|, alpha in [0, 1], / 1000",
    "mse": "mean over pixels of (prediction - truth)^2",
    "mad": "mean over pixels of |prediction - truth|",
    "gradient": f"derivatives of a Gaussian of sigma {SIGMA}, / 1000",
    "connectivity": "step 0.1, theta 0.15, 4 neighbours, / 1000",
    "iou": "of alpha >= 0.5 (higher is better)",
}
VIDEO_PROTOCOL = {
    "mean": "over frames",
    "dtssd": "root of the mean square over pixels of the error of the change to a frame, * 100",
}
DECIMALS = {"sad": 4, "mse": 6, "mad": 6, "gradient": 4, "connectivity": 4, "iou": 5, "dtssd": 4}
SHEET_ROWS = 3  # each of the worst, median and best
SHEET_CELL = 320  # pixels
LISTED = 20  # names and problems printed at most, of each kind

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Case:
    """The files of one image.

    Attributes:
        name: their common stem, after the folders below the given one.
        alpha: the true alpha.
        prediction: the predicted matte, or None if a model makes it from the image.
        image: the photo, or None.
        trimap: the trimap, or None if the unknown band is made from the true alpha.
    """

    name: str
    alpha: Path
    prediction: Path | None = None
    image: Path | None = None
    trimap: Path | None = None


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return run(parse_arguments(argv))


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line; sets `images` and `alphas` for `--data` too."""
    parser = make_parser(
        "evaluate",
        "Score mattes against true alphas with the metrics that matting papers report.",
        EXAMPLES,
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
        "--recursive", action="store_true", help="search the folders in the folders too"
    )
    parser.add_argument(
        "--band",
        type=at_least(0),
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
        default=min(4, os.cpu_count() or 1),
        help="number of images scored at a time (default: %(default)s)",
    )
    arguments = parser.parse_args(argv)
    if arguments.video is not None:
        others = ("model", "data", "size", "threads", "predictions", "alphas", "images", "trimaps")
        if any(getattr(arguments, name) is not None for name in others) or arguments.recursive:
            parser.error("--video stands alone, but for --band, --resize-predictions and --output")
        arguments.source, arguments.alphas = arguments.video
        return arguments
    if (arguments.data is None) == (arguments.predictions is None):
        parser.error("give either --data IMAGES ALPHAS, or --predictions with --alphas")
    if arguments.data is not None:
        if arguments.alphas is not None or arguments.images is not None:
            parser.error("--data names the alphas and images; leave out --alphas and --images")
        arguments.images, arguments.alphas = arguments.data
    elif arguments.alphas is None or arguments.model or arguments.size or arguments.threads:
        parser.error("--predictions needs --alphas, and no --model, --size or --threads")
    return arguments


def run(arguments: argparse.Namespace) -> int:
    """Finds the files, checks them all, scores them, writes the report and prints the means.

    Returns:
        The exit status: 1 if some images could not be scored.

    Raises:
        ImageError: if any file is missing or cannot be used; the message lists all of them.
        OSError: if the report cannot be written.
    """
    if arguments.output:
        check_writable(arguments.output)
    if arguments.video is not None:
        return _run_video(arguments)
    arguments.source = arguments.model or arguments.predictions or "the shipped model"
    if arguments.data is not None and arguments.model is None:
        # Imported here, since scoring files needs no network.
        from kmatting.networks.shipped import shipped_model

        arguments.model = shipped_model()
    folders = {
        "alpha": arguments.alphas,
        "prediction": arguments.predictions,
        "image": arguments.images,
        "trimap": arguments.trimaps,
    }
    folders = {kind: folder for kind, folder in folders.items() if folder is not None}
    cases = find_cases(folders, arguments.recursive)
    predict = load_model(arguments.model, arguments.size, arguments.threads)
    check_files(cases, folders, arguments.resize_predictions, arguments.workers)

    def score_one(case: Case) -> dict[str, Any] | str:
        try:
            return score_case(case, predict, arguments.band)
        except (ValueError, OSError, MemoryError) as error:
            return str(error) or "not enough memory"

    results = in_threads(score_one, cases, arguments.workers, "scoring")
    scored = [case for case, row in zip(cases, results, strict=True) if not isinstance(row, str)]
    rows = [row for row in results if not isinstance(row, str)]
    failed = {
        case.name: row for case, row in zip(cases, results, strict=True) if isinstance(row, str)
    }
    for name, reason in failed.items():
        print(f"error: {name}: {reason}", file=sys.stderr)
    if not rows:
        raise ImageError("no image could be scored.")
    report = make_report(rows, failed, arguments)
    text = as_text(report)
    if arguments.output:
        write_json(arguments.output / "report.json", report)
        write_csv(arguments.output / "report.csv", rows)
        write_image(arguments.output / "sheet.png", draw_sheet(scored, rows, predict))
        text += f"\n\nreport.json, report.csv and sheet.png are in {arguments.output}"
    say(text)
    return 1 if failed else 0


def _run_video(arguments: argparse.Namespace) -> int:
    """Scores a video, writes the report and prints the means; returns the exit status."""
    from kmatting.video.scoring import score_video

    prediction, truth = arguments.video
    frames = score_video(prediction, truth, arguments.band, arguments.resize_predictions)
    rows = list(tqdm(frames, "scoring", unit="frame", disable=None))
    report = make_report(rows, {}, arguments)
    text = as_text(report)
    if arguments.output:
        write_json(arguments.output / "report.json", report)
        write_csv(arguments.output / "report.csv", rows)
        text += f"\n\nreport.json and report.csv are in {arguments.output}"
    say(text)
    return 0


def find_cases(folders: dict[str, Path], recursive: bool = False) -> list[Case]:
    """Matches the files of folders by their stems; the alphas say which there must be.

    Other files are left out, with a note on standard error.

    Args:
        folders: folder by kind: "alpha", and any of "prediction", "image" and "trimap".
        recursive: whether to search the folders in the folders too.

    Returns:
        The cases, sorted by name.

    Raises:
        ImageError: if an alpha lacks its prediction, image or trimap, or two files of a folder
            have the same stem. The message has all such problems.
    """
    problems: list[str] = []
    notes: list[str] = []
    found: dict[str, dict[str, Path]] = {}
    for kind, folder in folders.items():
        found[kind], doubles, note = _by_stem(folder, kind, recursive)
        problems += doubles
        notes += [f"{folder}: {note}"] if note else []
    stems = found["alpha"]
    if not stems:
        raise ImageError("\n  ".join([f"{folders['alpha']}: no images there.", *notes]))
    for kind, paths in found.items():
        missing = sorted(stems.keys() - paths.keys())
        if missing:
            problems.append(
                f"{folders[kind]}: no {kind} for {len(missing)} of {len(stems)} alphas: "
                f"{_listed(missing)}"
            )
        unused = sorted(paths.keys() - stems.keys())
        if unused:
            notes.append(
                f"{folders[kind]}: {len(unused)} without an alpha: {_listed(unused)}; not scored"
            )
    if problems:
        raise ImageError("\n  ".join(["the folders do not match.", *problems, *notes]))
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    others = [found.get(kind, {}) for kind in ("prediction", "image", "trimap")]
    return [
        Case(stem, stems[stem], *(paths.get(stem) for paths in others)) for stem in sorted(stems)
    ]


def check_files(
    cases: Sequence[Case], folders: dict[str, Path], resize: bool, workers: int
) -> None:
    """Reads all files once, so that a bad one is known before hours of work.

    Args:
        cases: the files.
        folders: folder by kind.
        resize: whether predictions may differ from the alphas in size.
        workers: number of files read at a time.

    Raises:
        ImageError: if files cannot be used, or if a whole folder of mattes is too faint to be one
            of mattes; the message has all problems.
    """
    found = in_threads(lambda case: _check_case(case, resize), cases, workers, "checking")
    problems = [problem for of_case, _ in found for problem in of_case]
    for kind in ("alpha", "prediction"):
        peak = max((peaks[kind] for _, peaks in found if kind in peaks), default=None)
        message = None if peak is None else faint_set(str(folders[kind]), peak)
        if message and peak:
            problems.append(message)
        elif message:  # photos without a subject, or a model that found none
            print(f"warning: {message}", file=sys.stderr)
    if problems:
        lines = [f"{len(problems)} problems, nothing scored.", *problems[:LISTED]]
        if len(problems) > LISTED:
            lines.append(f"... and {len(problems) - LISTED} more")
        raise ImageError("\n  ".join(lines) if len(problems) > 1 else problems[0])


def load_model(
    path: Path | None, size: Size | None, threads: int | None
) -> Callable[[Case], np.ndarray]:
    """Returns a function that gets the prediction of a case, uint8 (H, W).

    Args:
        path: the model; None to read the prediction from its file.
        size: as in `kmatting.inference.matter.Matter`.
        threads: as in `kmatting.inference.matter.Matter`.
    """
    if path is None:
        return lambda case: read_alpha(case.prediction, exact=True)  # type: ignore[arg-type]
    from kmatting.inference.matter import Matter

    with quiet():
        matter = Matter(path, size=size, threads=threads)
    return lambda case: to_levels(matter(case.image).alpha)  # type: ignore[arg-type]


def score_case(case: Case, predict: Callable[[Case], np.ndarray], band: int) -> dict[str, Any]:
    """Scores one image.

    Args:
        case: its files.
        predict: gets its prediction.
        band: width of the unknown band in pixels, where there is no trimap.

    Returns:
        Name, height, width, share of unknown pixels, and the figures of
        `kmatting.scoring.metrics.score`.
    """
    truth, prediction = read_mattes(case, predict)
    if case.trimap is None:
        unknown = unknown_band(truth, band)
    else:
        unknown = unknown_of_trimap(read_alpha(case.trimap))
    return {
        "name": case.name,
        "height": truth.shape[0],
        "width": truth.shape[1],
        "unknown_share": float(unknown.mean()),
        **score(truth, prediction, unknown),
    }


def read_mattes(case: Case, predict: Callable[[Case], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Gets the true and the predicted alpha, both uint8 (H, W) at the size of the true one."""
    truth, prediction = read_alpha(case.alpha), predict(case)
    if prediction.shape != truth.shape:  # with --resize-predictions, else refused before
        size = truth.shape[::-1]
        resized = Image.fromarray(prediction).resize(size, Image.Resampling.BILINEAR)
        prediction = np.asarray(resized)
    return truth, prediction


def make_report(
    rows: Sequence[dict[str, Any]], failed: dict[str, str], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Gathers what was scored, how, the means, and the figures of each image.

    Args:
        rows: what `score_case` returns, for each image scored.
        failed: why the others could not be scored, by name.
        arguments: the parsed command line.

    Returns:
        The report, as it is written to `report.json`.
    """
    with_band = [row for row in rows if row["unknown_share"] > 0]
    figures = (*FIGURES, "dtssd") if arguments.video else FIGURES
    mean = {}
    for figure in figures:
        # The first frame of a video has no dtSSD.
        scored = rows[1:] if figure == "dtssd" else rows
        in_band = [row for row in scored if row["unknown_share"] > 0]
        mean[figure] = _mean(row[figure] for row in scored)
        mean[f"{figure}_unknown"] = _mean(row[f"{figure}_unknown"] for row in in_band)
    unknown = (
        f"grey pixels of the trimaps in {arguments.trimaps}"
        if arguments.trimaps
        else "semi-transparent pixels and borders of the true alpha, "
        f"dilated by {arguments.band} px (square)"
    )
    protocol = {**PROTOCOL, **(VIDEO_PROTOCOL if arguments.video else {}), "unknown": unknown}
    if arguments.resize_predictions:
        protocol["resized"] = "predictions of another size were resized to the alpha's, bilinear"
    at_size = f" at size {size_text(arguments.size)}" if arguments.size else ""
    return {
        "predictions": f"{arguments.source}{at_size}",
        "alphas": str(arguments.alphas),
        "protocol": protocol,
        "figures": list(figures),
        "unit": "frames" if arguments.video else "images",
        "images": len(rows),
        "failed": failed,
        "images_with_unknown": len(with_band),
        "unknown_share": _mean(row["unknown_share"] for row in rows),
        "mean": mean,
        "per_image": list(rows),
    }


def as_text(report: dict[str, Any]) -> str:
    """Writes the means as a table under a header that says how they were computed."""
    unit, figures = report["unit"], report["figures"]
    count = f"{report['images']} {unit}"
    if report["failed"]:
        total = report["images"] + len(report["failed"])
        count = f"{report['images']} of {total} {unit}; {len(report['failed'])} could not be scored"
    lines = [f"{report['predictions']} against {report['alphas']}: {count}"]
    lines += [f"  {name:<13} {meaning}" for name, meaning in report["protocol"].items()]
    lines.append(
        f"  {'':<13} {report['unknown_share']:.1%} of the pixels, "
        f"in {report['images_with_unknown']} of {report['images']} {unit}"
    )
    lines += ["", "mean over    " + "".join(f"{figure:>14}" for figure in figures)]
    for title, suffix in (("whole image", ""), ("unknown band", "_unknown")):
        values = (report["mean"][figure + suffix] for figure in figures)
        cells = (
            f"{value:>14.{DECIMALS[figure]}f}"
            for figure, value in zip(figures, values, strict=True)
        )
        lines.append(f"{title:<13}" + "".join(cells))
    return "\n".join(lines)


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Writes the report; figures of an empty unknown band are null."""
    with whole_file(path) as partial:
        text = json.dumps(_without_nan(report), indent=2, allow_nan=False, ensure_ascii=False)
        partial.write_text(text + "\n", encoding="utf-8")


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes one line an image; figures of an empty unknown band are left empty."""
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(
            {key: "" if value is None else value for key, value in row.items()}
            for row in _without_nan(rows)
        )


def draw_sheet(
    cases: Sequence[Case], rows: Sequence[dict[str, Any]], predict: Callable[[Case], np.ndarray]
) -> np.ndarray:
    """Draws the worst, median and best cases by MAD, side by side with the truth.

    Returns:
        uint8 array (H, W, 3).
    """
    ranking = sorted(range(len(rows)), key=lambda index: -rows[index]["mad"])
    pictures, captions = [], []
    for rank in _shown_ranks(len(ranking)):
        case, row = cases[ranking[rank]], rows[ranking[rank]]
        truth, prediction = read_mattes(case, predict)
        shown = [truth, prediction, _difference_picture(truth, prediction)]
        if case.image is not None:
            shown.insert(0, read_image(case.image))
        pictures.append([_shrunk(picture) for picture in shown])
        captions.append(
            f"{_place(rank, len(rows))}  {case.name}  MAD {row['mad']:.4f}  SAD {row['sad']:.3f}  "
            f"gradient {row['gradient']:.3f}  connectivity {row['connectivity']:.3f}  "
            f"IoU {row['iou']:.3f}"
        )
    columns = ["true alpha", "prediction", "difference (red: too much, blue: too little)"]
    if cases[0].image is not None:
        columns.insert(0, "image")
    return draw_panel(pictures, columns, captions, cell=SHEET_CELL)


def in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int, title: str
) -> list[Result]:
    """Maps a function over items in threads, in order, with a progress bar in a terminal."""
    pool = ThreadPoolExecutor(workers)
    try:
        results = pool.map(work, items)
        return list(tqdm(results, title, total=len(items), unit="image", disable=None))
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C, what waits is dropped


def _by_stem(folder: Path, kind: str, recursive: bool) -> tuple[dict[str, Path], list[str], str]:
    """Lists a folder by stem.

    Returns:
        The paths by stem, one message for each stem that occurs twice, and what was left out.
    """
    listing = scan_folder(folder, recursive)
    note = listing.note()
    if listing.subfolders:  # the last thing that the note says
        note += " (--recursive does)"
    paths: dict[str, Path] = {}
    problems = []
    for path in listing.photos:
        stem = path.stem if kind == "image" else matte_stem(path)
        name = path.relative_to(folder).with_name(stem).as_posix()
        if name in paths:
            problems.append(
                f"{folder}: {paths[name].name} and {path.name} have the same stem; remove one"
            )
        paths[name] = path
    return paths, problems, note


def _check_case(case: Case, resize: bool) -> tuple[list[str], dict[str, int]]:
    """Reads the files of a case.

    Returns:
        What is wrong with them, one line each; and the highest level of its mattes, by kind.
    """
    problems = []
    pixels: dict[str, np.ndarray] = {}
    for kind in ("alpha", "prediction", "image", "trimap"):
        path = getattr(case, kind)
        if path is None:
            continue
        try:
            if kind == "image":
                pixels[kind] = read_image(path)
            else:
                pixels[kind] = read_alpha(path, exact=kind == "prediction")
        except ImageError as error:
            problems.append(str(error))
    scored = "image" if case.prediction is None else "prediction"
    for kind in ("trimap",) if resize else ("trimap", scored):
        if kind in pixels and "alpha" in pixels:
            size, expected = _size(pixels[kind]), _size(pixels["alpha"])
            if size != expected:
                hint = "predict at that size, or pass --resize-predictions"
                problems.append(
                    f"{getattr(case, kind)}: is {size}, but the true alpha is {expected}"
                    + (f"; {hint}." if kind == scored else ".")
                )
    if "trimap" in pixels:
        try:
            unknown_of_trimap(pixels["trimap"])
        except ValueError as error:
            problems.append(f"{case.trimap}: {error}")
    mattes = {kind: pixels[kind] for kind in ("alpha", "prediction") if kind in pixels}
    return problems, {kind: int(matte.max()) for kind, matte in mattes.items()}


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return math.fsum(numbers) / len(numbers) if numbers else math.nan


def _without_nan(value: Any) -> Any:
    """Replaces NaN by None, which JSON has a word for."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _shown_ranks(count: int) -> list[int]:
    """Picks the first, middle and last ranks; all, if there are no more than that."""
    if count <= 3 * SHEET_ROWS:
        return list(range(count))
    middle = (count - SHEET_ROWS) // 2
    starts = (0, middle, count - SHEET_ROWS)
    return [start + offset for start in starts for offset in range(SHEET_ROWS)]


def _place(rank: int, count: int) -> str:
    names = {0: "worst", (count - 1) // 2: "median", count - 1: "best"}
    name = names.get(rank)
    return f"{rank + 1} of {count}" + (f" ({name})" if name else "")


def _shrunk(pixels: np.ndarray) -> np.ndarray:
    image = Image.fromarray(pixels)
    image.thumbnail((SHEET_CELL, SHEET_CELL), Image.Resampling.BOX)
    return np.asarray(image)


def _difference_picture(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """White where both agree, red where the prediction has too much, blue where too little."""
    too_much = prediction - np.minimum(truth, prediction)
    too_little = truth - np.minimum(truth, prediction)
    return 255 - np.stack([too_little, too_little + too_much, too_much], axis=-1)


if __name__ == "__main__":
    sys.exit(main())
