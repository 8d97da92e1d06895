"""Composites: foregrounds over backgrounds, drawn anew each epoch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from kmatting.data.backgrounds import Background, open_backgrounds
from kmatting.data.compositing import composite
from kmatting.data.folders import list_stems, match_folders
from kmatting.data.foregrounds import ForegroundCache
from kmatting.data.pairs import compare_sizes
from kmatting.data.samples import Checker, Draw, Size, SourceSection, split, stem_fraction
from kmatting.errors import ImageError
from kmatting.images import read_alpha, read_photo


class CompositeSource(SourceSection):
    """Foregrounds laid over random backgrounds, drawn anew each epoch.

    Attributes:
        foregrounds: folder of RGBA cutouts; or of photos, whose mattes are in `alphas`.
        alphas: folder of mattes, matched by stem.
        backgrounds: folder of photos without a subject.
        recursive: search the folders in them too.
        estimate_foreground: with `alphas`, estimate the colours of the subject, without the
            background that shines through at soft edges. Set it to false where the files show pure
            foreground colours, as those of Deep Image Matting do.
    """

    kind: Literal["composite"] = "composite"
    foregrounds: Path
    alphas: Path | None = None
    backgrounds: Path
    recursive: bool = False
    estimate_foreground: bool = True

    def open(self, checker: Checker) -> "CompositeSet":
        """See `SourceSection`."""
        cutouts, problems, notes = find_cutouts(self.foregrounds, self.alphas, self.recursive)
        checker.add(problems, notes)
        good = checker.keep_good(cutouts, str(self.alphas or self.foregrounds))
        backgrounds = open_backgrounds(self.backgrounds, self.recursive, checker)
        return CompositeSet(
            good if backgrounds else [],
            backgrounds,
            str(self.foregrounds),
            self.weight,
            ForegroundCache() if self.alphas and self.estimate_foreground else None,
        )


@dataclass(frozen=True)
class Cutout:
    """A foreground and its alpha: one file with transparency, or two files.

    Attributes:
        foreground: path of the foreground.
        alpha: path of the matte, or None where the foreground's transparency is the alpha.
    """

    foreground: Path
    alpha: Path | None = None

    @property
    def stem(self) -> str:
        """Name of the foreground without its suffix."""
        return self.foreground.stem

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, or both."""
        return (self.foreground,) if self.alpha is None else (self.foreground, self.alpha)

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Reads the file, or both.

        Returns:
            foreground: uint8 array (H, W, 3), upright; transparent parts have their own colours.
            alpha: uint8 array (H, W), 255 is foreground.

        Raises:
            ImageError: as `Pair.read`, and if there is neither transparency nor another file.
        """
        photo = read_photo(self.foreground)
        if self.alpha is not None:
            alpha = read_alpha(self.alpha)
            compare_sizes(alpha, str(self.alpha), photo.rgb, str(self.foreground))
            return photo.rgb, alpha
        if photo.opacity is None:
            raise ImageError(
                f"{self.foreground}: expected a cutout with transparency, received an opaque "
                "image; give the folder of its alphas as `alphas`, or remove it."
            )
        return photo.rgb, photo.opacity


def find_cutouts(
    foregrounds: Path, alphas: Path | None, recursive: bool = False
) -> tuple[list[Cutout], list[str], list[str]]:
    """Lists foregrounds, with their alphas where these are separate files; reads no file.

    Args:
        foregrounds: folder of RGBA cutouts, or of photos whose alphas are in another folder.
        alphas: folder of mattes, or None.
        recursive: whether to search the folders in them too.

    Returns:
        The cutouts, sorted by name; what is wrong with the rest, a line each; and what was left out
        on purpose, a line each.
    """
    if alphas is None:
        found = list_stems(foregrounds, recursive)
    else:
        found = match_folders(foregrounds, alphas, "foreground", recursive)
    return [Cutout(*files) for files in found.files], found.problems, found.notes


@dataclass
class CompositeSet:
    """Foregrounds over backgrounds, which are drawn anew each time; see `SampleSet`.

    Attributes:
        cutouts: the foregrounds.
        backgrounds: the backgrounds.
        name: as in `SampleSet`.
        weight: as in `SampleSet`.
        estimates: loads the foregrounds that are photos; None if their colours are pure.
        coarse: as in `SampleSet`.
    """

    cutouts: Sequence[Cutout]
    backgrounds: Sequence[Background]
    name: str
    weight: float = 1.0
    estimates: ForegroundCache | None = None
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
            CompositeSet(kept, backgrounds[0], self.name, self.weight, self.estimates),
            CompositeSet(held_out, backgrounds[1], self.name, self.weight, self.estimates),
        )

    def load(self, index: int, size: Size, draw: Draw) -> np.ndarray:
        """Lays a foreground over a background."""
        random = np.random.default_rng(draw)
        cutout = self.cutouts[index]
        foreground, alpha = self.estimates.load(cutout, size) if self.estimates else cutout.read()
        background, _ = self.backgrounds[int(random.integers(len(self.backgrounds)))].read()
        return composite(foreground, alpha, background, size, random)
