"""Finds samples on disk, checks every file before training, splits off a validation share."""

import hashlib
import os
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from tqdm import tqdm

from kmatting.images import (
    ImageError,
    read_alpha,
    read_image,
    read_photo,
    scan_folder,
)

_LISTED = 20  # problems that a message spells out


class DataError(ValueError):
    """Training data that cannot be used; the message lists everything wrong with it."""


class Sample(Protocol):
    """What is read from disk for one sample."""

    @property
    def stem(self) -> str:
        """Name that identifies the sample in its set and decides to which split it belongs."""

    def read(self) -> object:
        """Decodes the files; raises ImageError for whatever is wrong with them."""


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

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Reads both files.

        Returns:
            image: uint8 array (H, W, 3), upright; transparent parts over white.
            alpha: uint8 array (H, W), 255 is foreground.

        Raises:
            ImageError: if one cannot be read, the alpha has colours, or their sizes differ.
        """
        image = read_image(self.image)
        return image, _read_matching_alpha(self.alpha, image, self.image)


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
            return photo.rgb, _read_matching_alpha(self.alpha, photo.rgb, self.foreground)
        if photo.opacity is None:
            raise ImageError(
                f"{self.foreground}: expected a cutout with transparency, received an opaque "
                "image; give the folder of its alphas as `alphas`, or take it out."
            )
        return photo.rgb, photo.opacity


@dataclass(frozen=True)
class Background:
    """An image to lay foregrounds on.

    Attributes:
        image: path of the photo.
    """

    image: Path

    @property
    def stem(self) -> str:
        """Name of the image without its suffix."""
        return self.image.stem

    def read(self) -> np.ndarray:
        """Reads the file: uint8 array (H, W, 3), upright. Raises ImageError if it cannot be."""
        return read_image(self.image)


AnySample = TypeVar("AnySample", bound=Sample)


def find_pairs(images: Path, alphas: Path) -> tuple[list[Pair], list[str]]:
    """Matches the images of two folders by stem; reads no file.

    Args:
        images: folder of photos.
        alphas: folder of mattes.

    Returns:
        The pairs, sorted by stem, and what is wrong with the rest, a line each.
    """
    matched, problems = _match(images, alphas, "image")
    return [Pair(image, alpha) for image, alpha in matched], problems


def find_cutouts(foregrounds: Path, alphas: Path | None) -> tuple[list[Cutout], list[str]]:
    """Lists foregrounds, with their alphas where these are files of their own; reads no file.

    Args:
        foregrounds: folder of RGBA cutouts, or of foregrounds whose alphas are in another folder.
        alphas: folder of mattes, or None.

    Returns:
        The cutouts, sorted by stem, and what is wrong with the rest, a line each.
    """
    if alphas is not None:
        matched, problems = _match(foregrounds, alphas, "foreground")
        return [Cutout(foreground, alpha) for foreground, alpha in matched], problems
    files, problems = _list(foregrounds)
    named, twice = _by_stem(files)
    return [Cutout(named[stem]) for stem in sorted(named)], problems + twice


def find_backgrounds(folder: Path) -> tuple[list[Background], list[str]]:
    """Lists backgrounds; reads no file.

    Args:
        folder: folder of photos.

    Returns:
        The backgrounds, sorted by path, and what is wrong with the folder, if anything.
    """
    files, problems = _list(folder)
    return [Background(path) for path in files], problems


def check(samples: Sequence[AnySample]) -> tuple[list[AnySample], list[str]]:
    """Reads every file as training will, in parallel; a progress bar shows when it takes long.

    Args:
        samples: what to read.

    Returns:
        The samples that can be read, in order, and what is wrong with the rest, a line each.
    """

    def problem_of(sample: AnySample) -> str | None:
        try:
            sample.read()
        except ImageError as error:
            return str(error)
        return None

    # Decoding gives up the interpreter lock, so that threads use all cores.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(problem_of, samples)
        progress = tqdm(
            found, "checking files", len(samples), leave=False, unit="file", delay=2, disable=None
        )
        problems = list(progress)
    good = [sample for sample, problem in zip(samples, problems, strict=True) if not problem]
    return good, [problem for problem in problems if problem]


def report(problems: Sequence[str], on_bad_data: str) -> None:
    """Raises or warns about everything that was found wrong, at once.

    Args:
        problems: a line each.
        on_bad_data: `error` to raise, `skip` to warn.

    Raises:
        DataError: if there are problems and `on_bad_data` is `error`.
    """
    if not problems:
        return
    count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
    listed = "".join(f"\n  {problem}" for problem in problems[:_LISTED])
    if len(problems) > _LISTED:
        listed += f"\n  ... and {len(problems) - _LISTED} more"
    if on_bad_data == "skip":
        warnings.warn(f"Skipped bad training data, {count}:{listed}", stacklevel=2)
    else:
        raise DataError(
            f"{count} in the training data (on_bad_data: skip goes on without these files):{listed}"
        )


def split(samples: Iterable[AnySample], share: float) -> tuple[list[AnySample], list[AnySample]]:
    """Splits samples by a hash of the stem, so that a new sample never moves another.

    Args:
        samples: what to split. Equal stems, also of different sets, stay together.
        share: what share of the samples to hold out, from 0 to 1.

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


