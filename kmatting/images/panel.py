"""Panels: rows of pictures side by side, with captions."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kmatting.errors import UsageError
from kmatting.sizes import whole_number

_GAP = 6
_CAPTION = 16
CELLS = (16, 4096)  # smallest and largest side of a picture


def draw_panel(
    rows: Sequence[Sequence[np.ndarray]],
    captions: Sequence[str] = (),
    row_captions: Sequence[str] = (),
    cell: int = 256,
) -> np.ndarray:
    """Draws pictures as a grid.

    Args:
        rows: rows of pictures, all of the same length. A picture is a uint8 array, or a float array
            in [0, 1], of shape (H, W), (H, W, 1) or (H, W, 3).
        captions: a caption for each column, above the first row.
        row_captions: a caption for each row, above it.
        cell: side in pixels of the square that each picture is scaled to fit, from 16 to 4096.

    Returns:
        uint8 array (H, W, 3).

    Raises:
        ValueError: if there are no rows, rows differ in length, or the cell is out of range.
    """
    cell = whole_number("cell", cell, *CELLS)
    if not rows or len({len(row) for row in rows}) != 1 or not rows[0]:
        raise UsageError(
            f"Expected rows of one common length, received lengths {[len(row) for row in rows]}."
        )
    pictures = [[_fitted(picture, cell) for picture in row] for row in rows]
    widths = [max(row[column].width for row in pictures) for column in range(len(rows[0]))]
    heights = [max(picture.height for picture in row) for row in pictures]
    top = _CAPTION if captions else 0
    above = _CAPTION if row_captions else 0
    size = (
        sum(widths) + _GAP * (len(widths) + 1),
        top + sum(heights) + (_GAP + above) * len(heights) + _GAP,
    )
    canvas = Image.new("RGB", size, "lightgrey")  # shows where white mattes end
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(12)
    lefts = [_GAP + sum(widths[:column]) + _GAP * column for column in range(len(widths))]
    for left, caption in zip(lefts, captions, strict=False):
        draw.text((left, 2), caption, fill="black", font=font)
    y = top + _GAP
    for index, row in enumerate(pictures):
        if above:
            caption = row_captions[index] if index < len(row_captions) else ""
            draw.text((_GAP, y), caption, fill="black", font=font)
            y += above
        for left, picture in zip(lefts, row, strict=True):
            canvas.paste(picture, (left, y))
        y += heights[index] + _GAP
    return np.asarray(canvas)


def _fitted(picture: np.ndarray, cell: int) -> Image.Image:
    """Turns an array into an RGB picture, scaled to fit the cell."""
    if picture.ndim == 3 and picture.shape[2] == 1:
        picture = picture[..., 0]
    if picture.dtype != np.uint8:
        picture = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    image = Image.fromarray(picture).convert("RGB")
    scale = cell / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)
