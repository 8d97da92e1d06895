"""Background removal in one call, with the shipped model."""

import functools
import os
import threading
from typing import IO, Any, overload

import numpy as np
from PIL import Image

from kmatting.images import Source
from kmatting.inference.matter import Matter

_loading = threading.Lock()


@overload
def remove(photo: bytes | bytearray | memoryview | IO[bytes], **options: Any) -> bytes: ...
@overload
def remove(photo: np.ndarray, **options: Any) -> np.ndarray: ...
@overload
def remove(photo: str | os.PathLike[str] | Image.Image, **options: Any) -> Image.Image: ...


def remove(photo: Source, **options: Any) -> bytes | np.ndarray | Image.Image:
    """Cuts the subject out of a photo with the shipped model.

    The model is loaded by the first call and kept. Threads may call this at the same time. For
    another model, or for the matte itself, use `kmatting.Matter`.

    Args:
        photo: path, encoded bytes, binary file, PIL image, or uint8 array (H, W), (H, W, 3) or
            (H, W, 4).
        **options: `background` for a composite in place of the cutout, and fields of
            `kmatting.Wanted`, as in `Matte.save`.

    Returns:
        The cutout in the same kind: PNG bytes for bytes or a file, a uint8 array (H, W, 4) for an
        array, a PIL image in mode RGBA for a PIL image or a path. Colours are not premultiplied.
        A composite has no alpha.

    Raises:
        ImageError: if the photo cannot be read.
        UsageError: if an option is wrong.
        TypeError: if `photo` is of another type.

    Examples:
        >>> kmatting.remove("photo.jpg").save("cutout.png")
        >>> png = kmatting.remove(request.body)
        >>> kmatting.remove("photo.jpg", background="white", crop="10%", shadow=0.5)
    """
    with _loading:
        matter = _default_matter()
    picture = matter(photo).picture(**options)
    if isinstance(photo, str | os.PathLike | Image.Image):
        return picture.pil_image()
    if isinstance(photo, np.ndarray):
        return np.array(picture.image)
    return picture.encode()


@functools.cache
def _default_matter() -> Matter:
    return Matter()