def _list(folder: Path) -> tuple[list[Path], list[str]]:
    """Lists the images of a folder, and what is wrong with it."""
    try:
        found = scan_folder(folder)
    except ImageError as error:
        return [], [str(error)]
    if found.photos:
        return found.photos, []
    reason = f": {found.note()}" if found.note() else "."
    return [], [f"{folder}: expected a folder of images, but it holds none{reason}"]


def _by_stem(files: Sequence[Path]) -> tuple[dict[str, Path], list[str]]:
    """Names files by stem; those that share one are left out, and said to be wrong."""
    named: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        named[path.stem].append(path)
    problems = [
        f"{paths[0].parent}: {', '.join(path.name for path in paths)} have the same stem; keep one."
        for paths in named.values()
        if len(paths) > 1
    ]
    return {stem: paths[0] for stem, paths in named.items() if len(paths) == 1}, problems


def _match(images: Path, alphas: Path, kind: str) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Matches the files of two folders by stem."""
    image_files, problems = _list(images)
    alpha_files, alpha_problems = _list(alphas)
    if problems or alpha_problems:
        return [], problems + alpha_problems
    image_stems, alpha_stems = (
        {path.stem for path in files} for files in (image_files, alpha_files)
    )
    if not image_stems & alpha_stems:
        return [], [
            f"{images} and {alphas}: no two files have the same stem (such as "
            f"{image_files[0].name} and {alpha_files[0].name}); rename the alphas after their "
            f"{kind}s."
        ]
    problems = [
        f"{path}: {kind} without alpha ({path.stem}.* in {alphas})."
        for path in image_files
        if path.stem not in alpha_stems
    ] + [
        f"{path}: alpha without {kind} ({path.stem}.* in {images})."
        for path in alpha_files
        if path.stem not in image_stems
    ]
    image_of, images_twice = _by_stem(image_files)
    alpha_of, alphas_twice = _by_stem(alpha_files)
    matched = sorted(image_of.keys() & alpha_of.keys())
    pairs = [(image_of[stem], alpha_of[stem]) for stem in matched]
    return pairs, problems + images_twice + alphas_twice


def compare(alpha: np.ndarray, alpha_name: str, image: np.ndarray, image_name: str) -> None:
    """Compares an alpha with its image.

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


def _read_matching_alpha(path: Path, image: np.ndarray, image_path: Path) -> np.ndarray:
    """Reads an alpha and compares it with its image."""
    alpha = read_alpha(path)
    compare(alpha, str(path), image, str(image_path))
    return alpha


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
