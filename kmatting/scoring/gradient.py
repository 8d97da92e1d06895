"""The gradient error: how well the positions and the sharpness of edges agree."""

import numpy as np

__all__ = ["SIGMA", "gradient_map"]

SIGMA = 1.4  # of the Gaussian, in pixels

_TILE = 128  # pixels, side of the squares filtered at a time: they fit into the processor's cache


def gradient_map(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Squared differences of the gradient magnitudes, float32 (H, W)."""
    # The radius is where the Gaussian falls under 0.01. The kernel is the outer product of a
    # Gaussian and its derivative: normalising each normalises the product.
    radius = int(np.ceil(SIGMA * np.sqrt(-2 * np.log(np.sqrt(2 * np.pi) * SIGMA * 0.01))))
    offsets = np.arange(-radius, radius + 1, dtype=np.float64)
    smooth = np.exp(-(offsets**2) / (2 * SIGMA**2))
    derive = offsets * smooth
    smooth /= np.linalg.norm(smooth)
    derive /= np.linalg.norm(derive)

    padded = [np.pad(levels, radius, mode="edge") for levels in (truth, prediction)]
    errors = np.zeros(truth.shape, np.float32)
    for top in range(0, truth.shape[0], _TILE):
        for left in range(0, truth.shape[1], _TILE):
            rows = slice(top, top + _TILE + 2 * radius)
            columns = slice(left, left + _TILE + 2 * radius)
            true, predicted = (levels[rows, columns] for levels in padded)
            if np.array_equal(true, predicted):  # true of most of a usual photo
                continue
            magnitudes = [_gradient_magnitude(tile, smooth, derive) for tile in (true, predicted)]
            errors[top : top + _TILE, left : left + _TILE] = np.square(
                magnitudes[0] - magnitudes[1]
            )
    return errors


def _gradient_magnitude(levels: np.ndarray, smooth: np.ndarray, derive: np.ndarray) -> np.ndarray:
    alpha = levels / 255
    gradient_x = _correlated(_correlated(alpha, smooth, 0), derive, 1)
    gradient_y = _correlated(_correlated(alpha, derive, 0), smooth, 1)
    return np.sqrt(np.square(gradient_x) + np.square(gradient_y))


def _correlated(values: np.ndarray, kernel: np.ndarray, axis: int) -> np.ndarray:
    """Correlates along an axis, without padding."""
    if axis == 1:
        return _correlated(values.T, kernel, 0).T
    size = len(values) - len(kernel) + 1
    total = kernel[0] * values[:size]
    for start, weight in enumerate(kernel[1:], start=1):
        total += weight * values[start : start + size]
    return total
