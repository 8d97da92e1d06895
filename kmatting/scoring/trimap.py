"""The unknown band of a trimap: where a matte is neither plainly foreground nor background."""

import numpy as np

from kmatting.errors import UsageError
from kmatting.images.regions import over_squares
from kmatting.scoring.levels import to_levels

__all__ = ["BAND_WIDTH", "unknown_band", "unknown_of_trimap"]

BAND_WIDTH = 10  # dilation of the unknown band of a true alpha, in pixels


def unknown_band(truth: np.ndarray, width: int = BAND_WIDTH) -> np.ndarray:
    """Computes the unknown band of a trimap from a true alpha.

    A pixel is unknown if the square of side 2 * width + 1 around it holds both a pixel that is not
    fully foreground and one that is not fully background. These are the semi-transparent pixels and
    the borders between foreground and background, dilated by `width`.

    Args:
        truth: true alpha, (H, W), uint8 or float in [0, 1].
        width: pixels, 0 or more.

    Returns:
        bool array (H, W).

    Raises:
        ValueError: if the alpha has a wrong shape, dtype or range, or the width is negative.
    """
    if width < 0:
        raise UsageError(f"Expected a band width of 0 or more pixels, received {width}.")
    levels = to_levels(truth)
    translucent, visible = levels < 255, levels > 0
    return over_squares(translucent, width, np.logical_or) & over_squares(
        visible, width, np.logical_or
    )


def unknown_of_trimap(trimap: np.ndarray) -> np.ndarray:
    """Finds the unknown pixels of a trimap.

    Args:
        trimap: uint8 array (H, W): 0 is background, 255 foreground, one grey level (usually 128)
            unknown.

    Returns:
        bool array (H, W), true where the trimap is grey.

    Raises:
        ValueError: if the trimap has several grey levels.
    """
    levels = to_levels(trimap)
    greys = np.flatnonzero(np.bincount(levels.ravel(), minlength=256)[1:255]) + 1
    if greys.size > 1:
        raise UsageError(
            "Expected a trimap of 0, one grey level (such as 128) and 255, received "
            f"{greys.size} grey levels between {greys[0]} and {greys[-1]}. "
            "Save trimaps as PNG, without smoothing."
        )
    return (levels > 0) & (levels < 255)
