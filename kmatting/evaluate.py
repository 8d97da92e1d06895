"""Scores mattes against true alphas with the figures that matting papers report.

The mattes come from a model, or lie in a folder, made by any method. Files belong together by their
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

from kmatting.cli import add_model, add_size, add_threads, command, make_parser
from kmatting.files import whole_file
from kmatting.images import (
    IMAGE_SUFFIXES,
    ImageError,
    list_images,
    read_alpha,
    read_image,
    write_image,
)
from kmatting.metrics import (
    BAND_WIDTH,
    FIGURES,
    SIGMA,
    score,
    to_levels,
    unknown_band,
    unknown_of_trimap,
)
from kmatting.panel import draw_panel

EXAMPLES = """examples:
  kmatting evaluate --data images alphas
  kmatting evaluate --data images alphas --model runs/mine/best.keras --output report
  kmatting evaluate --predictions mattes --alphas alphas --trimaps trimaps
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
DECIMALS = {"sad": 4, "mse": 6, "mad": 6, "gradient": 4, "connectivity": 4, "iou": 5}
SHEET_ROWS = 3  # each of the worst, median and best
SHEET_CELL = 320  # pixels
LISTED = 20  # names and problems printed at most, of each kind

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Case:
    """The files of one image.

    Attributes:
        name: their common stem.
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
    run(parse_arguments(argv))
    return 0


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line; afterwards `images` and `alphas` are set in both ways of calling."""
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
        "--trimaps",
        type=Path,
        help="folder of trimaps (0, grey, 255) whose grey is the unknown band; "
        "without it the band is made from the true alphas",
    )
    parser.add_argument(
        "--band",
        type=int,
        default=BAND_WIDTH,
        help="pixels by which semi-transparent pixels and borders of the true alpha are dilated "
        "to make the unknown band (default: %(default)s)",
    )
    parser.add_argument(
        "--resize-predictions",
        action="store_true",
        help="bring predictions of another size to the size of the true alpha (bilinear) "
        "instead of refusing them",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder for report.json, report.csv (per image) and sheet.png (the worst, median and "
        "best by MAD); without it the means are only printed",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=min(4, os.cpu_count() or 1),
        help="images scored at a time (default: %(default)s)",
    )
    arguments = parser.parse_args(argv)
    if (arguments.data is None) == (arguments.predictions is None):
        parser.error("give either --data IMAGES ALPHAS, or --predictions with --alphas")
    if arguments.data is not None:
        if arguments.alphas is not None or arguments.images is not None:
            parser.error("--data names the alphas and images; leave out --alphas and --images")
        arguments.images, arguments.alphas = arguments.data
    elif arguments.alphas is None or arguments.model or arguments.size or arguments.threads:
        parser.error("--predictions needs --alphas, and no --model, --size or --threads")
    if arguments.output is not None and arguments.output.is_file():
        parser.error(f"--output {arguments.output}: expected a folder, but it is a file")
    if arguments.band < 0 or arguments.workers < 1:
        parser.error("--band must be 0 or more, --workers 1 or more")
    return arguments


def run(arguments: argparse.Namespace) -> None:
    """Finds the files, checks them all, scores them, prints the means and writes the report.

    Raises:
        ImageError: if any file is missing or cannot be used; the message lists all of them.
    """
    if arguments.data is not None and arguments.model is None:
        # Imported here, since scoring files needs no network.
        from kmatting.shipped import shipped_model

        arguments.model = shipped_model()
    cases = find_cases(arguments.alphas, arguments.predictions, arguments.images, arguments.trimaps)
    predict = load_model(arguments.model, arguments.size, arguments.threads)
    check_files(cases, arguments.resize_predictions, arguments.workers)

    def score_one(case: Case) -> dict[str, Any]:
        return score_case(case, predict, arguments.band)

    rows = in_threads(score_one, cases, arguments.workers, "scoring")
    report = make_report(rows, arguments)
    print(as_text(report))
    if arguments.output:
        sheet = draw_sheet(cases, rows, predict)
        write_json(arguments.output / "report.json", report)
        write_csv(arguments.output / "report.csv", rows)
        write_image(arguments.output / "sheet.png", sheet)
        print(f"\nreport.json, report.csv and sheet.png are in {arguments.output}")


def find_cases(
    alphas: Path,
    predictions: Path | None = None,
    images: Path | None = None,
    trimaps: Path | None = None,
) -> list[Case]:
    """Matches the files of the folders by their stems; the alphas say which there must be.

    Files without an alpha are left out, with a note on standard error.

    Raises:
        ImageError: if an alpha lacks its prediction, image or trimap, or two files of a folder
            have one stem. The message has all such problems.
    """
    folders = {"alpha": alphas, "prediction": predictions, "image": images, "trimap": trimaps}
    problems: list[str] = []
    found: dict[str, dict[str, Path]] = {}
    for kind, folder in folders.items():
        if folder is not None:
            found[kind], doubles = _by_stem(folder)
            problems += doubles
    stems = found["alpha"]
    if not stems:
        raise ImageError(f"{alphas}: no images there (expected {', '.join(IMAGE_SUFFIXES)}).")
    notes = []
    for kind, paths in found.items():
        missing = sorted(stems.keys() - paths.keys())
        if missing:
            problems.append(
                f"{folders[kind]}: no {kind} for {len(missing)} of {len(stems)} alphas: "
                f"{_listed(missing)}"
            )
        unused = sorted(paths.keys() - stems.keys())
        if unused:
            notes.append(f"{folders[kind]}: {len(unused)} without an alpha: {_listed(unused)}")
    if problems:
        raise ImageError("\n  ".join(["the folders do not match.", *problems, *notes]))
    for note in notes:
        print(f"note: {note}; not scored", file=sys.stderr)
    others = [found.get(kind, {}) for kind in ("prediction", "image", "trimap")]
    return [
        Case(stem, stems[stem], *(paths.get(stem) for paths in others)) for stem in sorted(stems)
    ]


def check_files(cases: Sequence[Case], resize: bool, workers: int) -> None:
    """Reads all files once, so that a bad one is known before hours of work.

    Args:
        cases: the files.
        resize: whether predictions may differ from the alphas in size.
        workers: files read at a time.

    Raises:
        ImageError: if files cannot be used; the message has all of them.
    """
    found = in_threads(lambda case: _problems(case, resize), cases, workers, "checking")
    problems = [problem for of_case in found for problem in of_case]
    if problems:
        lines = [f"{len(problems)} problems, nothing scored.", *problems[:LISTED]]
        if len(problems) > LISTED:
            lines.append(f"... and {len(problems) - LISTED} more")
        raise ImageError("\n  ".join(lines) if len(problems) > 1 else problems[0])


def load_model(
    path: Path | None, size: int | None, threads: int | None
) -> Callable[[Case], np.ndarray]:
    """Returns a function that gets the prediction of a case, uint8 (H, W).

    Args:
        path: the model; None to read the prediction from its file.
        size: as in `kmatting.inference.matter.Matter`.
        threads: as in `kmatting.inference.matter.Matter`.
    """
    if path is None:
        return lambda case: read_alpha(case.prediction)  # type: ignore[arg-type]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only
    from kmatting.inference.matter import Matter

    matter = Matter(path, size=size, threads=threads)
    return lambda case: to_levels(matter(case.image).alpha)  # type: ignore[arg-type]


def score_case(case: Case, predict: Callable[[Case], np.ndarray], band: int) -> dict[str, Any]:
    """Scores one image.

    Args:
        case: its files.
        predict: gets its prediction.
        band: width of the unknown band in pixels, where there is no trimap.

    Returns:
        Name, height, width, share of unknown pixels, and the figures of `kmatting.metrics.score`.
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


def make_report(rows: Sequence[dict[str, Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    """Gathers what was scored, how, the means, and the figures of each image."""
    with_band = [row for row in rows if row["unknown_share"] > 0]
    mean = {figure: _mean(row[figure] for row in rows) for figure in FIGURES}
    mean |= {
        f"{figure}_unknown": _mean(row[f"{figure}_unknown"] for row in with_band)
        for figure in FIGURES
    }
    unknown = (
        f"grey pixels of the trimaps in {arguments.trimaps}"
        if arguments.trimaps
        else "semi-transparent pixels and borders of the true alpha, "
        f"dilated by {arguments.band} px (square)"
    )
    protocol = {**PROTOCOL, "unknown": unknown}
    if arguments.resize_predictions:
        protocol["resized"] = "predictions of another size were brought to the alpha's, bilinear"
    at_size = f" at size {arguments.size}" if arguments.size else ""
    return {
        "predictions": f"{arguments.model or arguments.predictions}{at_size}",
        "alphas": str(arguments.alphas),
        "protocol": protocol,
        "images": len(rows),
        "images_with_unknown": len(with_band),
        "unknown_share": _mean(row["unknown_share"] for row in rows),
        "mean": mean,
        "per_image": list(rows),
    }


def as_text(report: dict[str, Any]) -> str:
    """Writes the means as a table under a header that says how they were computed."""
    lines = [f"{report['predictions']} against {report['alphas']}: {report['images']} images"]
    lines += [f"  {name:<13} {meaning}" for name, meaning in report["protocol"].items()]
    lines.append(
        f"  {'':<13} {report['unknown_share']:.1%} of the pixels, "
        f"in {report['images_with_unknown']} of {report['images']} images"
    )
    lines += ["", "mean over    " + "".join(f"{figure:>14}" for figure in FIGURES)]
    for title, suffix in (("whole image", ""), ("unknown band", "_unknown")):
        values = (report["mean"][figure + suffix] for figure in FIGURES)
        cells = (
            f"{value:>14.{DECIMALS[figure]}f}"
            for figure, value in zip(FIGURES, values, strict=True)
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


def _by_stem(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Lists a folder by stem; returns also one message for each stem that occurs twice."""
    paths: dict[str, Path] = {}
    problems = []
    for path in list_images(folder):
        if path.stem in paths:
            problems.append(
                f"{folder}: {paths[path.stem].name} and {path.name} have one stem; remove one"
            )
        paths[path.stem] = path
    return paths, problems


def _problems(case: Case, resize: bool) -> list[str]:
    """Says what is wrong with the files of a case, one line each."""
    problems = []
    pixels: dict[Path, np.ndarray] = {}
    for path in (case.alpha, case.prediction, case.image, case.trimap):
        if path is not None:
            try:
                pixels[path] = read_image(path) if path == case.image else read_alpha(path)
            except ImageError as error:
                problems.append(str(error))
    scored = case.prediction or case.image
    for path in (case.trimap, None if resize else scored):
        if path in pixels and case.alpha in pixels:
            size, expected = _size(pixels[path]), _size(pixels[case.alpha])
            if size != expected:
                hint = "predict at that size, or pass --resize-predictions"
                problems.append(
                    f"{path}: is {size}, but the true alpha is {expected}"
                    + (f"; {hint}." if path == scored else ".")
                )
    if case.trimap in pixels:
        try:
            unknown_of_trimap(pixels[case.trimap])
        except ValueError as error:
            problems.append(f"{case.trimap}: {error}")
    return problems


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
