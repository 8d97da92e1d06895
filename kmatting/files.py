"""Writes files whole or not at all."""

import contextlib
import errno
import functools
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from kmatting.errors import Error, UsageError

__all__ = [
    "check_folder",
    "check_writable",
    "partial_folder",
    "sync_folder",
    "sync_tree",
    "whole_file",
    "whole_folder",
]

# Suffixes of files that the module mimetypes does not know everywhere.
_SUFFIXES = {
    *(".keras", ".tflite", ".onnx", ".h5", ".pb", ".npy", ".npz", ".tfrecord", ".safetensors"),
    *(".avif", ".heic", ".heif", ".jxl", ".psd", ".exr", ".webp", ".apng", ".mkv", ".mov"),
    *(".yaml", ".yml", ".jsonl", ".parquet", ".7z", ".zst", ".rar", ".log"),
}
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
    # Short whatever the destination is called: it may be as long as the file system allows.
    suffix = path.suffix if len(path.suffix) <= _LONGEST_SUFFIX else ""
    partial = _partial(folder, suffix)
    try:
        with _naming(path):
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
        The folder to write to. After an exception it is removed. What a killed process left is
        removed as by `whole_file`.

    Raises:
        OSError: if the folder cannot be written.
    """
    path = Path(path)
    with partial_folder(path.parent) as partial, _naming(path):
        yield partial
        sync_tree(partial)
        partial.replace(path)
        sync_folder(path.parent)


@contextlib.contextmanager
def partial_folder(parent: Path) -> Iterator[Path]:
    """Makes a folder with a name of its own, to be filled and renamed; removes it otherwise.

    Args:
        parent: the folder to make it in; made if it does not exist.

    Yields:
        The folder. If the process is killed, the next one that writes to `parent` removes it.

    Raises:
        OSError: if it cannot be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(parent)
    partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_folder(folder: Path, option: str) -> None:
    """Refuses a folder to be made whose name is that of a file, such as `report.csv`.

    Args:
        folder: the folder, which one that exists may be called what it will.
        option: how it was given, such as "--output".

    Raises:
        UsageError: if the suffix is known as one of files.
    """
    import mimetypes  # here, as it takes time to load

    suffix = folder.suffix.lower()
    is_file = suffix in _SUFFIXES or mimetypes.MimeTypes().guess_type(f"a{suffix}") != (None, None)
    if is_file and not folder.is_dir():
        raise UsageError(
            f"{option} {folder}: names a {suffix} file, expected a folder, such as "
            f"{folder.with_suffix('')}."
        )


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Lets errors of the disk name the destination, such as a full one, which names nothing."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


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


def _partial(folder: Path, suffix: str = "") -> Path:
    """Names what is to be written in a folder; removes what killed processes left there."""
    _remove_leftovers(folder)
    return folder / f".{_machine()}-{os.getpid()}-{os.urandom(4).hex()}.partial{suffix}"


@functools.cache
def _remove_leftovers(folder: Path) -> None:
    """Removes what killed processes of this machine left in a folder; looks once per process."""
    if os.name == "nt":  # has no harmless way to ask whether a process is alive
        return
    pattern = re.compile(rf"\.{_machine()}-(\d+)-[0-9a-f]{{8}}\.partial")
    with os.scandir(folder) as entries:
        found = [(entry, pattern.match(entry.name)) for entry in entries]
    for entry, match in found:
        if match and not _is_alive(int(match[1])):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
                continue
            with contextlib.suppress(OSError):
                Path(entry.path).unlink()


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
