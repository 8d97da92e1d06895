"""Scores a video of mattes against the truth, frame by frame."""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kmatting.errors import VideoError
from kmatting.scoring.metrics import dtssd, score, unknown_band
from kmatting.video.read import read_mattes


def score_video(
    prediction: Path, truth: Path, band: int, resize: bool = False
) -> Iterator[dict[str, Any]]:
    """Scores a video.

    Args:
        prediction: video or folder of predicted mattes, as in `read_mattes`.
        truth: video or folder of true alphas.
        band: width of the unknown band in pixels.
        resize: whether predictions of another size are resized to that of the truth, or refused.

    Yields:
        For each frame its name, height, width, share of unknown pixels, the figures of
        `kmatting.scoring.metrics.score`, and "dtssd" and "dtssd_unknown", which are NaN in the
        first frame.

    Raises:
        VideoError: if a video cannot be read, or the two differ in their size or number of frames.
        ImageError: if a file of a folder cannot be read.
    """
    before: tuple[np.ndarray, np.ndarray] | None = None
    pairs = zip_longest(read_mattes(prediction), read_mattes(truth))
    for number, (predicted, true) in enumerate(pairs):
        if predicted is None or true is None:
            shorter, longer = (prediction, truth) if predicted is None else (truth, prediction)
            raise VideoError(f"{shorter}: has {number} frames, but {longer} has more.")
        if predicted.shape != true.shape:
            predicted = _resized(predicted, true.shape, prediction, resize)
        unknown = unknown_band(true, band)
        row = {
            "name": f"frame {number}",
            "height": true.shape[0],
            "width": true.shape[1],
            "unknown_share": float(unknown.mean()),
            **score(true, predicted, unknown),
        }
        for suffix, region in (("", None), ("_unknown", unknown)):
            figure = float("nan") if before is None else dtssd(true, predicted, *before, region)
            row[f"dtssd{suffix}"] = figure
        yield row
        before = true, predicted


def _resized(predicted: np.ndarray, shape: tuple[int, ...], path: Path, resize: bool) -> np.ndarray:
    if not resize:
        raise VideoError(
            f"{path}: is {predicted.shape[1]}x{predicted.shape[0]}, but the truth is "
            f"{shape[1]}x{shape[0]}; predict at that size, or pass --resize-predictions."
        )
    image = Image.fromarray(predicted).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(image)
