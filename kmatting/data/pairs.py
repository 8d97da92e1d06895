"""Pairs on disk: photos and their mattes, as files in two folders."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from PIL import Image

from kmatting.data.folders import match_folders
from kmatting.data.samples import (
    Checker,
    Draw,
    Sample,
    Size,
    SourceSection,
    joined,
    reduction,
    split,
    stem_fraction,
)
from kmatting.errors import ImageError
from kmatting.images import read_alpha, read_image


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

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Reads both files.

        Returns:
            image: uint8 array (H, W, 3), upright; transparent parts over white.
            alpha: uint8 array (H, W), 255 is foreground.

        Raises:
            ImageError: if one cannot be read, the alpha has colours, or their sizes differ.
        """
        image, alpha = read_image(self.image), read_alpha(self.alpha)
        compare_sizes(alpha, str(self.alpha), image, str(self.image))
        return image, alpha


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


class _AnyPair(Sample, Protocol):
    def read(self) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass
class PairSet:
    """Images and alphas from disk, as files in folders or in shards; see `SampleSet`."""

    pairs: Sequence[_AnyPair]
    name: str
    weight: float = 1.0
    coarse: bool = False

    def __len__(self) -> int:
        return len(self.pairs)

    def fractions(self) -> list[float]:
        """See `SampleSet`."""
        return [stem_fraction(pair.stem) for pair in self.pairs]

    def split(self, share: float) -> tuple["PairSet", "PairSet"]:
        """See `SampleSet`."""
        kept, held_out = split(self.pairs, share)
        return (
            PairSet(kept, self.name, self.weight, self.coarse),
            PairSet(held_out, self.name, self.weight, self.coarse),
        )

    def load(self, index: int, size: Size, draw: Draw) -> np.ndarray:
        """Reads a pair; a large one is reduced by a whole factor, to no less than twice `size`."""
        image, alpha = self.pairs[index].read()
        factor = reduction(alpha, size)
        if factor > 1:  # both by the same whole pixels, so that they stay aligned
            image = np.asarray(Image.fromarray(image).reduce(factor))
            alpha = np.asarray(Image.fromarray(alpha).reduce(factor))
        return joined(image, alpha)
