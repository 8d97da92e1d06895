"""Opens and decodes whatever holds a picture: a path, encoded bytes, a file, an array."""

import contextlib
import io
import os
import re
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageFile

from kmatting.errors import ImageError, ImageWarning
from kmatting.images.faults import decoder_errors, named_errors
from kmatting.images.formats import FORMATS, extra_hint, factory, is_installed, pictures_of
from kmatting.images.metadata import SIDEWAYS, exif_of, resolution

MAX_PIXELS = 178_956_970  # where Pillow itself refuses

_NAME_LENGTH = 500  # characters of a path that a message shows
_URL = re.compile(r"\A([a-z][a-z0-9+.-]{1,15}):/{1,2}(?=[^/])", re.IGNORECASE)  # `Path` drops one

_UPRIGHT = {  # what undoes an EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Source = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | np.ndarray | Image.Image
)


@dataclass(frozen=True)
class Decoded:
    """A picture whose pixels are in memory, upright.

    Attributes:
        image: the pixels in any mode, of 8 bits a channel, or of a single channel of any depth.
        name: what messages call its source.
        exif: its EXIF data.
        more: "frames", "pages" or "pictures" if the file holds further ones, else "".
        dpi: dots per inch across and down, or None.
    """

    image: Image.Image
    name: str
    exif: Image.Exif
    more: str
    dpi: tuple[float, float] | None

    def warn_of_more(self) -> None:
        """Warns of a file that holds further pictures."""
        if self.more:
            text = f"{self.name}: holds several {self.more}, only the {chosen(self.more)} is read."
            # From one place, so that Python shows it once for a file that is read repeatedly.
            warnings.warn(text, ImageWarning, stacklevel=1)


def chosen(more: str) -> str:
    """Returns which of several pictures is read."""
    return "main one" if more == "pictures" else "first"


@contextlib.contextmanager
def decoded(source: Source) -> Iterator[Decoded]:
    """Opens a source, decodes it and turns it upright; errors inside name the source."""
    with opened(source) as (image, name), named_errors(name):
        more = _more(image)
        # Pillow turns a TIFF when it decodes it, and forgets that it did.
        exif = exif_of(image) if _is_tiff(image) else None
        stored = exif.get(ExifTags.Base.Orientation) if exif else None
        picture = _pixels(image)
        if exif is None:
            exif = exif_of(picture)
        orientation = exif.get(ExifTags.Base.Orientation, 1)
        dpi = resolution(picture.info, exif)
        if dpi and (stored or orientation) in SIDEWAYS:
            dpi = dpi[::-1]
        if orientation in _UPRIGHT:
            turned = picture.transpose(_UPRIGHT[orientation])
            turned.info = picture.info
            picture = turned
        yield Decoded(picture, name, exif, more, dpi)


@contextlib.contextmanager
def opened(source: Source) -> Iterator[tuple[Image.Image, str]]:
    """Opens a source without decoding its pixels; yields the image and its name for messages."""
    if isinstance(source, Image.Image):
        with named_errors("image"):
            yield _copied(source), "image"
        return
    if isinstance(source, np.ndarray):
        yield _from_array(source), "array"
        return
    _check_type(source)
    with contextlib.ExitStack() as stack:
        name = _name(source)
        with named_errors(name):
            data: IO[bytes]
            if isinstance(source, str | os.PathLike):
                data = stack.enter_context(_open_path(source))
            else:
                data = io.BytesIO(_encoded(source))
            image = stack.enter_context(_identified(data))
            _check_size(image)
            if image.format in ("JPEG", "MPO"):
                from kmatting.images.jpeg import check_jpeg

                check_jpeg(data, image)
        yield image, name


def _pixels(image: Image.Image) -> Image.Image:
    """Decodes the pixels of an image that was opened."""
    if _is_tiff(image):
        from kmatting.images.tiff import read_tiff

        return read_tiff(image)
    if image.format == "PNG" and isinstance(image, ImageFile.ImageFile):
        from kmatting.images.sixteen_bit import is_sixteen_bit_png, read_sixteen_bit_png

        if is_sixteen_bit_png(image):
            return read_sixteen_bit_png(image)
    with decoder_errors():
        image.load()
    return image


def _is_tiff(image: Image.Image) -> bool:
    return image.format == "TIFF" and isinstance(image, ImageFile.ImageFile)


def _copied(source: Image.Image) -> Image.Image:
    """Copies an image of the caller's, which stays as it is."""
    _check_size(source)
    with decoder_errors():
        image = source.copy()
    tags = getattr(source, "tag_v2", None)  # of a TIFF
    if tags is None:
        return image
    from kmatting.images.tiff import check_planes, mend_levels

    check_planes(tags)
    return mend_levels(image, tags)


