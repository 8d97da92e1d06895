"""Pairs on disk: photos and their mattes, as files in two folders."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from kmatting.data.folders import match_folders
from kmatting.data.reading import read_training_alpha, read_training_image, reduced
from kmatting.data.samples import Checker, Draw, Listed, Sample, Size, SourceSection
from kmatting.errors import ImageError


class PairsSource(SourceSection):
    """Two folders, images and alphas, matched by stem.

    Attributes:
        images: folder of photos.
        alphas: folder of mattes.
        recursive: search the folders in them too; paths in the two folders must be the same.
        coarse: the outlines are rough; a band along them is not learned from.
    """

    kind: Literal["pairs"] = "pairs"
    images: Path
    alphas: Path
    recursive: bool = False
    coarse: bool = False

    def open(self, checker: Checker) -> "PairSet":
        """See `SourceSection`."""
        pairs, problems, notes = find_pairs(self.images, self.alphas, self.recursive)
        checker.add(problems, notes)
        good = checker.keep_good(pairs, str(self.alphas))
        return PairSet(good, str(self.images), self.weight, self.coarse)


@dataclass(frozen=True)
class Pair:
    """An image and its alpha, two files.

    Attributes:
        image: path of the photo.
        alpha: path of the matte.
    """

    image: Path
    alpha: Path

    @property
    def stem(self) -> str:
        """Name of the image without its suffix."""
        return self.image.stem

    @property
    def files(self) -> tuple[Path, Path]:
        """Both files."""
        return self.image, self.alpha

    def read(self, least: Size | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Reads both files.

        Args:
            least: height and width that a large JPEG may be reduced to twice of; None for all its
                pixels.

        Returns:
            image: uint8 array (H, W, 3), upright; transparent parts over white.
            alpha: uint8 array (H, W), 255 is foreground.

        Raises:
            ImageError: if one cannot be read, the alpha has colours, or their sizes differ.
        """
        return read_pair(self.image, str(self.image), self.alpha, str(self.alpha), least)


def find_pairs(
    images: Path, alphas: Path, recursive: bool = False
) -> tuple[list[Pair], list[str], list[str]]:
    """Matches the images of two folders by stem; reads no file.

    Args:
        images: folder of photos.
        alphas: folder of mattes.
        recursive: whether to search the folders in them too.

    Returns:
        The pairs, sorted by name; what is wrong with the rest, a line each; and what was left out
        on purpose, a line each.
    """
    found = match_folders(images, alphas, "image", recursive)
    return [Pair(image, alpha) for image, alpha in found.files], found.problems, found.notes


def read_pair(
    image: Path | bytes, image_name: str, alpha: Path | bytes, alpha_name: str, least: Size | None
) -> tuple[np.ndarray, np.ndarray]:
    """Reads a photo and its matte.

    Args:
        image: path or encoded bytes of the photo.
        image_name: what to call it in a message.
        alpha: path or encoded bytes of the matte.
        alpha_name: what to call it in a message.
        least: as in `Pair.read`.

    Returns:
        As `Pair.read`.

    Raises:
        ImageError: as `Pair.read`.
    """
    with _naming(image, image_name):
        pixels, factor = read_training_image(image, least)
    with _naming(alpha, alpha_name):
        levels = read_training_alpha(alpha)
    levels = reduced(levels, factor)
    compare_sizes(levels, alpha_name, pixels, image_name)
    return pixels, levels


def compare_sizes(alpha: np.ndarray, alpha_name: str, image: np.ndarray, image_name: str) -> None:
    """Compares the size of an alpha with that of its image.

    Args:
        alpha: uint8 array (H, W).
        alpha_name: what to call it in a message.
        image: uint8 array (H, W, 3).
        image_name: what to call it in a message.

    Raises:
        ImageError: if their sizes differ.
    """
    if alpha.shape != image.shape[:2]:
        raise ImageError(
            f"{alpha_name}: alpha of {_size(alpha)} pixels for an image of {_size(image)} "
            f"({image_name}); width and height must be the same."
        )


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


@contextlib.contextmanager
def _naming(source: Path | bytes, name: str) -> Iterator[None]:
    """Names what is read from memory in the messages of `kmatting.images`."""
    try:
        yield
    except ImageError as error:
        if isinstance(source, Path):
            raise
        raise ImageError(f"{name}{str(error).removeprefix('image')}") from error


class AnyPair(Sample, Protocol):
    """A photo and its matte, as files or in a shard."""

    def read(self, least: Size | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `Pair.read`."""


class PairSet(Listed[AnyPair]):
    """Images and alphas from disk, as files in folders or in shards; see `SampleSet`."""

    def load(self, index: int, size: Size, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
        """Reads a pair; a large JPEG is decoded at no less than twice `size`."""
        return self.samples[index].read(size)
