"""The cases of `kmatting evaluate`: files matched by their stems, checked, read and scored."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from kmatting.ahead import map_ordered
from kmatting.errors import ImageError, UsageError
from kmatting.images import faint_set, image_suffixes, read_alpha, read_image, scan_folder
from kmatting.pictures.names import matte_stem
from kmatting.scoring.levels import resized
from kmatting.scoring.metrics import score, unknown_band, unknown_of_trimap
from kmatting.terminal import complain, progress

__all__ = [
    "Case",
    "Predict",
    "check_files",
    "find_cases",
    "group_cases",
    "read_mattes",
    "score_case",
]

_LISTED = 20  # names and problems printed at most, of each kind


@dataclass(frozen=True)
class Case:
    """The files of one image.

    Attributes:
        name: their common stem, after the folders below the given one.
        alpha: the true alpha.
        prediction: the predicted matte, or None if a model makes it from the image.
        image: the photo, or None.
        trimap: the trimap, or None if the unknown band is made from the true alpha.
        group: what it is counted with besides all others; "" if a list of groups leaves it out,
            None without such a list.
    """

    name: str
    alpha: Path
    prediction: Path | None = None
    image: Path | None = None
    trimap: Path | None = None
    group: str | None = None


Predict = Callable[[Case], np.ndarray]  # gets the prediction of a case, uint8 (H, W)


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
        complain(f"note: {note}")

    def other(kind: str, stem: str) -> Path | None:
        return found.get(kind, {}).get(stem)

    return [
        Case(
            stem,
            stems[stem],
            other("prediction", stem),
            other("image", stem),
            other("trimap", stem),
        )
        for stem in sorted(stems)
    ]


def group_cases(cases: Sequence[Case], path: Path) -> list[Case]:
    """Reads the groups of cases from a list.

    Args:
        cases: the cases.
        path: CSV file with the columns `name` (as in `Case`, or with a suffix) and `group`.

    Returns:
        The cases with their groups; those that the list does not name are in none, with a note on
        standard error.

    Raises:
        UsageError: if the file cannot be read, lacks a column, or gives a name two groups.
    """
    groups = _read_groups(path)
    grouped = [replace(case, group=groups.pop(case.name, "")) for case in cases]
    without = [case.name for case in grouped if not case.group]
    if without:
        complain(f"note: {path}: no group for {len(without)} images: {_listed(without)}")
    if groups:
        complain(f"note: {path}: {len(groups)} without an alpha: {_listed(sorted(groups))}")
    return grouped


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
    checked = map_ordered(lambda case: _check_case(case, resize), cases, workers)
    found = list(progress(checked, len(cases), "image", "checking", brief=True))
    problems = [problem for of_case, _ in found for problem in of_case]
    for kind in ("alpha", "prediction"):
        peak = max((peaks[kind] for _, peaks in found if kind in peaks), default=None)
        message = None if peak is None else faint_set(str(folders[kind]), peak)
        if message and peak:
            problems.append(message)
        elif message:  # photos without a subject, or a model that found none
            complain(f"warning: {message}")
    if problems:
        lines = [f"{len(problems)} problems, nothing scored.", *problems[:_LISTED]]
        if len(problems) > _LISTED:
            lines.append(f"... and {len(problems) - _LISTED} more")
        raise ImageError("\n  ".join(lines) if len(problems) > 1 else problems[0])


def score_case(case: Case, predict: Predict, band: int) -> dict[str, Any]:
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
        **({} if case.group is None else {"group": case.group}),
        "height": truth.shape[0],
        "width": truth.shape[1],
        "unknown_share": float(unknown.mean()),
        **score(truth, prediction, unknown),
    }


def read_mattes(case: Case, predict: Predict) -> tuple[np.ndarray, np.ndarray]:
    """Gets the true and the predicted alpha, both uint8 (H, W) at the size of the true one."""
    truth, prediction = read_alpha(case.alpha), predict(case)
    if prediction.shape != truth.shape:  # with --resize-predictions, else refused before
        prediction = resized(prediction, truth.shape)
    return truth, prediction


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
        except UsageError as error:
            problems.append(f"{case.trimap}: {error}")
    mattes = {kind: pixels[kind] for kind in ("alpha", "prediction") if kind in pixels}
    return problems, {kind: int(matte.max()) for kind, matte in mattes.items()}


def _read_groups(path: Path) -> dict[str, str]:
    """Reads the group of each name, without its suffix."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            table = csv.DictReader(lines, strict=True)
            columns = table.fieldnames or ()
            rows = [(row.get("name") or "", row.get("group") or "") for row in table]
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}.") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a CSV file in UTF-8: {error}.") from error
    if not {"name", "group"} <= set(columns):
        received = ", ".join(columns) or "nothing"
        raise UsageError(f"{path}: expected columns name and group, received {received}.")
    groups: dict[str, str] = {}
    for name, group in rows:
        file = PurePath(name)
        is_file = file.suffix.lower() in image_suffixes()
        stem = file.with_name(matte_stem(file)).as_posix() if is_file else name
        if groups.setdefault(stem, group) != group:
            raise UsageError(f"{path}: {name} is in two groups, {groups[stem]} and {group}.")
    return groups


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
