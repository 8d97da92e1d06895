"""Moves, shrinks and turns pictures: affine, antialiased, in OpenCV."""

import math

import cv2
import numpy as np

Size = tuple[int, int]

_LEAST_SIGMA = 0.2  # pixels; a narrower Gaussian changes nothing


def warp_together(
    image: np.ndarray, alpha: np.ndarray, matrix: np.ndarray, size: Size
) -> tuple[np.ndarray, np.ndarray]:
    """Transforms an image and its alpha as one picture, of which only the part in view is touched.

    Args:
        image: uint8 array (H, W, 3).
        alpha: uint8 array (H, W).
        matrix: as in `warp`.
        size: as in `warp`.

    Returns:
        image: uint8 array (height, width, 3).
        alpha: uint8 array (height, width).
    """
    (left, right), (top, bottom) = _in_view(matrix, size, alpha.shape)
    part = slice(top, bottom), slice(left, right)
    moved = matrix.copy()
    moved[:2, 2] -= left, top
    sample = warp(cv2.merge([image[part], alpha[part]]), moved, size)
    return cv2.cvtColor(sample, cv2.COLOR_RGBA2RGB), cv2.extractChannel(sample, 3)


def _in_view(matrix: np.ndarray, size: Size, source: tuple[int, ...]) -> list[tuple[int, int]]:
    """Returns the columns and the rows of a picture that a warp needs, reflections included."""
    right, bottom = size[1] - 1, size[0] - 1
    ranges = []
    for (along_x, along_y, start), side in zip(matrix[:2].tolist(), source[1::-1], strict=True):
        square = _squares(math.hypot(along_x, along_y))
        reach = 4 * square + 2  # of averaging, smoothing and interpolation
        low = start + min(0, along_x * right) + min(0, along_y * bottom) - reach
        high = start + max(0, along_x * right) + max(0, along_y * bottom) + reach
        first = max(0, math.floor(low)) // square * square  # the squares stay where they are
        ranges.append((first, min(side, math.ceil(high) + 1)))
    return ranges


def warp(pixels: np.ndarray, matrix: np.ndarray, size: Size) -> np.ndarray:
    """Transforms a picture by an affine matrix, antialiased where it shrinks.

    What shrinks by 2 or more is first averaged over squares of whole pixels. What is left to shrink
    is smoothed by a Gaussian that gives the bilinear samples the width of the triangle filter with
    which Pillow and TensorFlow shrink. Then each pixel is computed once, bilinearly.

    Args:
        pixels: uint8 array (H, W, C).
        matrix: float64 array (3, 3) from pixels (x, y, 1) of the output to those of the input; the
            centre of the first pixel is (0, 0).
        size: height and width of the output.

    Returns:
        uint8 array (height, width, C).
    """
    shrink_x, shrink_y = np.hypot(matrix[:2, 0], matrix[:2, 1]).tolist()
    pixels, factor_x, factor_y = _smoothed(pixels, shrink_x, shrink_y)
    if factor_x > 1 or factor_y > 1:
        # The centre of a square of n pixels lies (n - 1) / 2 after the centre of its first one.
        first = np.array([[0, 0, (factor_x - 1) / 2], [0, 0, (factor_y - 1) / 2]])
        matrix = (matrix[:2] - first) / [[factor_x], [factor_y]]
    return cv2.warpAffine(
        pixels,
        matrix[:2],
        size[::-1],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )


def resize(pixels: np.ndarray, size: Size) -> np.ndarray:
    """Resizes a picture, antialiased as `warp` does it.

    Args:
        pixels: uint8 or float32 array (H, W, C).
        size: height and width of the output.

    Returns:
        Array (height, width, C) of the same dtype.
    """
    rows, columns = pixels.shape[:2]
    pixels, _, _ = _smoothed(pixels, columns / size[1], rows / size[0])
    return cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_LINEAR)


def _smoothed(pixels: np.ndarray, shrink_x: float, shrink_y: float) -> tuple[np.ndarray, int, int]:
    """Averages and blurs a picture that will be shrunk by bilinear samples.

    Returns:
        The picture, and the width and the height of the squares that its pixels are means of.
    """
    factor_x, factor_y = _squares(shrink_x), _squares(shrink_y)
    if factor_x > 1 or factor_y > 1:
        rows, columns = max(1, pixels.shape[0] // factor_y), max(1, pixels.shape[1] // factor_x)
        whole = pixels[: rows * factor_y, : columns * factor_x]
        pixels = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
    sigma_x, sigma_y = _remaining_sigma(shrink_x, factor_x), _remaining_sigma(shrink_y, factor_y)
    if max(sigma_x, sigma_y) > _LEAST_SIGMA:
        kernel = tuple(3 if sigma < 0.5 else 5 for sigma in (sigma_x, sigma_y))
        least = 0.01  # 0 would mean the same as along the other axis
        pixels = cv2.GaussianBlur(
            pixels,
            kernel,
            max(sigma_x, least),
            sigmaY=max(sigma_y, least),
            borderType=cv2.BORDER_REFLECT,
        )
    return pixels, factor_x, factor_y


def _squares(shrink: float) -> int:
    """Returns how many pixels are averaged along an axis that shrinks by a factor."""
    # Squares of n pixels and bilinear samples of them have a variance of n * n * (1 / 12 + 1 / 6),
    # which must not exceed that of the triangle of half width s, s * s / 6.
    # But two pixels that become one are averaged: no Gaussian removes the finest pattern better.
    least = min(2, int(shrink + 1e-6))
    return max(1, least, int(shrink * math.sqrt(2 / 3)))


def _remaining_sigma(shrink: float, square: int) -> float:
    """Returns the width of the Gaussian that is missing to the triangle filter, in squares."""
    done = square * square / 4 if square > 1 else 1 / 6  # a single pixel is not averaged
    return math.sqrt(max(0, shrink * shrink / 6 - done)) / square


def scaling(source: tuple[int, ...], size: Size) -> np.ndarray:
    """Returns the matrix from a picture that was resized to `size` to the picture itself."""
    y, x = source[0] / size[0], source[1] / size[1]
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])


def rotation(angle: float, height: int, width: int) -> np.ndarray:
    """Computes the matrix of a rotation about the centre of a picture.

    Args:
        angle: in radians, counterclockwise.
        height: of the picture.
        width: of the picture.

    Returns:
        float64 array (3, 3) for `warp`.
    """
    sine, cosine = math.sin(angle), math.cos(angle)
    right, bottom = width - 1, height - 1
    x = (right - (cosine * right - sine * bottom)) / 2
    y = (bottom - (sine * right + cosine * bottom)) / 2
    return np.array([[cosine, -sine, x], [sine, cosine, y], [0, 0, 1]])
