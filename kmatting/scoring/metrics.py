"""Metrics that compare a matte with the truth, as matting papers report them.

SAD, MSE, MAD, gradient error and connectivity error follow Rhemann et al., "A Perceptually
Motivated Online Benchmark for Image Matting" (CVPR 2009), with the constants and the scaling of the
MATLAB evaluation code of "Deep Image Matting" (Xu et al., CVPR 2017), whose numbers papers quote.

All functions take the truth first, then the prediction, both of one shape (H, W): uint8 levels, or
floats in [0, 1], which are rounded to 8 bits as a matte on disk is. They do not change their
inputs, and return exactly 0 (IoU: 1) for two equal mattes. Levels are compared as integers, so that
rounding errors of floats do not matter: an alpha of 153/255 is exactly 0.6. Nothing here imports
TensorFlow.

One step of the MATLAB code is left out. Its gradient error stretches each matte to the range from 0
to 1 (`mat2gray`), which the paper does not, and which would forgive a prediction that is too faint.
Mattes that reach both 0 and 1 score the same either way.
"""

import numpy as np

from kmatting.errors import UsageError
from kmatting.images.regions import largest_component

SIGMA = 1.4  # of the Gaussian in the gradient error, in pixels
BAND_WIDTH = 10  # dilation of the unknown band of a true alpha, in pixels

FIGURES = ("sad", "mse", "mad", "gradient", "connectivity", "iou")

_TILE = 128  # pixels, side of the squares filtered at a time: they fit into the processor's cache


def score(
    truth: np.ndarray, prediction: np.ndarray, unknown: np.ndarray | None = None
) -> dict[str, float]:
    """Computes all figures of one image at once.

    Args:
        truth: true alpha, (H, W), uint8 or float in [0, 1].
        prediction: predicted alpha of the same shape, uint8 or float in [0, 1].
        unknown: bool array (H, W), true in the unknown band of a trimap (`unknown_band`,
            `unknown_of_trimap`), or None.

    Returns:
        The `FIGURES` over the whole image, under their names; with `unknown` also those over the
        band, as "sad_unknown" and so on (NaN if the band has no pixels).

    Raises:
        ValueError: if an input has a wrong shape, dtype or range.
    """
    truth, prediction = _pair(truth, prediction)
    difference = _difference(truth, prediction)
    gradient = _gradient_map(truth, prediction)
    connectivity = _connectivity_map(truth, prediction)
    regions = {"": None} if unknown is None else {"": None, "_unknown": unknown}
    figures = {}
    for suffix, region in regions.items():
        if region is not None and not _checked_region(region, truth.shape).any():
            figures.update({name + suffix: float("nan") for name in FIGURES})
            continue
        figures[f"sad{suffix}"] = _total(difference, region) / 255 / 1000
        figures[f"mse{suffix}"] = _mean(_squared(difference), region) / 255**2
        figures[f"mad{suffix}"] = _mean(difference, region) / 255
        figures[f"gradient{suffix}"] = _total(gradient, region) / 1000
        figures[f"connectivity{suffix}"] = _total(connectivity, region) / 510 / 1000
        figures[f"iou{suffix}"] = iou(truth, prediction, region)
    return figures


def sad(truth: np.ndarray, prediction: np.ndarray, region: np.ndarray | None = None) -> float:
    """Sum of absolute differences, divided by 1000.

    Args:
        truth: true alpha, (H, W), uint8 or float in [0, 1].
        prediction: predicted alpha of the same shape, uint8 or float in [0, 1].
        region: bool array (H, W), where to look; None for the whole image.

    Returns:
        The sum of |prediction - truth|, alpha in [0, 1], in thousands of pixels.

    Raises:
        ValueError: if an input has a wrong shape, dtype or range.
    """
    return _total(_difference(*_pair(truth, prediction)), region) / 255 / 1000


def mse(truth: np.ndarray, prediction: np.ndarray, region: np.ndarray | None = None) -> float:
    """Mean of the squared differences over pixels, alpha in [0, 1].

    Args:
        truth: as in `sad`.
        prediction: as in `sad`.
        region: as in `sad`.

    Returns:
        The mean, in [0, 1]; NaN if the region has no pixels.

    Raises:
        ValueError: as in `sad`.
    """
    squared = _squared(_difference(*_pair(truth, prediction)))
    return _mean(squared, region) / 255**2


def mad(truth: np.ndarray, prediction: np.ndarray, region: np.ndarray | None = None) -> float:
    """Mean of the absolute differences over pixels, alpha in [0, 1].

    Args:
        truth: as in `sad`.
        prediction: as in `sad`.
        region: as in `sad`.

    Returns:
        The mean, in [0, 1]; NaN if the region has no pixels.

    Raises:
        ValueError: as in `sad`.
    """
    return _mean(_difference(*_pair(truth, prediction)), region) / 255


def gradient_error(
    truth: np.ndarray, prediction: np.ndarray, region: np.ndarray | None = None
) -> float:
    """Gradient error: compares the position and the sharpness of edges.

    Both mattes are convolved with the first derivatives of a Gaussian (sigma 1.4 pixels, a kernel
    of 9x9 with unit Frobenius norm, borders replicated). The error is the sum of the squared
    differences of the gradients' magnitudes, divided by 1000.

    Args:
        truth: as in `sad`.
        prediction: as in `sad`.
        region: as in `sad`.

    Returns:
        The error, 0 or more.

    Raises:
        ValueError: as in `sad`.
    """
    return _total(_gradient_map(*_pair(truth, prediction)), region) / 1000


