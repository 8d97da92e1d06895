"""The thin parts of a matte: legs, spokes, cords, stems, single hairs."""

import numpy as np

from kmatting.images.regions import over_squares

__all__ = ["THIN", "thin_parts"]

THIN = 0.02  # of the long side; what is narrower is thin


def thin_parts(opaque: np.ndarray) -> np.ndarray:
    """Finds the parts that are narrower than `THIN` of the long side in height or in width.

    Those are what a morphological opening with a square removes. What touches the border of the
    picture goes on beyond it.

    Args:
        opaque: bool array (H, W).

    Returns:
        bool array (H, W).
    """
    reach = max(1, round(THIN / 2 * max(opaque.shape)))
    core = over_squares(opaque, reach, np.logical_and)
    return opaque & ~over_squares(core, reach, np.logical_or)
