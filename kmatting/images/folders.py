"""Lists the image files of folders."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from kmatting.errors import ImageError
from kmatting.images.formats import FORMATS, extra_hint, image_suffixes, is_installed
from kmatting.images.opening import shown
from kmatting.terminal import counted


@dataclass(frozen=True)
class Listing:
    """What a folder holds. Hidden files and folders (`.x`, `._x.jpg`) do not count.

    Attributes:
        photos: paths of the image files, sorted.
        left_out: number of others (other files, named pipes, devices) by suffix in lower case; ""
            for those without a suffix.
        subfolders: number of folders in it that were not searched.
    """

    photos: list[Path]
    left_out: dict[str, int] = field(default_factory=dict)
    subfolders: int = 0

    def note(self, recursive: str = "") -> str:
        """Returns in one phrase what was left out; "" if nothing was.

        Args:
            recursive: what searches the folders in it, such as "--recursive".
        """
        parts = []
        if self.left_out:
            counts = [
                f"{count} {suffix or 'without a suffix'}"
                for suffix, count in sorted(self.left_out.items())
            ]
            parts.append(f"left out {', '.join(counts)}: not photos that can be read")
            parts.extend(
                extra_hint(each)
                for each in FORMATS
                if not is_installed(each) and not self.left_out.keys().isdisjoint(each.suffixes)
            )
        if self.subfolders:
            hint = f" ({recursive} does)" if recursive else ""
            parts.append(f"did not search {counted(self.subfolders, 'folder')} in it{hint}")
        return "; ".join(parts)


def scan_folder(folder: str | os.PathLike[str], recursive: bool = False) -> Listing:
    """Lists the image files of a folder and counts what is left out.

    Args:
        folder: the folder.
        recursive: whether to search the folders in it too. Links to folders are not followed.

    Returns:
        The `Listing`.

    Raises:
        ImageError: if the folder does not exist, is a file, or cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "does not exist"
        raise ImageError(f"{shown(folder)}: expected a folder of images, but it {state}.")
    suffixes = image_suffixes()
    photos: list[Path] = []
    left_out: Counter[str] = Counter()
    subfolders = 0
    waiting = [os.fspath(folder)]
    while waiting:
        for entry in _entries(waiting.pop()):
            suffix = Path(entry.name).suffix.lower()
            if _is_folder(entry):
                if not recursive:
                    subfolders += 1
                elif not entry.is_symlink():
                    waiting.append(entry.path)
            elif suffix in suffixes and not _is_special(entry):
                photos.append(Path(entry.path))
            else:
                left_out[suffix] += 1
    return Listing(sorted(photos), dict(left_out), subfolders)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """Lists what a folder holds, without hidden files and folders."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise ImageError(f"{folder}: the folder cannot be read: {error.strerror}.") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # such as links in a circle
        return False


def _is_special(entry: os.DirEntry[str]) -> bool:
    """Returns whether an entry is a named pipe, a device or a socket: reading could wait forever.

    A link to nothing is none: it is listed, so that reading it says what is missing.
    """
    try:
        return not entry.is_file() and Path(entry.path).exists()
    except OSError:
        return False


def list_images(folder: str | os.PathLike[str], recursive: bool = False) -> list[Path]:
    """Lists the image files of a folder, sorted by path: the photos of `scan_folder`.

    Args:
        folder: as in `scan_folder`.
        recursive: as in `scan_folder`.

    Returns:
        Paths of the files.

    Raises:
        ImageError: as in `scan_folder`.
    """
    return scan_folder(folder, recursive).photos
