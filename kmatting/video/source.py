"""Where a clip's bytes lie: in a file, or in a pipe that is read once and kept."""

import contextlib
import os
import shutil
import stat
import sys
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from kmatting.errors import VideoError

_BLOCK = 1 << 20  # bytes
_START = 16  # bytes that tell formats apart
_OPEN_FILES = Path("/proc/self/fd")  # of Linux: opens a file that has no name any more


class Source:
    """A file that is read as often as needed: for its frames, its sound, or over and over.

    A pipe can be read only once. So it is copied to a temporary file, which is gone when nothing
    refers to this object any more, or after `close()`.

    Args:
        path: path of a file or a named pipe.

    Attributes:
        name: what messages call it.
        path: path of a regular file, to be opened as often as needed.
        is_copy: whether that file is a copy of a pipe.

    Raises:
        VideoError: if it cannot be read, or is neither a file nor a pipe.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name, self.path, self.is_copy = str(path), Path(path), False
        try:
            # By Python, since a signal ends its wait for a writer. FFmpeg would continue to wait.
            with self.path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                if stat.S_ISFIFO(mode):
                    self._keep(file)
        except OSError as error:
            raise VideoError(f"{path}: {_reason(error)}.") from error
        except ValueError as error:  # a NUL in it
            raise VideoError(f"{path!r}: expected the path of a file.") from error
        if not self.is_copy and not stat.S_ISREG(mode):
            raise VideoError(f"{path}: is a device, expected a file or a pipe.")

    @classmethod
    def of_standard_input(cls) -> "Source":
        """Reads standard input to its end.

        Raises:
            VideoError: if it is a terminal, or cannot be kept.
        """
        source = cls.__new__(cls)
        source.name = "standard input"
        if sys.stdin.isatty():
            raise VideoError("standard input is a terminal; give it a video: < in.mp4")
        try:
            source._keep(sys.stdin.buffer)
        except OSError as error:
            raise VideoError(f"{source.name}: {_reason(error)}.") from error
        return source

    def close(self) -> None:
        """Removes the copy of a pipe."""
        if self.is_copy:
            self._release()

    def start(self) -> bytes:
        """Returns the first bytes."""
        with self.path.open("rb") as file:
            return file.read(_START)

    def _keep(self, stream: IO[bytes]) -> None:
        """Copies a stream to a temporary file."""
        with contextlib.ExitStack() as stack:
            self.path = stack.enter_context(temporary_file())
            with self.path.open("wb") as file:
                shutil.copyfileobj(stream, file, _BLOCK)
            self._release = weakref.finalize(self, stack.pop_all().close)
        self.is_copy = True


@contextlib.contextmanager
def temporary_file() -> Iterator[Path]:
    """Makes an empty file that is gone at the end.

    On Linux it has no name of its own, so that not even `kill -9` leaves it behind.
    """
    if _OPEN_FILES.is_dir():
        with tempfile.TemporaryFile() as file:
            yield _OPEN_FILES / str(file.fileno())
    else:
        with tempfile.TemporaryDirectory(prefix="kmatting-") as folder:
            yield Path(folder, "clip")


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    return f"cannot be read or kept in {tempfile.gettempdir()}: {error.strerror}"
