"""Mattes as the metrics see them: 8-bit levels, compared as integers over a region."""

import numpy as np
from PIL import Image

from kmatting.errors import UsageError

__all__ = ["as_pair", "checked_region", "mean", "resized", "to_levels", "total"]


def to_levels(alpha: np.ndarray) -> np.ndarray:
    """Converts an alpha to 8-bit levels.

    Args:
        alpha: array (H, W), uint8 or float in [0, 1].

    Returns:
        uint8 array (H, W): the input itself if it is uint8, else rounded to the nearest level.

    Raises:
        ValueError: if the alpha has a wrong shape, dtype or range.
    """
    alpha = np.asarray(alpha)
    if alpha.ndim != 2 or alpha.size == 0:
        raise UsageError(f"Expected an alpha of shape (H, W), received shape {alpha.shape}.")
    if alpha.dtype == np.uint8:
        return alpha
    if not np.issubdtype(alpha.dtype, np.floating):
        raise UsageError(f"Expected an alpha of dtype uint8 or float, received {alpha.dtype}.")
    low, high = float(alpha.min()), float(alpha.max())
    if not (low >= 0 and high <= 1):  # also catches NaN
        raise UsageError(f"Expected a float alpha in [0, 1], received values in [{low}, {high}].")
    return np.rint(alpha.astype(np.float32) * 255).astype(np.uint8)


def resized(matte: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resizes a matte, uint8, to (H, W), bilinearly."""
    image = Image.fromarray(matte).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(image)


def as_pair(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Checks two mattes of one shape; returns their levels."""
    truth, prediction = to_levels(truth), to_levels(prediction)
    if truth.shape != prediction.shape:
        raise UsageError(
            f"Expected two alphas of one shape, received {truth.shape} and {prediction.shape}. "
            "Bring the prediction to the size of the truth first."
        )
    return truth, prediction


def checked_region(region: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a region after checking that it is a mask of a shape."""
    if region.shape != shape or region.dtype != np.bool_:
        raise UsageError(
            f"Expected a region of dtype bool and shape {shape}, "
            f"received {region.dtype} of shape {region.shape}."
        )
    return region


def total(values: np.ndarray, region: np.ndarray | None) -> float:
    """Sums over a region, in float64, which is exact for the integers used here."""
    if region is not None:
        values = values[checked_region(region, values.shape)]
    return float(values.sum(dtype=np.float64))


def mean(values: np.ndarray, region: np.ndarray | None) -> float:
    """Averages over a region; NaN if it has no pixels."""
    summed = total(values, region)
    pixels = values.size if region is None else np.count_nonzero(region)
    return summed / pixels if pixels else float("nan")
