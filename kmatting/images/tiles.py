"""Works on large photos tile by tile, so that intermediate float arrays stay small."""

from collections.abc import Iterator

import numpy as np
from PIL import Image


def tiles(height: int, width: int, side: int = 1024) -> Iterator[tuple[slice, slice]]:
    """Cuts an array into tiles.

    Args:
        height: number of rows.
        width: number of columns.
        side: largest height and width of a tile, in pixels.

    Yields:
        The rows and the columns of each tile.
    """
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield slice(top, min(top + side, height)), slice(left, min(left + side, width))


def source_box(
    small: tuple[int, ...], large: tuple[int, ...], rows: slice, columns: slice
) -> tuple[float, float, float, float]:
    """Finds the box of a small image that a tile of the large image shows.

    Args:
        small: height and width of the small image.
        large: height and width of the large image.
        rows: rows of the tile.
        columns: columns of the tile.

    Returns:
        Left, upper, right and lower border, in pixels of the small image.
    """
    y_scale, x_scale = small[0] / large[0], small[1] / large[1]
    # Rounding must not lead out of the image.
    right, lower = min(columns.stop * x_scale, small[1]), min(rows.stop * y_scale, small[0])
    return columns.start * x_scale, rows.start * y_scale, right, lower


def enlarge_tile(
    small: np.ndarray, large: tuple[int, ...], rows: slice, columns: slice
) -> np.ndarray:
    """Computes one tile of an image's bilinear enlargement.

    Args:
        small: float32 array (h, w), or uint8 array (h, w, 3).
        large: height and width of the whole enlargement.
        rows: rows of the tile.
        columns: columns of the tile.

    Returns:
        Array of the same dtype. The values are those of the whole enlargement, without seams.
    """
    size = (columns.stop - columns.start, rows.stop - rows.start)
    box = source_box(small.shape, large, rows, columns)
    return np.array(Image.fromarray(small).resize(size, Image.Resampling.BILINEAR, box=box))


class Interpolation:
    """Bilinear interpolation along one axis: a part of the enlargement of a small array.

    Args:
        small: length of the small array.
        large: length of its whole enlargement.
        part: the part of the enlargement that is wanted.

    Attributes:
        source: the part of the small array that it takes.
    """

    def __init__(self, small: int, large: int, part: slice) -> None:
        centres = (np.arange(part.start, part.stop) + 0.5) * (small / large) - 0.5
        centres = centres.clip(0, small - 1)
        before = centres.astype(np.intp)
        after = np.minimum(before + 1, small - 1)
        self.source = slice(int(before[0]), int(after[-1]) + 1)
        self._before, self._after = before - before[0], after - before[0]
        self._share = (centres - before).astype(np.float32)

    def __call__(self, values: np.ndarray, axis: int) -> np.ndarray:
        """Interpolates.

        Args:
            values: float32 array whose length along the axis is that of `source`.
            axis: the axis.

        Returns:
            float32 array. The values are those of the whole enlargement, without seams.
        """
        share = self._share.reshape([-1 if each == axis else 1 for each in range(values.ndim)])
        before, after = values.take(self._before, axis), values.take(self._after, axis)
        after -= before
        after *= share
        after += before
        return after
