"""Composites: foregrounds over backgrounds, drawn anew each epoch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import field_validator

from kmatting.data.backgrounds import Background, open_backgrounds
from kmatting.data.compositing import SCALE, composite
from kmatting.data.folders import list_stems, match_folders
from kmatting.data.foregrounds import ForegroundCache
from kmatting.data.pairs import compare_sizes
from kmatting.data.reading import read_training_alpha, read_training_cutout
from kmatting.data.samples import Checker, Draw, Listed, Size, SourceSection, split
from kmatting.errors import ImageError

LARGEST_SCALE = 4  # beyond it little more than a patch of the subject is left


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
        scale: bounds of the foreground's size; 1 is the largest that fits into the frame.
            `[0.15, 0.5]` teaches small subjects in large scenes.
    """

    kind: Literal["composite"] = "composite"
    foregrounds: Path
    alphas: Path | None = None
    backgrounds: Path
    recursive: bool = False
    estimate_foreground: bool = True
    scale: tuple[float, float] = SCALE

    @field_validator("scale")
    @classmethod
    def _ordered(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if not 0 < scale[0] <= scale[1] <= LARGEST_SCALE:
            raise ValueError(f"expected 0 < low <= high <= {LARGEST_SCALE}, received {list(scale)}")
        return scale

    def open(self, checker: Checker) -> "CompositeSet":
        """See `SourceSection`."""
        cutouts, problems, notes = find_cutouts(self.foregrounds, self.alphas, self.recursive)
        checker.add(problems, notes)
        good = checker.keep_good(cutouts, str(self.alphas or self.foregrounds))
        backgrounds = open_backgrounds(self.backgrounds, self.recursive, checker)
        return CompositeSet(
            good if backgrounds else [],
            str(self.foregrounds),
            self.weight,
            backgrounds=backgrounds,
            estimates=ForegroundCache() if self.alphas and self.estimate_foreground else None,
            scale=self.scale,
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
        colours, opacity = read_training_cutout(self.foreground)
        if self.alpha is not None:
            alpha = read_training_alpha(self.alpha)
            compare_sizes(alpha, str(self.alpha), colours, str(self.foreground))
            return colours, alpha
        if opacity is None:
            raise ImageError(
                f"{self.foreground}: expected a cutout with transparency, received an opaque "
                "image; give the folder of its alphas as `alphas`, or remove it."
            )
        return colours, opacity


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
class CompositeSet(Listed[Cutout]):
    """Foregrounds over backgrounds, which are drawn anew each time; see `SampleSet`.

    Attributes:
        backgrounds: the backgrounds.
        estimates: loads the foregrounds that are photos; None if their colours are pure.
        scale: as in `CompositeSource`.
    """

    backgrounds: Sequence[Background] = ()
    estimates: ForegroundCache | None = None
    scale: tuple[float, float] = SCALE

    def split(self, share: float) -> tuple["CompositeSet", "CompositeSet"]:
        """See `SampleSet`; backgrounds are split too, unless one side would have none."""
        kept, held_out = super().split(share)
        backgrounds = split(self.backgrounds, share)
        if all(backgrounds):
            kept.backgrounds, held_out.backgrounds = backgrounds
        return kept, held_out

    def load(self, index: int, size: Size, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
        """Lays a foreground over a background."""
        random = np.random.default_rng(draw)
        cutout = self.samples[index]
        foreground, alpha = self.estimates.load(cutout, size) if self.estimates else cutout.read()
        chosen = self.backgrounds[int(random.integers(len(self.backgrounds)))]
        background, _ = chosen.read(size)
        return composite(foreground, alpha, background, size, random, self.scale)
