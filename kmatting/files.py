"""Writes files whole or not at all."""

import contextlib
import errno
import functools
import os
import re
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from kmatting.errors import Error, UsageError

_LONGEST_SUFFIX = 16  # characters; what is longer belongs to a name with a full stop in it


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Writes a file beside its destination and renames it at the end.

    An exception, a kill, a full disk or a power failure leaves the previous file whole. What a
    killed process left half-written is removed by the next process that writes to the folder.

    Args:
        path: the destination. Its folder is made if it does not exist.

    Yields:
        The path to write to, in the same folder and with the same suffix.

    Raises:
        OSError: if the file cannot be written.
    """
    path = Path(path)
    folder = path.parent
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    # Short whatever the destination is called: it may be as long as the file system allows.
    suffix = path.suffix if len(path.suffix) <= _LONGEST_SUFFIX else ""
    partial = folder / f".{_machine()}-{os.getpid()}-{os.urandom(4).hex()}.partial{suffix}"
    try:
        yield partial
        _sync(partial)
        partial.replace(path)
        sync_folder(folder)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Fills a folder beside its destination and renames it at the end, when it is on the disk.

    Args:
        path: the destination. It must not exist, or be an empty folder.

    Yields:
        The folder to write to. After an exception it is removed.

    Raises:
        OSError: if the folder cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=path.parent, prefix=".", suffix=".partial", ignore_cleanup_errors=True
    ) as beside:
        partial = Path(beside) / path.name
        partial.mkdir()
        yield partial
        sync_tree(partial)
        partial.replace(path)
        sync_folder(path.parent)


def sync_tree(folder: Path) -> None:
    """Waits until all files in a folder and the folders in it are on the disk.

    Args:
        folder: the folder.

    Raises:
        OSError: if they cannot be written.
    """
    for place, _, files in os.walk(folder):
        for name in files:
            _sync(Path(place, name))
        sync_folder(Path(place))


def check_writable(folder: Path) -> None:
    """Checks that files can be made in a folder, or in the one that it will be made in.

    Args:
        folder: the folder; it need not exist.

    Raises:
        OSError: if they cannot.
    """
    place = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not place.is_dir():
        raise UsageError(f"{folder}: expected a folder, but {place} is a file.")
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise Error(f"{folder}: cannot be written to: {error.strerror}.") from error


def _sync(path: Path) -> None:
    """Waits until the bytes of a file are on the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk, where the system can do that.

    Args:
        folder: the folder.

    Raises:
        OSError: if they cannot be written.
    """
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


@functools.cache
def _remove_leftovers(folder: Path) -> None:
    """Removes what killed processes of this machine left in a folder; looks once a process."""
    if os.name == "nt":  # has no harmless way to ask whether a process is alive
        return
    pattern = re.compile(rf"\.{_machine()}-(\d+)-[0-9a-f]{{8}}\.partial")
    with os.scandir(folder) as entries:
        found = [(entry.path, pattern.match(entry.name)) for entry in entries]
    for path, match in found:
        if match and not _is_alive(int(match[1])):
            with contextlib.suppress(OSError):
                Path(path).unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


@functools.cache
def _machine() -> str:
    """Names the set of process numbers that this process belongs to.

    Two machines, or two containers, may share a folder; each has processes of the same number.
    """
    try:
        space = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:  # not Linux
        space = 0
    host = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
    return f"{zlib.crc32(f'{host} {space}'.encode()):08x}"
