"""Background removal in one call, with the shipped model."""

import functools
import io
import os
import threading
from typing import IO, overload

import numpy as np
from PIL import Image

from kmatting.images import Source
from kmatting.images.png import write_png
from kmatting.inference.matter import Matter

_loading = threading.Lock()


@overload
def remove(photo: bytes | bytearray | memoryview | IO[bytes]) -> bytes: ...
@overload
def remove(photo: np.ndarray) -> np.ndarray: ...
@overload
def remove(photo: str | os.PathLike[str] | Image.Image) -> Image.Image: ...


def remove(photo: Source) -> bytes | np.ndarray | Image.Image:
    """Cuts the subject out of a photo with the shipped model.

    The model is loaded by the first call and kept. Threads may call this at the same time. For
    another model, or for the matte itself, use `kmatting.Matter`.

    Args:
        photo: path, encoded bytes, binary file, PIL image, or uint8 array (H, W), (H, W, 3) or
            (H, W, 4).

    Returns:
        The cutout in the same kind: PNG bytes for bytes or a file, a uint8 array (H, W, 4) for an
        array, a PIL image in mode RGBA for a PIL image or a path. Colours are not premultiplied.

    Raises:
        ImageError: if the photo cannot be read.
        TypeError: if `photo` is of another type.

    Examples:
        >>> kmatting.remove("photo.jpg").save("cutout.png")
        >>> png = kmatting.remove(request.body)
    """
    with _loading:
        matter = _default_matter()
    cutout = matter(photo).cutout()
    if isinstance(photo, str | os.PathLike | Image.Image):
        return cutout
    if isinstance(photo, np.ndarray):
        return np.array(cutout)
    encoded = io.BytesIO()
    write_png(encoded, cutout)
    return encoded.getvalue()


@functools.cache
def _default_matter() -> Matter:
    return Matter()
