"""What every data source has in common: its part of the config, its samples, its split."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, Self, TypeVar

import numpy as np
from pydantic import Field

from kmatting.data.section import Section

Size = tuple[int, int]
Draw = tuple[int, int]


class Sample(Protocol):
    """One sample on disk."""

    @property
    def stem(self) -> str:
        """Name that identifies the sample in its set and decides to which split it belongs."""

    @property
    def files(self) -> Sequence[Path]:
        """The files that it is read from."""

    def read(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Decodes the files.

        Returns:
            uint8 array (H, W, 3), and the alpha, uint8 (H, W), if it has one.

        Raises:
            ImageError: if a file cannot be used.
        """


AnySample = TypeVar("AnySample", bound=Sample)


class Checker(Protocol):
    """Checks the samples of a source; see `kmatting.data.checking`."""

    def keep_good(self, samples: Sequence[AnySample], name: str) -> list[AnySample]:
        """Returns the samples that can be used, and notes what is wrong with the others."""

    def add(self, problems: Iterable[str], notes: Iterable[str]) -> None:
        """Notes what is wrong with a source, and what its user should know."""


class SampleSet(Protocol):
    """The samples of one source.

    Attributes:
        name: what to call the set in messages.
        weight: how often each sample is shown in an epoch of training.
        coarse: whether the outlines of the alphas are rough.
    """

    name: str
    weight: float
    coarse: bool

    def __len__(self) -> int: ...

    def fractions(self) -> list[float]:
        """Returns the `stem_fraction` of each sample; empty if the samples have no names."""

    def split(self, share: float) -> tuple[Self, Self]:
        """Splits the set by the names of its samples.

        Args:
            share: the share to hold out, from 0 to 1.

        Returns:
            The set without the samples that are held out, and the set of these.
        """

    def load(self, index: int, size: Size, draw: Draw) -> np.ndarray:
        """Loads a sample.

        Args:
            index: number of the sample, below `len`.
            size: height and width at which the sample is used; a photo may come larger.
            draw: seed and number that all random choices follow from.

        Returns:
            float32 array (H, W, 4) in [0, 1]: red, green, blue and alpha.

        Raises:
            ImageError: if a file cannot be read any more.
        """


class SourceSection(Section, ABC):
    """A data source in a config. Its `kind` is the tag that tells it from the others.

    Attributes:
        weight: how often each sample is shown in an epoch of training.
    """

    weight: float = Field(default=1.0, gt=0)

    @abstractmethod
    def open(self, checker: Checker) -> SampleSet:
        """Finds the samples and has them checked.

        Args:
            checker: keeps what can be used.

        Returns:
            The samples; may be empty.
        """


def split(samples: Iterable[AnySample], share: float) -> tuple[list[AnySample], list[AnySample]]:
    """Splits samples by a hash of the stem, so that a new sample never moves another.

    Args:
        samples: what to split. Equal stems, also of different sets, stay together.
        share: the share of the samples to hold out, from 0 to 1.

    Returns:
        The samples for training and those held out, in order.
    """
    kept: list[AnySample] = []
    held_out: list[AnySample] = []
    for sample in samples:
        (held_out if stem_fraction(sample.stem) < share else kept).append(sample)
    return kept, held_out


def stem_fraction(stem: str) -> float:
    """Maps a stem to a fixed number in [0, 1) that looks random (SHA-256)."""
    digest = hashlib.sha256(stem.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def joined(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Joins a uint8 image and its alpha to one float32 array (H, W, 4) in [0, 1]."""
    sample = np.empty((*alpha.shape, 4), np.float32)
    sample[..., :3] = image
    sample[..., 3] = alpha
    sample /= 255
    return sample


def reduction(pixels: np.ndarray, size: Size) -> int:
    """Computes by what whole factor a photo can be reduced to no less than twice a size."""
    height, width = pixels.shape[:2]
    return max(1, min(height // (2 * size[0]), width // (2 * size[1])))
