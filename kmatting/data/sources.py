"""Opens the sources of a config: finds and checks their files, holds out the validation share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from PIL import Image

from kmatting.config import (
    CompositeSource,
    DataConfig,
    PairsSource,
    ShardsSource,
    SyntheticSource,
)
from kmatting.data import synthetic
from kmatting.data.compositing import composite
from kmatting.data.pairs import (
    Background,
    Cutout,
    DataError,
    Pair,
    check,
    find_backgrounds,
    find_cutouts,
    find_pairs,
    report,
    split,
    stem_fraction,
)
from kmatting.data.shard import PackedPair, find_packed_pairs

Size = tuple[int, int]
Draw = tuple[int, int]
Source = PairsSource | ShardsSource | CompositeSource | SyntheticSource


class SampleSet(Protocol):
    """The samples of one source.

    Attributes:
        weight: how often each is shown in an epoch of training.
        coarse: whether the outlines of the alphas are rough.
    """

    weight: float
    coarse: bool

    def __len__(self) -> int: ...

    def fractions(self) -> list[float]:
        """Returns a fixed number in [0, 1) for each sample that is held out or not by its stem."""

    def split(self, share: float) -> tuple[Self, Self]:
        """Returns the set without a share of its samples, and the set of these."""

    def load(self, index: int, size: Size, draw: Draw) -> np.ndarray:
        """Loads a sample.

        Args:
            index: which one, below `len`.
            size: height and width that the sample is wanted at; a photo may come larger.
            draw: seed and number that all random choices follow from.

        Returns:
            float32 array (H, W, 4) in [0, 1]: red, green, blue and alpha.

        Raises:
            ImageError: if a file cannot be read any more.
        """


@dataclass
class PairSet:
    """Images and alphas from disk, as loose files or in shards."""

    pairs: Sequence[Pair | PackedPair]
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
            PairSet(kept, self.weight, self.coarse),
            PairSet(held_out, self.weight, self.coarse),
        )

    def load(self, index: int, size: Size, draw: Draw) -> np.ndarray:
        """Reads a pair; a large one is shrunk by whole steps, to no less than twice `size`."""
        image, alpha = self.pairs[index].read()
        shrink = min(alpha.shape[0] // (2 * size[0]), alpha.shape[1] // (2 * size[1]))
        if shrink > 1:  # of the same whole pixels in both, so that they stay aligned
            image = np.asarray(Image.fromarray(image).reduce(shrink))
            alpha = np.asarray(Image.fromarray(alpha).reduce(shrink))
        return _stacked(image, alpha)


@dataclass
class CompositeSet:
    """Foregrounds over backgrounds, which are drawn anew each time."""

    cutouts: Sequence[Cutout]
    backgrounds: Sequence[Background]
    weight: float = 1.0
    coarse: bool = False

    def __len__(self) -> int:
        return len(self.cutouts)

    def fractions(self) -> list[float]:
        """See `SampleSet`."""
        return [stem_fraction(cutout.stem) for cutout in self.cutouts]

    def split(self, share: float) -> tuple["CompositeSet", "CompositeSet"]:
        """See `SampleSet`; backgrounds are split too, unless one side would have none."""
        kept, held_out = split(self.cutouts, share)
        backgrounds = split(self.backgrounds, share)
        if not all(backgrounds):
            backgrounds = list(self.backgrounds), list(self.backgrounds)
        return (
            CompositeSet(kept, backgrounds[0], self.weight),
            CompositeSet(held_out, backgrounds[1], self.weight),
        )

    def load(self, index: int, size: Size, draw: Draw) -> np.ndarray:
        """Lays a foreground over a background."""
        random = np.random.default_rng(draw)
        foreground, alpha = self.cutouts[index].read()
        background = self.backgrounds[int(random.integers(len(self.backgrounds)))].read()
        return composite(foreground, alpha, background, size, random)


@dataclass
class SyntheticSet:
    """Procedural samples, new ones each time."""

    count: int
    weight: float = 1.0
    coarse: bool = False

    def __len__(self) -> int:
        return self.count

    def fractions(self) -> list[float]:
        """See `SampleSet`; there are no stems."""
        return []

    def split(self, share: float) -> tuple["SyntheticSet", "SyntheticSet"]:
        """See `SampleSet`; as samples are made, not taken, the first part stays whole."""
        return self, SyntheticSet(max(1, round(share * self.count)), self.weight)

    def load(self, index: int, size: Size, draw: Draw) -> np.ndarray:
        """Makes the sample of a draw."""
        return _stacked(*synthetic.sample(*draw, size))


def open_sources(config: DataConfig) -> tuple[list[SampleSet], list[SampleSet]]:
    """Finds and checks all samples that a config names.

    Args:
        config: the data section of a config.

    Returns:
        The sets for training and those for validation, none of them empty.

    Raises:
        DataError: with everything that is wrong with the files; if nothing is left of a source; or
            if there are too few samples to hold some out.
    """
    own_validation = config.validation if isinstance(config.validation, list) else []
    problems: list[str] = []
    opened = [_open(source, problems) for source in [*config.train, *own_validation]]
    report(problems, config.on_bad_data)
    if any(len(samples) == 0 for samples in opened):
        raise DataError("A source has no usable file left after skipping the bad ones.")
    if isinstance(config.validation, list):
        return opened[: len(config.train)], opened[len(config.train) :]
    if config.validation == 0:
        return opened, []
    return _held_out(opened, config.validation)


def _open(source: Source, problems: list[str]) -> SampleSet:
    """Finds and checks the files of a source; appends what is wrong with them."""
    if isinstance(source, SyntheticSource):
        return SyntheticSet(source.count, source.weight)
    if isinstance(source, PairsSource | ShardsSource):
        found_pairs, unmatched = _find(source)
        pairs, bad = check(found_pairs)
        problems += unmatched + bad
        return PairSet(pairs, source.weight, source.coarse)
    found_cutouts, unmatched = find_cutouts(source.foregrounds, source.alphas)
    cutouts, bad = check(found_cutouts)
    problems += unmatched + bad
    found_backgrounds, unmatched = find_backgrounds(source.backgrounds)
    backgrounds, bad = check(found_backgrounds)
    problems += unmatched + bad
    return CompositeSet(cutouts if backgrounds else [], backgrounds, source.weight)


def _find(source: PairsSource | ShardsSource) -> tuple[Sequence[Pair | PackedPair], list[str]]:
    """Finds the pairs of a source, and what is wrong with the rest."""
    if isinstance(source, ShardsSource):
        return find_packed_pairs(source.shards)
    return find_pairs(source.images, source.alphas)


def _held_out(opened: Sequence[SampleSet], share: float) -> tuple[list[SampleSet], list[SampleSet]]:
    """Splits a share of all sets off."""
    fractions = [fraction for samples in opened for fraction in samples.fractions()]
    if fractions and len(fractions) == sum(map(len, opened)):
        # Of very few files a small share may be none: then it is the one that comes first.
        share = max(share, np.nextafter(min(fractions), 1))
    halves = [samples.split(share) for samples in opened]
    training = [kept for kept, _ in halves if len(kept)]
    validation = [held_out for _, held_out in halves if len(held_out)]
    if not training:
        raise DataError(
            f"Expected enough samples to hold out {share:.3g} of them for validation, received "
            f"{len(fractions)}; give more, or set `validation` to 0 or to folders of their own."
        )
    return training, validation


def _stacked(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Joins uint8 image and alpha to float32 (H, W, 4) in [0, 1]."""
    sample = np.empty((*alpha.shape, 4), np.float32)
    sample[..., :3] = image
    sample[..., 3] = alpha
    sample /= 255
    return sample
