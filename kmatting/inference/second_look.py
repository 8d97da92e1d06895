"""A second look at the subject: where it fills little of the photo, and how both looks are joined.

A network sees a photo reduced, so a small subject is few pixels to it. It runs again on the part of
the photo that holds the subject. What it says there counts only if it agrees with the first look:
the part may also show a piece of what the whole photo shows to be something else.
"""

import numpy as np
from PIL import Image

MARGIN = 0.15  # around the subject, as a share of the longer side of its box
LARGEST = 0.5  # share of the photo: a larger part would show the network little more
AGREEMENT = 0.8  # intersection over union of both looks
_MOST = 4  # times the network's pixels along a side: finer detail is left to the refinement

Part = tuple[slice, slice]


def find_part(alpha: np.ndarray, height: int, width: int) -> Part | None:
    """Finds the part of a photo that holds the subject.

    Args:
        alpha: float32 array (h, w) in [0, 1], the matte of the whole photo at any size.
        height: of the photo in pixels.
        width: of the photo in pixels.

    Returns:
        Rows and columns of the photo; None if there is no subject, or if it fills so much that a
        second look would show little more.
    """
    subject = alpha >= 0.5
    rows, columns = np.flatnonzero(subject.any(axis=1)), np.flatnonzero(subject.any(axis=0))
    if not rows.size:
        return None
    top, bottom = rows[0] * height / alpha.shape[0], (rows[-1] + 1) * height / alpha.shape[0]
    left, right = columns[0] * width / alpha.shape[1], (columns[-1] + 1) * width / alpha.shape[1]
    margin = MARGIN * max(bottom - top, right - left)
    part = (
        _within(top - margin, bottom + margin, height),
        _within(left - margin, right + margin, width),
    )
    pixels = (part[0].stop - part[0].start) * (part[1].stop - part[1].start)
    return part if pixels <= LARGEST * height * width else None


def join(first: np.ndarray, second: np.ndarray, part: Part, height: int, width: int) -> np.ndarray:
    """Puts the matte of a part into that of the whole photo, if both agree.

    Args:
        first: float32 array (h, w) in [0, 1], the matte of the whole photo.
        second: float32 array (h, w) in [0, 1], the matte of the part.
        part: rows and columns of the photo.
        height: of the photo in pixels.
        width: of the photo in pixels.

    Returns:
        float32 array in [0, 1], the matte of the whole photo in about the resolution of `second`;
        `first` if they do not agree.
    """
    tall, wide = (each.stop - each.start for each in part)
    scale = min(1, max(second.shape[0] / tall, second.shape[1] / wide))
    scale = min(scale, _MOST * first.shape[0] / height, _MOST * first.shape[1] / width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    rows, columns = (_scaled(each, scale, side) for each, side in zip(part, size, strict=True))
    whole = resized(first, size)
    inner = resized(second, (rows.stop - rows.start, columns.stop - columns.start))
    outer = whole[rows, columns]
    either = np.maximum(outer, inner) >= 0.5
    both = np.minimum(outer, inner) >= 0.5
    if both.sum() < AGREEMENT * either.sum():
        return first
    weight = np.minimum.outer(_ramp(rows, size[0]), _ramp(columns, size[1]))
    whole[rows, columns] = outer + weight * (inner - outer)
    return whole


def _within(start: float, stop: float, side: int) -> slice:
    return slice(max(0, int(start)), min(side, int(np.ceil(stop))))


def _scaled(part: slice, scale: float, side: int) -> slice:
    start = min(round(part.start * scale), side - 1)
    return slice(start, max(start + 1, min(side, round(part.stop * scale))))


def resized(alpha: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a float32 matte (h, w) bilinearly, to height and width; returns a copy."""
    if alpha.shape == size:
        return alpha.copy()
    image = Image.fromarray(alpha).resize(size[::-1], Image.Resampling.BILINEAR)
    return np.array(image).clip(0, 1)


def _ramp(part: slice, side: int) -> np.ndarray:
    """Weights of the second look along an axis: none at a border inside the photo."""
    length = part.stop - part.start
    steps = np.arange(length, dtype=np.float32) + 0.5
    width = max(1.0, MARGIN / (1 + 2 * MARGIN) * length / 2)  # half of the margin
    rise = np.minimum(steps / width, 1) if part.start > 0 else np.ones(length, np.float32)
    fall = np.minimum(steps[::-1] / width, 1) if part.stop < side else np.ones(length, np.float32)
    return np.minimum(rise, fall)
