"""Parts of a picture: connected ones, and what lies around a pixel."""

import numpy as np


def largest_component(filled: np.ndarray) -> np.ndarray:
    """Finds the largest 4-connected component; of components of equal size, the first by column.

    Works on horizontal runs of filled pixels: runs that touch from one row to the next are joined,
    all at once, until each points to the first run of its component.

    Args:
        filled: bool array (H, W).

    Returns:
        bool array (H, W), all false if nothing is filled.
    """
    height, width = filled.shape
    stride = width + 1  # an empty column at the end of each row, so that no run spans two rows
    flat = np.zeros(height * stride + 1, np.bool_)
    flat[1:].reshape(height, stride)[:, :width] = filled
    borders = np.flatnonzero(flat[1:] != flat[:-1])
    starts, ends = borders[0::2], borders[1::2]
    if not starts.size:
        return np.zeros(filled.shape, np.bool_)

    component = _joined(*_touching(starts, ends, stride), runs=starts.size)
    sizes = np.bincount(component, weights=ends - starts)
    largest = np.isin(component, np.flatnonzero(sizes == sizes.max()))
    column_order = starts[largest] % stride * height + starts[largest] // stride
    chosen = component == component[largest][np.argmin(column_order)]

    steps = np.zeros(height * stride, np.int8)
    steps[starts[chosen]] = 1
    steps[ends[chosen]] = -1
    return np.cumsum(steps, dtype=np.int8).view(np.bool_).reshape(height, stride)[:, :width]


def _touching(starts: np.ndarray, ends: np.ndarray, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs each run with those of the next row that overlap it; returns both runs' numbers."""
    first = np.searchsorted(ends, starts + stride, side="right")
    counts = np.searchsorted(starts, ends + stride, side="left") - first
    upper = np.repeat(np.arange(starts.size), counts)
    position_in_group = np.arange(upper.size) - np.repeat(np.cumsum(counts) - counts, counts)
    return upper, np.repeat(first, counts) + position_in_group


def _joined(upper: np.ndarray, lower: np.ndarray, runs: int) -> np.ndarray:
    """Gives each run the lowest number of the runs it is connected to through pairs."""
    root = np.arange(runs)
    while True:
        upper, lower = root[upper], root[lower]
        apart = upper != lower
        if not apart.any():
            return root
        upper, lower = upper[apart], lower[apart]
        root[np.maximum(upper, lower)] = np.minimum(upper, lower)
        while not np.array_equal(root, higher := root[root]):
            root = higher


def over_squares(values: np.ndarray, reach: int, choose: np.ufunc) -> np.ndarray:
    """Takes the least or the greatest value of the square around each pixel.

    Args:
        values: array (H, W).
        reach: the square has a side of 2 * reach + 1 pixels.
        choose: `np.minimum` or `np.maximum`; `np.logical_and` or `np.logical_or` for a mask.

    Returns:
        Array of the same shape and dtype.
    """
    for _axis in range(2):
        done = 0
        while done < min(reach, len(values)):
            shift = min(done + 1, reach - done)  # leaves no gap between the copies
            chosen = values.copy()
            choose(chosen[shift:], values[:-shift], out=chosen[shift:])
            choose(chosen[:-shift], values[shift:], out=chosen[:-shift])
            values, done = chosen, done + shift
        values = values.T
    return values
