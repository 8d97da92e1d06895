"""The thin parts of a matte: legs, spokes, cords, stems, single hairs."""

import numpy as np

from kmatting.images.regions import over_squares

__all__ = ["THIN", "thin_parts"]

THIN = 0.02  # of the long side; what is narrower is thin


def thin_parts(opaque: np.ndarray) -> np.ndarray:
    """Finds the parts that are narrower than about `THIN` of the long side.

    Those are what a morphological opening with an upright square removes. The square is wider
    from corner to corner: diagonal parts are thin up to about 2.8 % of the long side. What touches
    the border of the picture goes on beyond it.

    Corners of solid shapes count, too, where no upright square fits into them: the right angles of
    a diamond with `reach * (reach + 1)` pixels each, 120 for all four at 512x512. So a shape
    without thin parts may have a few such pixels. Upright rectangles and discs have none.

    Args:
        opaque: bool array (H, W).

    Returns:
        bool array (H, W).
    """
    reach = max(1, round(THIN / 2 * max(opaque.shape)))
    core = over_squares(opaque, reach, np.logical_and)
    return opaque & ~over_squares(core, reach, np.logical_or)
