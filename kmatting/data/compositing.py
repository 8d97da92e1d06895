"""Lays foregrounds over backgrounds: image = alpha*foreground + (1-alpha)*background."""

import cv2
import numpy as np

from kmatting.data.geometry import resize

SCALE = (0.5, 1.2)  # of the largest size that fits; larger ones are cut off by the frame


def composite(
    foreground: np.ndarray,
    alpha: np.ndarray,
    background: np.ndarray,
    size: tuple[int, int],
    random: np.random.Generator,
    scale: tuple[float, float] = SCALE,
) -> tuple[np.ndarray, np.ndarray]:
    """Places a foreground at random over a random part of a background.

    A subject that is cut off by a border of its own picture is cut off by the same border of the
    composite: half a person does not float in the air.

    Args:
        foreground: uint8 array (H, W, 3).
        alpha: uint8 array (H, W), 255 is foreground.
        background: uint8 array (H, W, 3) of any size.
        size: height and width of the output.
        random: generator that all draws come from.
        scale: bounds of the foreground's size; 1 is the largest that fits.

    Returns:
        image: uint8 array (height, width, 3), composited in floats.
        alpha: uint8 array (height, width).
    """
    image = _part_of(background, size, random)
    levels = np.zeros(size, np.uint8)
    thing, left, top = _placed(foreground, alpha, size, random, scale)
    bottom, right = (side + start for side, start in zip(thing.shape, (top, left), strict=False))
    rows = slice(max(top, 0), min(bottom, size[0]))
    columns = slice(max(left, 0), min(right, size[1]))
    seen = thing[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    mixed = image[rows, columns] * (1 - seen[..., 3:] / 255)
    mixed += seen[..., :3]
    image[rows, columns] = np.rint(mixed, out=mixed).clip(0, 255)
    levels[rows, columns] = np.rint(seen[..., 3]).clip(0, 255)
    return image, levels


def _part_of(
    background: np.ndarray, size: tuple[int, int], random: np.random.Generator
) -> np.ndarray:
    """Crops a random part of a background, and mirrors it in half of the cases."""
    height, width = size
    rows, columns = background.shape[:2]
    scale = min(rows / height, columns / width) * random.uniform(0.5, 1)
    tall, wide = max(1, round(height * scale)), max(1, round(width * scale))
    left = int(random.integers(columns - wide, endpoint=True))
    top = int(random.integers(rows - tall, endpoint=True))
    part = resize(background[top : top + tall, left : left + wide], size)
    return cv2.flip(part, 1) if random.random() < 0.5 else part


def _placed(
    foreground: np.ndarray,
    alpha: np.ndarray,
    size: tuple[int, int],
    random: np.random.Generator,
    bounds: tuple[float, float],
) -> tuple[np.ndarray, int, int]:
    """Scales a foreground and draws its position.

    Returns:
        float32 array (H, W, 4) of colours times alpha, and alpha, up to 255; its left and its top.
    """
    borders = alpha[:, 0], alpha[:, -1], alpha[0], alpha[-1]
    cut = [bool(line.max() > 127) for line in borders]
    left, top, columns, rows = cv2.boundingRect(alpha)
    if not rows:  # nothing is opaque
        left, top, (rows, columns) = 0, 0, alpha.shape
    part = slice(top, top + rows), slice(left, left + columns)
    foreground, alpha = foreground[part], alpha[part]
    rows, columns = alpha.shape
    height, width = size
    scale = min(height / rows, width / columns) * random.uniform(*bounds)
    if cut[0] and cut[1]:
        scale = max(scale, width / columns)
    if cut[2] and cut[3]:
        scale = max(scale, height / rows)
    new_size = max(1, round(rows * scale)), max(1, round(columns * scale))
    # Colours times alpha: colours of transparent pixels must not bleed into the edge.
    coverage = cv2.cvtColor(alpha, cv2.COLOR_GRAY2RGB)
    weighted = cv2.multiply(foreground, coverage, scale=1 / 255, dtype=cv2.CV_32F)
    thing = resize(cv2.merge([weighted, alpha.astype(np.float32)]), new_size)
    x = _start(width - new_size[1], cut[0], cut[1], random)
    y = _start(height - new_size[0], cut[2], cut[3], random)
    return thing, x, y


def _start(room: int, cut_low: bool, cut_high: bool, random: np.random.Generator) -> int:
    """Draws the position of a foreground along one axis, given the room that it leaves."""
    start = int(random.integers(min(room, 0), max(room, 0), endpoint=True))
    if cut_low:
        start = min(start, 0)
    if cut_high:
        start = max(start, room)
    return start
