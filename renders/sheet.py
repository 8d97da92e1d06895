"""Makes a sheet of pictures to look at: each over a checkerboard, its alpha below.

python -m renders.sheet SHEET.png PICTURE.png ...
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def tile(path: Path, side: int) -> Image.Image:
    """Returns one picture over a checkerboard, its alpha to the right."""
    picture = Image.open(path).convert("RGBA")
    picture.thumbnail((side, side))
    y, x = np.mgrid[: picture.height, : picture.width] // 16
    board = np.where(((x + y) % 2)[..., None] > 0, (90, 170, 90), (120, 200, 120)).astype(np.uint8)
    over = Image.fromarray(board).convert("RGBA")
    over.alpha_composite(picture)
    both = Image.new("RGB", (2 * side, side + 12), "white")
    both.paste(over.convert("RGB"), (0, 12))
    both.paste(picture.getchannel("A").convert("RGB"), (side, 12))
    ImageDraw.Draw(both).text((2, 0), path.stem[-60:], fill="black")
    return both


def main() -> None:
    """Writes the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--side", type=int, default=220)
    parser.add_argument("--columns", type=int, default=4)
    options = parser.parse_args()
    side, columns = options.side, options.columns
    rows = -(-len(options.pictures) // columns)
    sheet = Image.new("RGB", (columns * 2 * side, rows * (side + 12)), "white")
    for index, path in enumerate(options.pictures):
        row, column = divmod(index, columns)
        sheet.paste(tile(path, side), (column * 2 * side, row * (side + 12)))
    sheet.save(options.sheet)


if __name__ == "__main__":
    main()
