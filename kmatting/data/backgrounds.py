"""Photos without a subject: to lay foregrounds on, and to learn that a photo may be empty."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from kmatting.data.folders import list_folder
from kmatting.data.samples import (
    Checker,
    Draw,
    Size,
    SourceSection,
    joined,
    reduction,
    split,
    stem_fraction,
)
from kmatting.images import read_image


class BackgroundsSource(SourceSection):
    """Photos without a subject: their alpha is 0 everywhere.

    Attributes:
        images: folder of photos.
        recursive: search the folders in it too.
    """

    kind: Literal["backgrounds"] = "backgrounds"
    images: Path
    recursive: bool = False

    def open(self, checker: Checker) -> "EmptySet":
        """See `SourceSection`."""
        backgrounds = open_backgrounds(self.images, self.recursive, checker)
        return EmptySet(backgrounds, str(self.images), self.weight)


@dataclass(frozen=True)
class Background:
    """A photo without a subject.

    Attributes:
        image: path of the photo.
    """

    image: Path

    @property
    def stem(self) -> str:
        """Name of the image without its suffix."""
        return self.image.stem

    @property
    def files(self) -> tuple[Path]:
        """The file."""
        return (self.image,)

    def read(self) -> tuple[np.ndarray, None]:
        """Reads the file.

        Returns:
            uint8 array (H, W, 3), upright; and None, as it has no alpha.

        Raises:
            ImageError: if it cannot be read.
        """
        return read_image(self.image), None


def open_backgrounds(folder: Path, recursive: bool, checker: Checker) -> list[Background]:
    """Lists the photos of a folder and has them checked.

    Args:
        folder: folder of photos.
        recursive: whether to search the folders in it too.
        checker: keeps what can be used.

    Returns:
        The photos, sorted by path.
    """
    found = list_folder(folder, recursive)
    checker.add(found.problems, found.notes)
    return checker.keep_good([Background(path) for (path,) in found.files], str(folder))


@dataclass
class EmptySet:
    """Photos whose alpha is 0; see `SampleSet`."""

    backgrounds: Sequence[Background]
    name: str
    weight: float = 1.0
    coarse: bool = False

    def __len__(self) -> int:
        return len(self.backgrounds)

    def fractions(self) -> list[float]:
        """See `SampleSet`."""
        return [stem_fraction(background.stem) for background in self.backgrounds]

    def split(self, share: float) -> tuple["EmptySet", "EmptySet"]:
        """See `SampleSet`."""
        kept, held_out = split(self.backgrounds, share)
        return EmptySet(kept, self.name, self.weight), EmptySet(held_out, self.name, self.weight)

    def load(self, index: int, size: Size, draw: Draw) -> np.ndarray:
        """Reads a photo; a large one is reduced by a whole factor, to no less than twice `size`."""
        image, _ = self.backgrounds[index].read()
        factor = reduction(image, size)
        if factor > 1:
            image = np.asarray(Image.fromarray(image).reduce(factor))
        return joined(image, np.zeros(image.shape[:2], np.uint8))
