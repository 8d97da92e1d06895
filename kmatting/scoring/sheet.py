"""The sheet of `kmatting evaluate`: the worst, median and best cases beside the truth."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from kmatting.images import read_image
from kmatting.images.panel import draw_panel
from kmatting.scoring.cases import Case, read_mattes
from kmatting.scoring.metrics import METRICS

__all__ = ["draw_sheet"]

_RANKED_BY = "mad"
_ROWS = 3  # each of the worst, median and best
_CELL = 320  # pixels


def draw_sheet(
    cases: Sequence[Case], rows: Sequence[dict[str, Any]], predict: Callable[[Case], np.ndarray]
) -> np.ndarray:
    """Draws the worst, median and best cases by MAD, side by side with the truth.

    Returns:
        uint8 array (H, W, 3).
    """
    ranking = sorted(range(len(rows)), key=lambda index: -rows[index][_RANKED_BY])
    pictures, captions = [], []
    for rank in _shown_ranks(len(ranking)):
        case, row = cases[ranking[rank]], rows[ranking[rank]]
        truth, prediction = read_mattes(case, predict)
        shown = [truth, prediction, _difference_picture(truth, prediction)]
        if case.image is not None:
            shown.insert(0, read_image(case.image))
        pictures.append([_shrunk(picture) for picture in shown])
        captions.append("  ".join([_place(rank, len(rows)), case.name, *_figures(row)]))
    columns = ["true alpha", "prediction", "difference (red: too much, blue: too little)"]
    if cases[0].image is not None:
        columns.insert(0, "image")
    return draw_panel(pictures, columns, captions, cell=_CELL)


def _figures(row: dict[str, Any]) -> list[str]:
    """Writes the metrics of a case, first the one that cases are ranked by."""
    ordered = sorted(METRICS, key=lambda metric: metric.name != _RANKED_BY)
    known = [metric for metric in ordered if not math.isnan(row[metric.name])]
    return [f"{metric.caption} {row[metric.name]:.{metric.decimals}f}" for metric in known]


def _shown_ranks(count: int) -> list[int]:
    """Picks the first, middle and last ranks; all, if there are no more than that."""
    if count <= 3 * _ROWS:
        return list(range(count))
    middle = (count - _ROWS) // 2
    starts = (0, middle, count - _ROWS)
    return [start + offset for start in starts for offset in range(_ROWS)]


def _place(rank: int, count: int) -> str:
    names = {0: "worst", (count - 1) // 2: "median", count - 1: "best"}
    name = names.get(rank)
    return f"{rank + 1} of {count}" + (f" ({name})" if name else "")


def _shrunk(pixels: np.ndarray) -> np.ndarray:
    image = Image.fromarray(pixels)
    image.thumbnail((_CELL, _CELL), Image.Resampling.BOX)
    return np.asarray(image)


def _difference_picture(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """White where both agree, red where the prediction has too much, blue where too little."""
    too_much = prediction - np.minimum(truth, prediction)
    too_little = truth - np.minimum(truth, prediction)
    return 255 - np.stack([too_little, too_little + too_much, too_much], axis=-1)
