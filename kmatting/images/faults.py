"""Turns what goes wrong while a picture is read into an `ImageError` that names it."""

import contextlib
import errno
from collections.abc import Iterator

from kmatting.errors import Error, ImageError

_OF_THE_DATA = (None, errno.EINVAL, errno.EOVERFLOW)  # such as a place before the file's start


@contextlib.contextmanager
def decoder_errors() -> Iterator[None]:
    """Reports whatever a decoder raises as a damaged image.

    Decoders raise nearly every type of error on broken files. So this surrounds calls of decoders
    alone: around kmatting's code it would take a bug of kmatting for a damaged file.
    """
    try:
        yield
    except (Error, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in _OF_THE_DATA:
            raise  # the disk's
        reason = " ".join(str(error).split())  # some write several lines
        raise ImageError(f"damaged or truncated image ({reason}).") from error


@contextlib.contextmanager
def named_errors(name: str) -> Iterator[None]:
    """Puts the name of an image before the errors that are meant for a user."""
    try:
        yield
    except ImageError as error:
        if str(error).startswith(name):
            raise
        raise ImageError(f"{name}: {error}") from error
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file.") from error
    except IsADirectoryError as error:
        raise ImageError(f"{name}: is a folder, expected an image file.") from error
    except PermissionError as error:
        raise ImageError(f"{name}: no permission to read it.") from error
    except OSError as error:
        raise ImageError(f"{name}: cannot be read: {error.strerror or error}.") from error
    except MemoryError as error:
        raise ImageError(f"{name}: there is not enough memory to read it.") from error
