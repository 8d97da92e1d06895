"""Lays foregrounds over backgrounds: image = alpha*foreground + (1-alpha)*background."""

import numpy as np
from PIL import Image


def composite(
    foreground: np.ndarray,
    alpha: np.ndarray,
    background: np.ndarray,
    size: tuple[int, int],
    random: np.random.Generator,
) -> np.ndarray:
    """Places a foreground at random over a random part of a background.

    The foreground is scaled to between 0.5 and 1.2 times the largest size that fits. A subject that
    is cut off by a border of its own picture is cut off by the same border of the composite: half a
    person does not float in the air.

    Args:
        foreground: uint8 array (H, W, 3).
        alpha: uint8 array (H, W), 255 is foreground.
        background: uint8 array (H, W, 3) of any size.
        size: height and width of the output.
        random: generator that all draws come from.

    Returns:
        float32 array (height, width, 4) in [0, 1]: the image and its alpha, composited in floats.
    """
    sample = _part_of(background, size, random)
    thing, left, top = _placed(foreground, alpha, size, random)
    bottom, right = (side + start for side, start in zip(thing.shape, (top, left), strict=False))
    rows = slice(max(top, 0), min(bottom, size[0]))
    columns = slice(max(left, 0), min(right, size[1]))
    seen = thing[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    sample[rows, columns] = seen + (1 - seen[..., 3:]) * sample[rows, columns]
    return sample.clip(0, 1)


def _part_of(
    background: np.ndarray, size: tuple[int, int], random: np.random.Generator
) -> np.ndarray:
    """Crops a random part of a background, mirrors it in half of the cases, adds an alpha of 0."""
    height, width = size
    rows, columns = background.shape[:2]
    scale = min(rows / height, columns / width) * random.uniform(0.5, 1)
    left = random.uniform(0, columns - width * scale)
    top = random.uniform(0, rows - height * scale)
    box = (left, top, left + width * scale, top + height * scale)
    # By a rounding error `box` may end outside the picture, which Pillow refuses.
    box = tuple(np.minimum(box, (columns, rows, columns, rows)).tolist())
    part = Image.fromarray(background).resize(
        (width, height), Image.Resampling.BILINEAR, box, reducing_gap=2.0
    )
    pixels = np.asarray(part, np.float32) / 255
    if random.random() < 0.5:
        pixels = pixels[:, ::-1]
    return np.concatenate([pixels, np.zeros((height, width, 1), np.float32)], axis=2)


def _placed(
    foreground: np.ndarray,
    alpha: np.ndarray,
    size: tuple[int, int],
    random: np.random.Generator,
) -> tuple[np.ndarray, int, int]:
    """Scales a foreground and draws its position.

    Returns:
        float32 array (H, W, 4) of colours times alpha, and alpha; its left and its top.
    """
    solid = alpha > 127
    cut = [bool(line.any()) for line in (solid[:, 0], solid[:, -1], solid[0], solid[-1])]
    left, top, right, bottom = Image.fromarray(alpha).getbbox() or (0, 0, *alpha.shape[::-1])
    foreground, alpha = foreground[top:bottom, left:right], alpha[top:bottom, left:right]
    rows, columns = alpha.shape
    height, width = size
    scale = min(height / rows, width / columns) * random.uniform(0.5, 1.2)
    if cut[0] and cut[1]:
        scale = max(scale, width / columns)
    if cut[2] and cut[3]:
        scale = max(scale, height / rows)
    new_size = max(1, round(columns * scale)), max(1, round(rows * scale))
    thing = _resized(foreground, alpha, new_size)
    x = _start(width - new_size[0], cut[0], cut[1], random)
    y = _start(height - new_size[1], cut[2], cut[3], random)
    return thing, x, y


def _start(room: int, cut_low: bool, cut_high: bool, random: np.random.Generator) -> int:
    """Draws the position of a foreground along one axis, given the room that it leaves."""
    start = int(random.integers(min(room, 0), max(room, 0), endpoint=True))
    if cut_low:
        start = min(start, 0)
    if cut_high:
        start = max(start, room)
    return start


def _resized(foreground: np.ndarray, alpha: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes colours times alpha: colours of transparent pixels must not bleed into the edge."""
    coverage = alpha.astype(np.float32) / 255

    def shrunk(channel: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(channel)  # floats: nothing is rounded before compositing
        return np.asarray(picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))

    channels = [shrunk(foreground[..., channel] * (coverage / 255)) for channel in range(3)]
    return np.stack([*channels, shrunk(coverage)], axis=2)
