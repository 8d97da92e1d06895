"""Lists the photos of folders and matches those of two folders by name; reads no file."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kmatting.errors import ImageError
from kmatting.images import scan_folder
from kmatting.pictures.names import matte_stem


@dataclass
class Found:
    """Files of a source.

    Attributes:
        files: the files of each sample, in the order of their names.
        problems: what is wrong with the others, a line each.
        notes: what was left out on purpose, a line each.
    """

    files: list[tuple[Path, ...]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def list_folder(folder: Path, recursive: bool = False) -> Found:
    """Lists the photos of a folder.

    Args:
        folder: the folder.
        recursive: whether to search the folders in it too.

    Returns:
        What was found, sorted by path.
    """
    try:
        listing = scan_folder(folder, recursive)
    except ImageError as error:
        return Found(problems=[str(error)])
    note = listing.note()
    if not listing.photos:
        hint = "; set `recursive: true` to search them" if listing.subfolders else ""
        reason = f": {note}{hint}" if note else "."
        problem = f"{folder}: expected a folder of images, but it holds none{reason}"
        return Found(problems=[problem])
    files: list[tuple[Path, ...]] = [(path,) for path in listing.photos]
    return Found(files, notes=[f"{folder}: {note}"] if note else [])


def list_stems(folder: Path, recursive: bool = False) -> Found:
    """Lists the photos of a folder, none of which may share its name with another.

    Args:
        folder: the folder.
        recursive: as in `list_folder`.

    Returns:
        What was found, sorted by name.
    """
    found = list_folder(folder, recursive)
    named, problems = _unique(_by_name(folder, found, _name))
    files: list[tuple[Path, ...]] = [(named[name],) for name in sorted(named)]
    return Found(files, found.problems + problems, found.notes)


def match_folders(images: Path, alphas: Path, kind: str, recursive: bool = False) -> Found:
    """Matches the photos of two folders by their paths in them, without the suffix.

    Args:
        images: folder of photos.
        alphas: folder of mattes.
        kind: what to call a photo in messages.
        recursive: as in `list_folder`.

    Returns:
        What was found, sorted by name: each a photo and its matte.
    """
    photos, mattes = list_folder(images, recursive), list_folder(alphas, recursive)
    notes = photos.notes + mattes.notes
    if photos.problems or mattes.problems:
        return Found([], photos.problems + mattes.problems, notes)
    photos_of = _by_name(images, photos, _name)
    mattes_of = _by_name(alphas, mattes, _matte_name)
    if not photos_of.keys() & mattes_of.keys():
        problem = (
            f"{images} and {alphas}: no two files have the same stem (such as "
            f"{photos.files[0][0].name} and {mattes.files[0][0].name}); rename the alphas after "
            f"their {kind}s."
        )
        return Found([], [problem], notes)
    problems = [
        f"{path}: {kind} without alpha ({name}.* in {alphas})."
        for name, paths in photos_of.items()
        if name not in mattes_of
        for path in paths
    ] + [
        f"{path}: alpha without {kind} ({name}.* in {images})."
        for name, paths in mattes_of.items()
        if name not in photos_of
        for path in paths
    ]
    photo_of, same_photos = _unique(photos_of)
    matte_of, same_mattes = _unique(mattes_of)
    matched = sorted(photo_of.keys() & matte_of.keys())
    files: list[tuple[Path, ...]] = [(photo_of[name], matte_of[name]) for name in matched]
    return Found(files, problems + same_photos + same_mattes, notes)


def _name(folder: Path, path: Path) -> str:
    """Names a file by its path in a folder, without the suffix."""
    return path.relative_to(folder).with_suffix("").as_posix()


def _matte_name(folder: Path, path: Path) -> str:
    """Names the photo that a matte belongs to, as `_name` would; `cat.alpha.png` is of `cat`."""
    return path.relative_to(folder).with_name(matte_stem(path)).as_posix()


def _by_name(
    folder: Path, found: Found, name_of: Callable[[Path, Path], str]
) -> dict[str, list[Path]]:
    """Groups files by their names."""
    paths_of: dict[str, list[Path]] = defaultdict(list)
    for (path,) in found.files:
        paths_of[name_of(folder, path)].append(path)
    return dict(paths_of)


def _unique(paths_of: dict[str, list[Path]]) -> tuple[dict[str, Path], list[str]]:
    """Returns the files with a name of their own, and a problem for each name of several."""
    problems = [
        f"{paths[0].parent}: {_names(paths)} have the same stem; keep one."
        for paths in paths_of.values()
        if len(paths) > 1
    ]
    return {name: paths[0] for name, paths in paths_of.items() if len(paths) == 1}, problems


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths)