def connectivity_error(
    truth: np.ndarray, prediction: np.ndarray, region: np.ndarray | None = None
) -> float:
    """Connectivity error: compares how much of each matte is disconnected from its main body.

    At each threshold 0.1, 0.2, ..., 1 the source is the largest 4-connected component of the pixels
    where both mattes reach the threshold (of components of equal size, the first in column order,
    as MATLAB numbers them). The level of a pixel is the last threshold before it first leaves the
    source. The part of a matte's value above that level is disconnected; parts below 0.15 do not
    count. The error is the sum of the absolute differences of the disconnected parts of the two
    mattes, divided by 1000. An empty prediction has no source and costs the whole foreground.

    Args:
        truth: as in `sad`.
        prediction: as in `sad`.
        region: as in `sad`. Components are always those of the whole image.

    Returns:
        The error, 0 or more.

    Raises:
        ValueError: as in `sad`.
    """
    return _total(_connectivity_map(*_pair(truth, prediction)), region) / 510 / 1000


def iou(truth: np.ndarray, prediction: np.ndarray, region: np.ndarray | None = None) -> float:
    """Intersection over union of the two mattes cut at 0.5.

    Args:
        truth: as in `sad`.
        prediction: as in `sad`.
        region: as in `sad`.

    Returns:
        The ratio, in [0, 1]; 1 if both are empty.

    Raises:
        ValueError: as in `sad`.
    """
    truth, prediction = _pair(truth, prediction)
    truth_opaque, prediction_opaque = truth >= 128, prediction >= 128
    union = _total(truth_opaque | prediction_opaque, region)
    return _total(truth_opaque & prediction_opaque, region) / union if union else 1.0


def dtssd(
    truth: np.ndarray,
    prediction: np.ndarray,
    previous_truth: np.ndarray,
    previous_prediction: np.ndarray,
    region: np.ndarray | None = None,
) -> float:
    """dtSSD: compares how two videos of mattes change from one frame to the next; shows flicker.

    It is the root of the mean over pixels of ((p - p') - (t - t'))^2, times 100, where p and t are
    prediction and truth, alpha in [0, 1], and a dash marks the frame before. That of a video is
    the mean over all frames but the first.

    Args:
        truth: as in `sad`.
        prediction: as in `sad`.
        previous_truth: true alpha of the frame before, of the same shape.
        previous_prediction: predicted alpha of the frame before, of the same shape.
        region: as in `sad`.

    Returns:
        The figure, 0 or more; NaN if the region has no pixels.

    Raises:
        ValueError: as in `sad`.

    Reference:
        Erofeev et al., "Perceptually Motivated Benchmark for Video Matting", BMVC 2015, with the
        scaling of Lin et al., "Robust High-Resolution Video Matting with Temporal Guidance", WACV
        2022.
    """
    error = np.subtract(*_pair(prediction, truth), dtype=np.int16)
    before = np.subtract(*_pair(previous_prediction, previous_truth), dtype=np.int16)
    if error.shape != before.shape:
        raise UsageError(
            f"Expected two frames of one shape, received {error.shape} and {before.shape}."
        )
    squared = np.square((error - before).astype(np.int32))
    return float(np.sqrt(_mean(squared, region))) / 255 * 100


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
    return _dilated(levels < 255, width) & _dilated(levels > 0, width)


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


def _pair(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    truth, prediction = to_levels(truth), to_levels(prediction)
    if truth.shape != prediction.shape:
        raise UsageError(
            f"Expected two alphas of one shape, received {truth.shape} and {prediction.shape}. "
            "Bring the prediction to the size of the truth first."
        )
    return truth, prediction


def _checked_region(region: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if region.shape != shape or region.dtype != np.bool_:
        raise UsageError(
            f"Expected a region of dtype bool and shape {shape}, "
            f"received {region.dtype} of shape {region.shape}."
        )
    return region


def _total(values: np.ndarray, region: np.ndarray | None) -> float:
    """Sums over a region, in float64, which is exact for the integers used here."""
    if region is not None:
        values = values[_checked_region(region, values.shape)]
    return float(values.sum(dtype=np.float64))


def _mean(values: np.ndarray, region: np.ndarray | None) -> float:
    total = _total(values, region)
    pixels = values.size if region is None else np.count_nonzero(region)
    return total / pixels if pixels else float("nan")


def _difference(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    return np.maximum(truth, prediction) - np.minimum(truth, prediction)


def _squared(difference: np.ndarray) -> np.ndarray:
    return np.square(difference, dtype=np.uint16)  # 255**2 fits


def _gradient_map(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
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


def _connectivity_map(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Computes the differences of the disconnected parts, int16 (H, W), in units of 1/510.

    Both a level, 1/255, and a step of the thresholds, 1/10, are whole multiples of this unit.
    """
    both = np.minimum(truth, prediction)
    in_source = np.ones(both.shape, np.bool_)
    connected = np.zeros(both.shape, np.uint8)  # in tenths
    for tenths in range(1, 11):
        in_source &= largest_component(both >= -(-255 * tenths // 10))
        if not in_source.any():
            break
        connected += in_source
    connected_level = connected.astype(np.int16) * 51
    true, predicted = (_disconnected(levels, connected_level) for levels in (truth, prediction))
    return np.abs(true - predicted)


def _disconnected(levels: np.ndarray, connected_level: np.ndarray) -> np.ndarray:
    above = levels.astype(np.int16) * 2 - connected_level
    above[above < 77] = 0  # theta is 0.15 * 510 = 76.5
    return above


def _dilated(filled: np.ndarray, width: int) -> np.ndarray:
    """Grows the filled part by `width` pixels along rows and columns."""
    for _axis in range(2):
        reach = 0
        while reach < width:
            shift = min(reach + 1, width - reach)  # leaves no gap between the copies
            grown = filled.copy()
            grown[shift:] |= filled[:-shift]
            grown[:-shift] |= filled[shift:]
            filled, reach = grown, reach + shift
        filled = filled.T
    return filled
