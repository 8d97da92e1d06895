"""Compares an exported model with the Keras model, and times it."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_RUNS = 5


@dataclass(frozen=True)
class Parity:
    """How an exported model compares with the Keras model.

    Attributes:
        mean: mean absolute difference of the alphas over all photos.
        largest: largest absolute difference.
        milliseconds: median time of a photo.
    """

    mean: float
    largest: float
    milliseconds: float


def compare(
    run: Callable[[np.ndarray], np.ndarray],
    photos: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
) -> Parity:
    """Compares the alphas of an exported model with those of the Keras model.

    Args:
        run: function from a uint8 batch (1, H, W, 3) to the model's alpha, float32 (1, H, W, 1).
        photos: uint8 arrays (H, W, 3), at least one. Their sizes may differ.
        expected: the Keras model's alphas of these photos, float32 (1, H, W, 1) in [0, 1].

    Returns:
        The `Parity`.
    """
    differences = [
        np.abs(run(photo[None]) - alpha) for photo, alpha in zip(photos, expected, strict=True)
    ]
    return Parity(
        mean=float(np.mean([difference.mean() for difference in differences])),
        largest=float(max(difference.max() for difference in differences)),
        milliseconds=milliseconds(lambda: run(photos[0][None])),
    )


def milliseconds(run: Callable[[], Any]) -> float:
    """Measures the time of a call.

    Args:
        run: the call.

    Returns:
        The median of five calls, after one that does not count.
    """
    run()
    times = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000
