"""The kinds of pictures that can be made of a matte: one table.

To add a kind, write the function that draws it and add a record to `KINDS`. Its files may have the
formats of `kmatting.images.formats` that can hold it. Names of files, options of the commands and
their help follow.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from kmatting.images.formats import FORMATS
from kmatting.pictures.compose import Colour, draw_composite, draw_cutout
from kmatting.pictures.shadow import soft_shadow

if TYPE_CHECKING:
    from kmatting.pictures.matte import Matte
    from kmatting.pictures.wanted import Wanted

Pixels = Image.Image | np.ndarray
Scene = Colour | np.ndarray  # a background that was read
Scenes = Mapping[str, Scene]  # by the name of the composite

_DEFAULT = ".png"
_SQUARE = 8  # pixels a side, of the checkerboard


@dataclass(frozen=True)
class Kind:
    """A kind of picture.

    Attributes:
        help: what it is, for the option `--KIND`.
        draw: makes the picture of an edited matte. It takes the matte, the name of the picture,
            what is wanted, and the backgrounds.
        transparent: whether its files must hold transparency.
        lossless: whether its files must keep every level.
        bits: the bits per channel that it may have.
        has_metadata: whether it takes the photo's EXIF data and colour profile on demand.
        video: suffix of a video of it by default; None if there is no video of it.
    """

    help: str
    draw: "Callable[[Matte, str, Wanted, Scenes], Pixels]"
    transparent: bool = False
    lossless: bool = False
    bits: tuple[int, ...] = (8,)
    has_metadata: bool = False
    video: str | None = None

    @functools.cached_property
    def suffixes(self) -> tuple[str, ...]:
        """The suffixes that its files may have; the first is the default."""
        suffixes = [
            suffix
            for each in FORMATS
            if each.has_alpha >= self.transparent and each.lossless >= self.lossless
            for suffix in each.written
        ]
        return tuple(sorted(suffixes, key=lambda suffix: suffix != _DEFAULT))


def _alpha(matte: "Matte", name: str, wanted: "Wanted", scenes: Scenes) -> Pixels:
    return matte.alpha_image(wanted.bits)


def _cutout(matte: "Matte", name: str, wanted: "Wanted", scenes: Scenes) -> Pixels:
    colours = matte.foreground(wanted.foreground)
    return draw_cutout(colours, matte.alpha, _shadow(matte, wanted), wanted.bits)


def _composite(matte: "Matte", name: str, wanted: "Wanted", scenes: Scenes) -> Pixels:
    colours = matte.foreground(wanted.foreground)
    return draw_composite(colours, matte.alpha, scenes[name], _shadow(matte, wanted))


def draw_panel(
    matte: "Matte", name: str, wanted: "Wanted", scenes: Scenes, cell: int = 384
) -> Image.Image:
    """Draws photo, matte, cutout and the composites side by side, each as a square of `cell`."""
    from kmatting.images.panel import draw_panel as draw  # here, as its fonts take time to load

    small = matte.reduced(cell)
    colours, shadow = small.foreground(wanted.foreground), _shadow(small, wanted)
    subject = np.asarray(draw_cutout(colours, small.alpha, shadow))
    board = _checkerboard(*small.alpha.shape)
    opacity = subject[..., 3] / np.float32(255)
    pictures = {
        "photo": small.photo.flatten(),
        "matte": small.alpha,
        "cutout": np.asarray(draw_composite(subject[..., :3], opacity, board)),
    }
    for each, scene in scenes.items():
        caption = each.partition("-")[2] or "composite"
        pictures[caption] = np.asarray(draw_composite(colours, small.alpha, scene, shadow))
    return Image.fromarray(draw([list(pictures.values())], list(pictures), cell=cell))


def _checkerboard(height: int, width: int) -> np.ndarray:
    """Draws what stands for transparency: uint8 array (H, W, 3)."""
    rows, columns = np.indices((height, width)) // _SQUARE
    board = np.where((rows + columns) % 2, np.uint8(255), np.uint8(208))
    return np.repeat(board[..., None], 3, axis=2)


def _shadow(matte: "Matte", wanted: "Wanted") -> np.ndarray | None:
    return None if wanted.shadow is None else soft_shadow(matte.alpha, wanted.shadow)


KINDS = {
    "alpha": Kind("the matte, in grey", _alpha, lossless=True, bits=(8, 16), video=".mp4"),
    "cutout": Kind(
        "the subject on transparency",
        _cutout,
        transparent=True,
        bits=(8, 16),
        has_metadata=True,
        video=".webm",
    ),
    "composite": Kind(
        "the subject over a colour (white, '#00ff00') or an image; may be repeated: "
        "photo.composite-white.png, photo.composite-beach.png and so on",
        _composite,
        has_metadata=True,
        video=".mp4",
    ),
    "panel": Kind("photo, matte, cutout and composites side by side, small", draw_panel),
}


def kind_of(name: str) -> Kind:
    """Returns the kind of a picture by its name, such as "cutout" or "composite-white"."""
    return KINDS[name.partition("-")[0]]
