"""The one maker of pictures: from a matte and what is wanted of it to pictures and their files.

Every command, the page and `Matte.save` make their pictures here. This room lies below
`inference/`: it takes a `Matte` and does not know how it was predicted.
"""

import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from PIL import Image

from kmatting.errors import UsageError
from kmatting.images import save_image, write_image
from kmatting.pictures.compose import read_background
from kmatting.pictures.kinds import Pixels, Scenes, kind_of
from kmatting.pictures.metadata import exif_option, with_profile
from kmatting.pictures.wanted import Wanted

if TYPE_CHECKING:
    from kmatting.pictures.matte import Matte


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture, and how it is written.

    Attributes:
        name: such as "alpha", "cutout", "composite" or "composite-white".
        image: PIL image in mode L, I;16, RGB or RGBA; or a uint16 array (H, W, 4).
        suffix: of its file.
        options: of the writer.
        remarks: what the file will not hold, in a phrase each.
    """

    name: str
    image: Pixels
    suffix: str
    options: dict[str, Any]
    remarks: list[str] = field(default_factory=list)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the file whole or not at all; its format is that of `suffix`."""
        write_image(path, self.image, **self.options)

    def pil_image(self) -> Image.Image:
        """Returns the image, for who needs one of Pillow's."""
        if isinstance(self.image, Image.Image):
            return self.image
        raise UsageError("Pillow holds no colours of 16 bits: write a file, or ask for 8 bits.")

    def encode(self) -> bytes:
        """Returns the bytes of the file."""
        file = io.BytesIO()
        save_image(file, self.image, self.suffix, **self.options)
        return file.getvalue()


def read_backgrounds(wanted: Wanted) -> Scenes:
    """Reads the backgrounds, by the name of their composite.

    Raises:
        ImageError: if one is neither a colour nor an image that can be read.
    """
    return {
        name: read_background(background)
        for name, background in wanted.outputs.items()
        if background is not None
    }


def make_pictures(
    matte: "Matte",
    wanted: Wanted,
    scenes: Scenes | None = None,
    names: Iterable[str] | None = None,
) -> Iterator[Picture]:
    """Makes the pictures of a photo, one after the other.

    Args:
        matte: the matte as it was predicted.
        wanted: what to make.
        scenes: the backgrounds as from `read_backgrounds`; by default they are read here.
        names: the pictures to make, of `wanted.outputs`; all by default.

    Yields:
        The `Picture`s.

    Raises:
        UsageError: if the matte cannot be edited so, such as an empty one that is to be cropped.
        ImageError: as in `read_backgrounds`.
    """
    scenes = read_backgrounds(wanted) if scenes is None else scenes
    edited = wanted.edited(matte)
    for name in wanted.outputs if names is None else names:
        yield _dressed(draw(edited, name, wanted, scenes), name, edited, wanted)


def draw(matte: "Matte", name: str, wanted: Wanted, scenes: Scenes) -> Pixels:
    """Draws one picture of a matte that is edited already, such as a frame of a video.

    Args:
        matte: the matte, as from `Wanted.edited`.
        name: of the picture.
        wanted: what to make.
        scenes: the backgrounds, by the name of the composite.

    Returns:
        PIL image in mode L, I;16, RGB or RGBA; a cutout of 16 bits as a uint16 array (H, W, 4).
    """
    return kind_of(name).draw(matte, name, wanted, scenes)


def _dressed(image: Pixels, name: str, matte: "Matte", wanted: Wanted) -> Picture:
    """Adds what goes into the file besides the pixels."""
    kind, suffix, photo = kind_of(name), wanted.suffix(name), matte.photo
    remarks: list[str] = []
    options: dict[str, Any] = {}
    if kind.has_metadata and wanted.keep_metadata:
        image, profile = with_profile(image, photo)
        exif, remark = exif_option(photo.exif, suffix)
        found = {"exif": exif, "icc_profile": profile}
        options = {name: value for name, value in found.items() if value}
        remarks += [remark] if remark else []
    if photo.dpi:
        options["dpi"] = photo.dpi
    return Picture(name, image, suffix, options, remarks)
