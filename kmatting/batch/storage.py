"""Files of a batch job, on a disk or in any store that Apache Beam can reach."""

import contextlib
import itertools
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from apache_beam.io.filesystem import CompressionTypes, FileSystem
from apache_beam.io.filesystems import FileSystems

from kmatting.errors import UsageError

# Here a file appears when all of it is there, and a rename would be a copy.
_OBJECT_STORES = ("gs", "s3", "azfs")
_PARTIAL = ".partial"  # folder of the output in which files are written before they are renamed
_WILDCARD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Glob:
    """Photos to work on.

    Attributes:
        folder: absolute path or URL of a folder, taken literally, without a slash at its end.
        pattern: what to match below it: `*` stays in a folder, `**` goes into folders too. Letters
            match in any case. "" for a glob that is the path of one file.
        name: name of that file; "" for others.
    """

    folder: str
    pattern: str = ""
    name: str = ""

    @property
    def path(self) -> str:
        """The glob as one path."""
        return f"{self.folder}/{self.pattern or self.name}"


def read_glob(text: str) -> Glob:
    """Reads a glob, a file or a folder, as a user wrote it.

    Args:
        text: path or URL. On a disk, folders and files that exist under the very name are taken
            literally, so that `photos [2024]/*.jpg` works. A folder on a disk stands for all in it.

    Returns:
        The `Glob`.
    """
    path = absolute(text)
    if is_local(path):
        if Path(path).is_dir():
            return Glob(path, pattern="**")
        if Path(path).exists():
            folder, _, name = path.rpartition("/")
            return Glob(folder, name=name)
    parts = path.split("/")
    literal = 1
    while literal < len(parts) - 1:
        folder = "/".join(parts[: literal + 1])
        exists = is_local(path) and Path(folder).is_dir()
        if not exists and _WILDCARD.search(parts[literal]):
            break
        literal += 1
    folder, rest = "/".join(parts[:literal]), "/".join(parts[literal:])
    return Glob(folder, pattern=rest) if _WILDCARD.search(rest) else Glob(folder, name=rest)


def list_glob(glob: Glob) -> Iterator[str]:
    """Lists the files that a glob matches.

    Hidden files and folders below the glob's folder (`.x`, `._x.jpg`) are left out, as everywhere
    in kmatting.

    Args:
        glob: the glob.

    Yields:
        Path or URL of each file.

    Raises:
        OSError: if a store cannot be reached.
    """
    if not glob.pattern:
        if FileSystems.exists(glob.path):
            yield glob.path
        return
    matches = re.compile(FileSystem.translate_pattern(glob.pattern), re.IGNORECASE).match
    start = len(glob.folder) + 1
    for path in _walk(glob) if is_local(glob.folder) else _list_store(glob):
        inner = path[start:]
        if matches(inner) and not any(part.startswith(".") for part in inner.split("/")):
            yield path


def _walk(glob: Glob) -> Iterator[str]:
    deepest = None if "**" in glob.pattern else glob.pattern.count("/")
    top = glob.folder or "/"
    for place, folders, files in os.walk(top):
        inner = place[len(glob.folder) + 1 :]
        depth = len(inner.split("/")) if inner else 0
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if deepest is not None and depth >= deepest:
            folders.clear()
        for name in sorted(files):
            yield f"{place.rstrip('/')}/{name}"


def _list_store(glob: Glob) -> Iterator[str]:
    prefix = _WILDCARD.split(glob.path)[0]
    (found,) = FileSystems.match([prefix + "**"])
    for metadata in found.metadata_list:
        yield metadata.path


def namesakes(path: str, suffixes: Iterable[str]) -> list[str]:
    """Finds other files in a file's folder that have its name but for the suffix.

    Args:
        path: path or URL of the file.
        suffixes: the suffixes to look for, in lower case.

    Returns:
        Paths or URLs, sorted.

    Raises:
        OSError: if a store cannot be reached.
    """
    stem = path.removesuffix(PurePosixPath(path).suffix)
    if is_local(path):
        # A folder may hold millions of files: it is not listed for each of them.
        spelled = {way(suffix) for suffix in suffixes for way in (str.lower, str.upper, str.title)}
        found = [stem + suffix for suffix in spelled if Path(stem + suffix).exists()]
        return sorted(other for other in found if not Path(other).samefile(path))
    (matched,) = FileSystems.match([_WILDCARD.split(f"{stem}.")[0] + "*"])
    paths = [metadata.path for metadata in matched.metadata_list]
    return sorted(
        other
        for other in paths
        if other != path and other.startswith(stem) and other[len(stem) :].lower() in set(suffixes)
    )


def common_folder(globs: Iterable[Glob]) -> str:
    """Finds the folder below which all globs match; names of outputs are relative to it.

    Args:
        globs: the globs.

    Returns:
        Path or URL without a slash at its end.
    """
    folders = [glob.folder.split("/") for glob in globs]
    # Parts of the paths, as long as they are the same in all.
    common = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))
    return "/".join(parts[0] for parts in common)


