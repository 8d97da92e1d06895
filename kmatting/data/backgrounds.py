"""Photos without a subject: to lay foregrounds on, and to learn that a photo may be empty."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from kmatting.data.folders import list_folder
from kmatting.data.reading import read_training_image
from kmatting.data.samples import Checker, Draw, Listed, Size, SourceSection


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

    def read(self, least: Size | None = None) -> tuple[np.ndarray, None]:
        """Reads the file.

        Args:
            least: height and width that a large JPEG may be reduced to twice of; None for all its
                pixels.

        Returns:
            uint8 array (H, W, 3), upright; and None, as it has no alpha.

        Raises:
            ImageError: if it cannot be read.
        """
        return read_training_image(self.image, least)[0], None


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


class EmptySet(Listed[Background]):
    """Photos whose alpha is 0; see `SampleSet`."""

    def load(self, index: int, size: Size, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
        """Reads a photo; a large JPEG is decoded at no less than twice `size`."""
        image, _ = self.samples[index].read(size)
        return image, np.zeros(image.shape[:2], np.uint8)