def _more(image: Image.Image) -> str:
    """Returns what further pictures a file holds that is not yet decoded, or ""."""
    kind = pictures_of(image.format)
    if not kind:
        return ""
    with decoder_errors():
        if not getattr(image, "is_animated", False):
            return ""
        if kind != "pages":
            return kind
        from kmatting.images.tiff import has_further_pages

        return kind if has_further_pages(image) else ""


def _name(source: object) -> str:
    """Names a source in messages."""
    if isinstance(source, str | os.PathLike):
        return shown(source) or "image"
    file_name = getattr(source, "name", None)  # of an open file
    return shown(file_name) if isinstance(file_name, str) else "image"


def shown(path: str | os.PathLike[str]) -> str:
    """Returns a path as messages show it: not too long, and a URL as it was written."""
    text = _URL.sub(r"\1://", os.fspath(path), count=1)
    return text if len(text) <= _NAME_LENGTH else text[:_NAME_LENGTH] + "..."


def _open_path(path: str | os.PathLike[str]) -> IO[bytes]:
    if not os.fspath(path):
        raise ImageError("expected the path of an image file, received an empty text.")
    try:
        file = Path(path).open("rb")  # noqa: SIM115
        if file.seekable():
            return file
        with file:  # a pipe
            return io.BytesIO(file.read())
    except ValueError:  # a NUL in it
        raise ImageError("expected the path of an image file.") from None
    except FileNotFoundError:
        if _URL.match(os.fspath(path)):
            raise ImageError("is a URL, expected a file; download it first.") from None
        raise


def _check_type(source: object) -> None:
    """Refuses what cannot hold a photo, without showing what it holds."""
    if isinstance(source, str | os.PathLike | bytes | bytearray | memoryview):
        return
    if isinstance(source, io.TextIOBase):
        received = "a file opened as text; open it with mode 'rb'"
    elif hasattr(source, "read"):
        return
    else:
        received = f"an object of type {type(source).__name__}"
    raise TypeError(
        "Expected a photo as a path, encoded bytes, a binary file, a PIL image or a uint8 array "
        f"of shape (H, W), (H, W, 3) or (H, W, 4), received {received}."
    )


def _encoded(source: bytes | bytearray | memoryview | IO[bytes]) -> bytes:
    """Gets the bytes of an encoded image from whatever holds them."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    try:
        return source.read()
    except ValueError as error:
        raise ImageError(f"cannot be read: {error}.") from error


def _identified(data: IO[bytes]) -> ImageFile.ImageFile:
    """Opens encoded data in the first of `FORMATS` that recognises it.

    Does what `PIL.Image.open` does, without its warning for large images: they are checked here,
    and warnings cannot be turned off for one thread alone.
    """
    start = data.read(16)
    if not start:
        raise ImageError("empty file.")
    reason = hint = ""
    for each in FORMATS:
        if not each.matches(start):
            continue
        if not is_installed(each):
            hint = f" ({extra_hint(each)})"
            continue
        with decoder_errors():
            opener = factory(each, start)
            if opener is None:
                continue
            data.seek(0)
            try:
                return opener(data, "")
            except (SyntaxError, IndexError, TypeError, struct.error) as error:
                reason = reason or _unknown_kind(each.name, data, error)
    known = ", ".join(each.name for each in FORMATS)
    raise ImageError(reason or f"not an image that can be read (expected {known}){hint}.")


def _unknown_kind(name: str, data: IO[bytes], error: Exception) -> str:
    """Explains why a file of a known format cannot be opened."""
    stored = str(error)
    if name == "TIFF":
        from kmatting.images.tiff import explain_tiff

        stored = explain_tiff(data) or stored
    return f"damaged {name} file, or of a kind that cannot be read ({stored})."


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(
            f"{image.width}x{image.height} are more than {MAX_PIXELS:,} pixels, refused."
        )


def _from_array(array: np.ndarray) -> Image.Image:
    """Makes a PIL image of an array."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    right_shape = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    right_type = array.dtype == np.uint8 or (array.dtype == np.bool_ and array.ndim == 2)
    if right_shape and right_type and array.size:
        return Image.fromarray(array)
    hint = ""
    if np.issubdtype(array.dtype, np.floating):
        hint = " If its values lie in [0, 1], pass np.rint(array * 255).astype(np.uint8)."
    elif array.dtype == np.uint16:
        hint = " Pass np.rint(array / 257).astype(np.uint8)."
    raise ImageError(
        f"array: expected uint8 of shape (H, W), (H, W, 3) or (H, W, 4), "
        f"received {array.dtype} of shape {array.shape}.{hint}"
    )
