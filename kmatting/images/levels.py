"""Scales numbers of any depth to levels from 0 to 255."""

from collections.abc import Iterator, Sequence

import numpy as np

_OVERSHOOT = 1.25  # of floats above their white, by resampling
_HIGHLIGHT = 16.0  # of floats with fractions: as bright as their highlights are
_STRIP = 2**18  # numbers that are worked on at a time, so that a large photo needs little memory

# A level of 16 bits, rounded to 8.
ROUNDED = np.rint(np.arange(2**16) / 257).astype(np.uint8)


def strips(height: int, width: int) -> Iterator[slice]:
    """Divides rows of `width` numbers into strips; yields their rows."""
    rows = max(1, _STRIP // max(1, width))
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


def to_eight_bits(values: np.ndarray, whites: Sequence[int]) -> np.ndarray:
    """Scales levels to 8 bits and rounds them.

    Args:
        values: (H, W) of integers or floats.
        whites: usual numbers for white, in ascending order.

    Returns:
        uint8 array (H, W). White is the first of `whites` that no value exceeds.
    """
    white = _white(values, whites)
    if values.dtype == np.uint8 and white == 255:
        return values
    levels = np.empty(values.shape, np.uint8)
    for rows in strips(*values.shape):
        strip = np.nan_to_num(values[rows].astype(np.float64), posinf=np.inf)
        levels[rows] = np.rint(strip.clip(0, white) / white * 255)
    return levels


def photo_whites(dtype: np.dtype) -> tuple[int, ...]:
    """Returns the levels that may be white in a grey photo of a dtype, in ascending order."""
    if dtype == np.uint16:
        return (65535,)
    return (1, 255, 65535, 2**32 - 1) if dtype.kind == "f" else (255, 65535, 2**32 - 1)


def matte_whites(dtype: np.dtype, exact: bool) -> tuple[int, ...]:
    """Returns the levels that may be foreground in a matte of a dtype, in ascending order."""
    if dtype == np.uint8:
        return (255,) if exact else (1, 255)
    if dtype == np.uint16:
        return (65535,) if exact else (1, 255, 65535)
    return (255, 65535, 2**32 - 1) if exact and dtype.kind != "f" else (1, 255, 65535, 2**32 - 1)


def _white(values: np.ndarray, whites: Sequence[int]) -> float:
    """Chooses the number that stands for white, in a file that does not say it."""
    if values.dtype.kind != "f":
        peak, tolerance = float(values.max(initial=0)), 1.0
    else:
        peak, fractions = _float_peak(values)
        if peak < _HIGHLIGHT and fractions:  # they count to 1
            return 1
        tolerance = _OVERSHOOT
    return next((white for white in whites if peak <= tolerance * white), peak)


def _float_peak(values: np.ndarray) -> tuple[float, bool]:
    """Returns the highest finite value, at least 0, and whether any has a fraction."""
    peak, fractions = 0.0, False
    for rows in strips(*values.shape):
        finite = values[rows][np.isfinite(values[rows])]
        peak = max(peak, float(finite.max(initial=0)))
        fractions = fractions or bool((finite % 1).any())
    return peak, fractions
