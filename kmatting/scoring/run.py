"""Scores mattes against true alphas: what `kmatting evaluate` does, as functions."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kmatting.ahead import map_ordered
from kmatting.bugs import BugCounter, attempt
from kmatting.errors import ImageError, UsageError
from kmatting.files import check_folder, check_writable
from kmatting.images import read_alpha, write_image
from kmatting.quiet import quiet
from kmatting.scoring.cases import (
    Case,
    Predict,
    check_files,
    find_cases,
    group_cases,
    score_case,
)
from kmatting.scoring.levels import to_levels
from kmatting.scoring.metrics import BAND_WIDTH
from kmatting.scoring.report import make_report, write_csv, write_json
from kmatting.scoring.sheet import draw_sheet
from kmatting.sizes import Quality, Size, size_text
from kmatting.terminal import complain, progress

__all__ = ["WORKERS", "evaluate", "evaluate_video"]

StrPath = str | os.PathLike[str]

WORKERS = min(4, os.cpu_count() or 1)  # images scored at a time


def evaluate(
    data: tuple[StrPath, StrPath] | None = None,
    *,
    predictions: StrPath | None = None,
    alphas: StrPath | None = None,
    images: StrPath | None = None,
    trimaps: StrPath | None = None,
    groups: StrPath | None = None,
    model: StrPath | None = None,
    size: Size | None = None,
    threads: int | None = None,
    quality: Quality = "fast",
    recursive: bool = False,
    band: int = BAND_WIDTH,
    resize_predictions: bool = False,
    output: StrPath | None = None,
    workers: int = WORKERS,
) -> dict[str, Any]:
    """Scores the mattes of a model, or files, as `kmatting evaluate` does.

    Images that cannot be scored are named on standard error.

    Args:
        data: folders of photos and of their true alphas, to score a model.
        predictions: folder of predicted mattes, to score files instead.
        alphas: with `predictions`, folder of true alphas.
        images: with `predictions`, folder of photos, only to be shown in the sheet.
        trimaps: folder of trimaps whose grey is the unknown band; by default the band is made from
            the true alphas.
        groups: CSV file with the columns `name` and `group`.
        model: the model, as in `kmatting.Matter`; by default the one that kmatting ships.
        size: as in `kmatting.Matter`.
        threads: as in `kmatting.Matter`.
        quality: as in `kmatting.Matter`.
        recursive: whether to search the folders in the folders too.
        band: pixels by which semi-transparent pixels and borders of the true alpha are dilated to
            make the unknown band.
        resize_predictions: whether predictions of another size are resized to that of the true
            alpha, or refused.
        output: folder for `report.json`, `report.csv` and `sheet.png`; by default none is written.
        workers: number of images scored at a time.

    Returns:
        What `report.json` holds: among others "mean", the metrics by name (with "_unknown" over
        the unknown band), "groups" with the same for each group, "per_image", "failed" (the reason
        by name) and "internal_errors", the number of images that failed by a bug of kmatting.

    Raises:
        UsageError: if the arguments do not go together, or the folders do not match.
        ImageError: if files are missing or cannot be used, which the message lists, or if no image
            can be scored.
        ModelError: if the model cannot be loaded.
        OSError: if the report cannot be written.

    Examples:
        >>> report = evaluate(("photos", "mattes"), model="runs/mine/best.keras")
        >>> report["mean"]["mad"]
    """
    of_model = model or size or threads or quality != "fast"
    _check_options(data, predictions, alphas, images, of_model)
    _check_output(output)
    photos, truths = data or (images, alphas)
    chosen = {"alpha": truths, "prediction": predictions, "image": photos, "trimap": trimaps}
    folders = {kind: Path(folder) for kind, folder in chosen.items() if folder is not None}
    cases = find_cases(folders, recursive)
    if groups is not None:
        cases = group_cases(cases, Path(groups))
    predict = _read_prediction if data is None else _model(model, size, threads, quality)
    check_files(cases, folders, resize_predictions, workers)

    scored, failed, bugs = _score(cases, predict, band, workers)
    rows = [row for _, row in scored]
    if not rows:
        raise bugs.first or ImageError("no image could be scored.")
    report = make_report(
        rows,
        failed,
        bugs.count,
        predictions=_source(predictions or model, size, quality),
        alphas=str(truths),
        unknown=f"grey pixels of the trimaps in {trimaps}" if trimaps else _band(band),
        resized=resize_predictions,
    )
    if output is not None:
        _write(Path(output), report)
        sheet = draw_sheet([case for case, _ in scored], rows, predict)
        write_image(Path(output) / "sheet.png", sheet)
    return report


def evaluate_video(
    prediction: StrPath,
    truth: StrPath,
    *,
    band: int = BAND_WIDTH,
    resize_predictions: bool = False,
    output: StrPath | None = None,
) -> dict[str, Any]:
    """Scores each frame of a video, and its flicker, as `kmatting evaluate --video` does.

    Args:
        prediction: a video of mattes, in grey or with transparency, or a folder of its frames.
        truth: likewise, the true one.
        band: as in `evaluate`.
        resize_predictions: as in `evaluate`.
        output: folder for `report.json` and `report.csv`; by default none is written.

    Returns:
        As `evaluate`; "mean" has "dtssd" besides.

    Raises:
        VideoError: if a video cannot be read, or the two differ in their size or length.
        ImageError: if a file of a folder cannot be read.
        OSError: if the report cannot be written.
    """
    from kmatting.video.scoring import score_video

    _check_output(output)
    frames = score_video(Path(prediction), Path(truth), band, resize_predictions)
    rows = list(progress(frames, None, "frame", "scoring"))
    report = make_report(
        rows,
        predictions=str(prediction),
        alphas=str(truth),
        unknown=_band(band),
        is_video=True,
        resized=resize_predictions,
    )
    if output is not None:
        _write(Path(output), report)
    return report


def _score(
    cases: Sequence[Case], predict: Predict, band: int, workers: int
) -> tuple[list[tuple[Case, dict[str, Any]]], dict[str, str], BugCounter]:
    """Scores the cases; returns those that were scored with their figures, and why others not."""

    def work(case: Case) -> dict[str, Any] | Exception:
        return attempt(score_case, case, predict, band)

    scored, failed, bugs = [], {}, BugCounter()
    outcomes = progress(map_ordered(work, cases, workers), len(cases), "image", "scoring")
    for case, outcome in zip(cases, outcomes, strict=True):
        problem = bugs.problem(outcome)
        if problem is not None:
            failed[case.name] = problem
            complain(f"error: {case.name}: {problem}")
        elif not isinstance(outcome, Exception):
            scored.append((case, outcome))
    return scored, failed, bugs


def _model(
    path: StrPath | None, size: Size | None, threads: int | None, quality: Quality
) -> Predict:
    """Returns a function that predicts the alpha of a case with a model."""
    # Imported here, since scoring files needs no network.
    from kmatting.inference.matter import Matter

    with quiet():
        matter = Matter(path, size=size, threads=threads, quality=quality)

    def predict(case: Case) -> np.ndarray:
        assert case.image is not None
        return to_levels(matter(case.image).alpha)

    return predict


def _read_prediction(case: Case) -> np.ndarray:
    assert case.prediction is not None
    return read_alpha(case.prediction, exact=True)


def _source(source: StrPath | None, size: Size | None, quality: Quality) -> str:
    at = f" at size {size_text(size)}" if size else ""
    return f"{source or 'the shipped model'}{at}" + (
        "" if quality == "fast" else f", quality {quality}"
    )


def _band(width: int) -> str:
    return f"semi-transparent pixels and borders of the true alpha, dilated by {width} px (square)"


def _write(folder: Path, report: dict[str, Any]) -> None:
    write_json(folder / "report.json", report)
    write_csv(folder / "report.csv", report["per_image"])


def _check_output(output: StrPath | None) -> None:
    if output is not None:
        check_folder(Path(output), "--output")
        check_writable(Path(output))


def _check_options(data: Any, predictions: Any, alphas: Any, images: Any, of_model: Any) -> None:
    """Checks that either a model or files are scored."""
    if (data is None) == (predictions is None):
        raise UsageError("give either --data IMAGES ALPHAS, or --predictions with --alphas.")
    if data is not None and (alphas is not None or images is not None):
        raise UsageError("--data names the alphas and images; leave out --alphas and --images.")
    if predictions is not None and (alphas is None or of_model):
        raise UsageError(
            "--predictions needs --alphas, and no --model, --size, --threads or --quality."
        )