def absolute(path: str) -> str:
    """Makes a local path or glob absolute, for workers with another working folder.

    Args:
        path: path or URL.

    Returns:
        Path or URL without a slash at its end.
    """
    if not is_local(path):
        return path.rstrip("/")
    return os.path.normpath(Path(path).absolute())


def is_local(path: str) -> bool:
    """Tells whether a path is one of this machine's file system, rather than a URL.

    Args:
        path: path or URL.
    """
    return FileSystems.get_scheme(path) is None


def is_inside(path: str, folder: str) -> bool:
    """Tells whether a path lies below a folder.

    Args:
        path: path or URL.
        folder: path or URL.
    """
    return path.startswith(folder.rstrip("/") + "/")


def read_bytes(path: str) -> bytes:
    """Reads a file.

    Args:
        path: path or URL.

    Returns:
        All of it.
    """
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        return file.read()


def write_whole(path: str, data: bytes, folder: str) -> None:
    """Writes a file so that it is seen when it is whole, whatever happens meanwhile.

    Args:
        path: path or URL of the file.
        data: all of it.
        folder: path or URL, on the same file system, of the folder for what is not yet whole.
            Unused for object stores, where a file appears when it is closed.
    """
    in_store = FileSystems.get_scheme(path) in _OBJECT_STORES
    partial = path if in_store else FileSystems.join(folder, f"{uuid.uuid4().hex}.png")
    try:
        write_lines(partial, [data], "image/png")
        if not in_store:
            parent = path.rpartition("/")[0]
            if not FileSystems.exists(parent):
                with contextlib.suppress(OSError):  # another worker was faster
                    FileSystems.mkdirs(parent)
            FileSystems.rename([partial], [path])
    except OSError:
        with contextlib.suppress(OSError):
            delete(partial)
        raise


def write_lines(path: str, lines: Iterable[bytes], mime_type: str) -> None:
    """Writes a file piece by piece.

    Args:
        path: path or URL.
        lines: the pieces.
        mime_type: what an object store is told of the content.
    """
    with FileSystems.create(
        path, mime_type=mime_type, compression_type=CompressionTypes.UNCOMPRESSED
    ) as file:
        for line in lines:
            file.write(line)


def delete(path: str) -> None:
    """Deletes a file or a folder with all in it. Beam's own `delete` takes the path for a glob.

    Args:
        path: path or URL.

    Raises:
        OSError: if it does not exist or cannot be deleted.
    """
    if not is_local(path):
        FileSystems.delete([path])
    elif Path(path).is_dir():
        shutil.rmtree(path)
    else:
        Path(path).unlink()


def partial_folder(output: str) -> str:
    """Returns the folder for what is not yet whole.

    Args:
        output: path or URL of the output folder.

    Returns:
        Path or URL.
    """
    return FileSystems.join(output, _PARTIAL)


def clear_partial(output: str) -> None:
    """Deletes what a job, or one that was killed, left in the folder for what is not yet whole.

    Args:
        output: path or URL of the output folder.
    """
    folder = partial_folder(output)
    with contextlib.suppress(OSError):  # there is none
        if not is_local(folder):
            (found,) = FileSystems.match([folder + "/**"])
            FileSystems.delete([metadata.path for metadata in found.metadata_list])
        delete(folder)


@contextlib.contextmanager
def local_copy(model: str) -> Iterator[Path]:
    """Fetches a model from wherever Beam can read it.

    Args:
        model: path or URL of a file or a SavedModel folder. A local one is used as it is.

    Yields:
        Path of the model on this machine, until the end of the block.

    Raises:
        ValueError: if it does not exist.
    """
    if is_local(model):
        yield Path(model)
        return
    model = model.rstrip("/")
    with tempfile.TemporaryDirectory(prefix="kmatting-") as folder:
        home = model.rpartition("/")[0]
        found = FileSystems.match([model, model + "/**"])
        urls = [metadata.path for result in found for metadata in result.metadata_list]
        for url in urls:
            if url.endswith("/"):  # how object stores write an empty folder
                continue
            copy = Path(folder, *url[len(home) + 1 :].split("/"))
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(read_bytes(url))
        if not urls:
            raise UsageError(f"{model}: no such file.")
        yield Path(folder, model.rpartition("/")[2])


def check_output(output: str, globs: Sequence[Glob]) -> None:
    """Checks that an output folder can be written to and does not hold the photos.

    Args:
        output: path or URL of the folder.
        globs: the photos.

    Raises:
        ValueError: if not.
    """
    if is_inside(common_folder(globs) + "/", output):
        raise UsageError(f"{output}: holds the photos; choose another --output.")
    probe = FileSystems.join(partial_folder(output), "probe")
    try:
        write_lines(probe, [], "text/plain")
        delete(probe)
    except OSError as error:
        raise UsageError(f"{output}: cannot be written to ({error}).") from error
