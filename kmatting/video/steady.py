"""Takes flicker out of the mattes of a video."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

from kmatting.inference.second_look import resized

Key = TypeVar("Key")


def steadied(mattes: Iterable[tuple[Key, np.ndarray]]) -> Iterator[tuple[Key, np.ndarray]]:
    """Replaces each matte by the median of it and its two neighbours in time, pixel by pixel.

    What flares up or drops out for one frame vanishes. An edge that moves on is left where it is,
    which a moving average would blur. The first and the last matte stay as they are. Each matte
    comes out when the next one has come in.

    Args:
        mattes: pairs of anything, such as a frame, and its matte, a float32 array (h, w). Second
            looks have sizes of their own; the neighbours are brought to the size of each.

    Yields:
        The pairs, in order, with the steadied mattes.
    """
    before: np.ndarray | None = None
    current: tuple[Key, np.ndarray] | None = None
    for key, matte in mattes:
        if current is not None:
            yield current[0], current[1] if before is None else _median(before, current[1], matte)
            before = current[1]
        current = key, matte
    if current is not None:
        yield current


def _median(first: np.ndarray, second: np.ndarray, third: np.ndarray) -> np.ndarray:
    if not first.shape == second.shape == third.shape:
        first, third = resized(first, second.shape), resized(third, second.shape)
    lower, higher = np.minimum(first, second), np.maximum(first, second)
    return np.maximum(lower, np.minimum(higher, third))
