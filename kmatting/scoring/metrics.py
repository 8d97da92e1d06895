"""Metrics that compare a matte with the truth, as matting papers report them.

SAD, MSE, MAD, gradient error and connectivity error follow Rhemann et al., "A Perceptually
Motivated Online Benchmark for Image Matting" (CVPR 2009), with the constants and the scaling of the
MATLAB evaluation code of "Deep Image Matting" (Xu et al., CVPR 2017), whose numbers papers quote.

All functions take the truth first, then the prediction, both of one shape (H, W): uint8 levels, or
floats in [0, 1], which are rounded to 8 bits as a matte on disk is. They do not change their
inputs, and return exactly 0 (IoU: 1) for two equal mattes, or NaN: `thin_lost` without thin parts.
Levels are compared as integers, so that rounding errors of floats do not matter: an alpha of
153/255 is exactly 0.6. Nothing here imports TensorFlow.

One step of the MATLAB code is left out. Its gradient error stretches each matte to the range from 0
to 1 (`mat2gray`), which the paper does not, and which would forgive a prediction that is too faint.
Mattes that reach both 0 and 1 score the same either way.

To add a metric, write a function that compares two mattes, such as `_iou`, in a module of its own
if it is long, and add a record to `METRICS`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kmatting.errors import UsageError
from kmatting.scoring.connectivity import connectivity_map
from kmatting.scoring.gradient import SIGMA, gradient_map
from kmatting.scoring.levels import as_pair, checked_region, mean, to_levels, total
from kmatting.scoring.thin import THIN, thin_parts
from kmatting.scoring.trimap import BAND_WIDTH, unknown_band, unknown_of_trimap

__all__ = [
    "BAND_WIDTH",
    "DTSSD",
    "METRICS",
    "SIGMA",
    "Figure",
    "Metric",
    "connectivity_error",
    "dtssd",
    "gradient_error",
    "iou",
    "mad",
    "mse",
    "sad",
    "score",
    "thin_lost",
    "to_levels",
    "unknown_band",
    "unknown_of_trimap",
]

Measure = Callable[[np.ndarray | None], float]  # from a region, or None for the whole image
# From the levels of truth and prediction. What is the same for all regions is computed once.
Compare = Callable[[np.ndarray, np.ndarray], Measure]


@dataclass(frozen=True)
class Figure:
    """A number that `kmatting evaluate` reports.

    Attributes:
        name: its key in reports.
        caption: what papers call it.
        decimals: digits that are shown after the point.
        meaning: how it is computed, in a line.
    """

    name: str
    caption: str
    decimals: int
    meaning: str


@dataclass(frozen=True)
class Metric(Figure):
    """A figure that compares one matte with the truth.

    Attributes:
        compare: computes it.
    """

    compare: Compare


def _sad(truth: np.ndarray, prediction: np.ndarray) -> Measure:
    difference = _difference(truth, prediction)
    return lambda region: total(difference, region) / 255 / 1000


def _mse(truth: np.ndarray, prediction: np.ndarray) -> Measure:
    squared = np.square(_difference(truth, prediction), dtype=np.uint16)  # 255**2 fits
    return lambda region: mean(squared, region) / 255**2


def _mad(truth: np.ndarray, prediction: np.ndarray) -> Measure:
    difference = _difference(truth, prediction)
    return lambda region: mean(difference, region) / 255


def _gradient(truth: np.ndarray, prediction: np.ndarray) -> Measure:
    errors = gradient_map(truth, prediction)
    return lambda region: total(errors, region) / 1000


def _connectivity(truth: np.ndarray, prediction: np.ndarray) -> Measure:
    errors = connectivity_map(truth, prediction)
    return lambda region: total(errors, region) / 510 / 1000


def _iou(truth: np.ndarray, prediction: np.ndarray) -> Measure:
    either, both = np.maximum(truth, prediction) >= 128, np.minimum(truth, prediction) >= 128

    def ratio(region: np.ndarray | None) -> float:
        union = total(either, region)
        return total(both, region) / union if union else 1.0

    return ratio


def _thin_lost(truth: np.ndarray, prediction: np.ndarray) -> Measure:
    thin = thin_parts(truth >= 128)
    missed = thin & (prediction < 128)

    def share(region: np.ndarray | None) -> float:
        pixels = total(thin, region)
        return total(missed, region) / pixels if pixels else float("nan")

    return share


def _difference(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    return np.maximum(truth, prediction) - np.minimum(truth, prediction)


METRICS = (
    Metric("sad", "SAD", 4, "sum over pixels of |prediction - truth|, / 1000", _sad),
    Metric("mse", "MSE", 6, "mean over pixels of (prediction - truth)^2", _mse),
    Metric("mad", "MAD", 6, "mean over pixels of |prediction - truth|", _mad),
    Metric(
        "gradient",
        "gradient",
        4,
        f"differences of the derivatives of a Gaussian of sigma {SIGMA}, squared, / 1000",
        _gradient,
    ),
    Metric(
        "connectivity",
        "connectivity",
        4,
        "what is not connected to the subject: step 0.1, theta 0.15, 4 neighbours, / 1000",
        _connectivity,
    ),
    Metric("iou", "IoU", 5, "intersection over union of alpha >= 0.5 (higher is better)", _iou),
    Metric(
        "thin_lost",
        "thin lost",
        4,
        f"share of what is narrower than {THIN:.0%} of the long side where the prediction is < 0.5",
        _thin_lost,
    ),
)
DTSSD = Figure(
    "dtssd",
    "dtSSD",
    4,
    "root of the mean square over pixels of the error of the change to a frame, * 100",
)


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
        The `METRICS` over the whole image, under their names; with `unknown` also those over the
        band, as "sad_unknown" and so on (NaN if the band has no pixels).

    Raises:
        ValueError: if an input has a wrong shape, dtype or range.
    """
    truth, prediction = as_pair(truth, prediction)
    measures = {metric.name: metric.compare(truth, prediction) for metric in METRICS}
    figures = {name: measure(None) for name, measure in measures.items()}
    if unknown is not None:
        has_band = checked_region(unknown, truth.shape).any()
        for name, measure in measures.items():
            figures[f"{name}_unknown"] = measure(unknown) if has_band else float("nan")
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
    return _sad(*as_pair(truth, prediction))(region)


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
    return _mse(*as_pair(truth, prediction))(region)


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
    return _mad(*as_pair(truth, prediction))(region)


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
    return _gradient(*as_pair(truth, prediction))(region)


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
    return _connectivity(*as_pair(truth, prediction))(region)


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
    return _iou(*as_pair(truth, prediction))(region)


def thin_lost(truth: np.ndarray, prediction: np.ndarray, region: np.ndarray | None = None) -> float:
    """Share of the subject's thin parts that the prediction loses.

    Thin parts are the pixels of alpha >= 0.5 that an opening with a square of side 2r + 1 removes,
    where r is 1 % of the long side in pixels, at least 1: what is narrower than about 2 % of the
    long side, and the tips of pointed corners. They are lost where the prediction is below 0.5.

    Args:
        truth: as in `sad`.
        prediction: as in `sad`.
        region: as in `sad`. Thin parts are always those of the whole image.

    Returns:
        The share, in [0, 1]; NaN if there are no thin parts, which means over images leave out.

    Raises:
        ValueError: as in `sad`.
    """
    return _thin_lost(*as_pair(truth, prediction))(region)


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
    error = np.subtract(*as_pair(prediction, truth), dtype=np.int16)
    before = np.subtract(*as_pair(previous_prediction, previous_truth), dtype=np.int16)
    if error.shape != before.shape:
        raise UsageError(
            f"Expected two frames of one shape, received {error.shape} and {before.shape}."
        )
    squared = np.square((error - before).astype(np.int32))
    return float(np.sqrt(mean(squared, region))) / 255 * 100
