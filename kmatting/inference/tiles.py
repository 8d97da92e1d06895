"""Large photos piece by piece, so that intermediate results in floats stay small."""

from collections.abc import Iterator

import numpy as np
from PIL import Image


def tiles(height: int, width: int, side: int = 1024) -> Iterator[tuple[slice, slice]]:
    """Cuts an area into tiles.

    Args:
        height: rows of the area.
        width: columns of the area.
        side: pixels a tile measures at most each way.

    Yields:
        The rows and the columns of each tile.
    """
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield slice(top, min(top + side, height)), slice(left, min(left + side, width))


def covered(
    small: tuple[int, ...], large: tuple[int, ...], rows: slice, columns: slice
) -> tuple[float, float, float, float]:
    """Says which part of a small picture a tile of the large one shows.

    Args:
        small: height and width of the small picture.
        large: height and width of the large one.
        rows: of the tile.
        columns: of the tile.

    Returns:
        Left, upper, right and lower border in pixels of the small picture.
    """
    down, across = small[0] / large[0], small[1] / large[1]
    # Rounding must not lead out of the picture.
    right, lower = min(columns.stop * across, small[1]), min(rows.stop * down, small[0])
    return columns.start * across, rows.start * down, right, lower


def enlarge_tile(
    small: np.ndarray, large: tuple[int, ...], rows: slice, columns: slice
) -> np.ndarray:
    """Computes one tile of a picture's bilinear enlargement.

    Args:
        small: array (h, w) of float32, or (h, w, 3) of uint8.
        large: height and width of the whole enlargement.
        rows: of the tile.
        columns: of the tile.

    Returns:
        Array of the same dtype; the same numbers as in the whole enlargement, without seams.
    """
    size = (columns.stop - columns.start, rows.stop - rows.start)
    box = covered(small.shape, large, rows, columns)
    return np.array(Image.fromarray(small).resize(size, Image.Resampling.BILINEAR, box=box))
