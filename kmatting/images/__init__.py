"""Reads any photo to upright 8-bit RGB and any matte to 8 bits; lists and writes image files.

This is the one reader for training, evaluation and prediction, so that a network sees the same
pixels everywhere. Nothing here imports TensorFlow.
"""

import contextlib
import functools
import importlib
import importlib.util
import io
import os
import struct
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile, ImageOps

from kmatting.errors import ImageError, ImageWarning
from kmatting.extras import install_command
from kmatting.files import whole_file
from kmatting.images.nclx import is_other_than_srgb, to_srgb
from kmatting.images.png import can_write_png, write_png

MAX_PIXELS = 178_956_970  # where Pillow itself refuses
OPAQUE_LEVEL = 128  # a set of mattes whose levels all lie below is taken for a mistake

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".gif", ".avif"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
)
_HEIF_SUFFIXES = (".heic", ".heif", ".hif")  # with the extra `heic`
_HEIF_HINT = f"HEIC files need pillow-heif: {install_command('heic')}"
# The modules of the formats that are read. Pillow has more of them, some of which start other
# programs (EPS starts Ghostscript); to import all of them takes longer than to decode a photo.
_FORMATS = {
    "JPEG": "PIL.JpegImagePlugin",
    "PNG": "PIL.PngImagePlugin",
    "WEBP": "PIL.WebPImagePlugin",
    "BMP": "PIL.BmpImagePlugin",
    "TIFF": "PIL.TiffImagePlugin",
    "GIF": "PIL.GifImagePlugin",
    "PPM": "PIL.PpmImagePlugin",
    "AVIF": "PIL.AvifImagePlugin",
    "HEIF": "pillow_heif",
}
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_MOST_LABELS = 63  # numbers of classes in a map of labels
_COLOUR_TOLERANCE = 16  # levels between the channels of a grey JPEG
_OVERSHOOT = 1.25  # of floats above their white, by resampling
_HIGHLIGHT = 16.0  # of floats with fractions: as bright as their highlights are
# EXIF tags that describe a photo: title, camera, resolution, program, time, author, rights, ...
_EXIF_TAGS = (0x10E, 0x10F, 0x110, 0x11A, 0x11B, 0x128, 0x131, 0x132, 0x13B, 0x13C, 0x8298)
# Maker notes are void when they are moved, and the size may change: width, height, related file.
_EXIF_LEFT = (0x927C, 0xA002, 0xA003, 0xA005)
_MORE = "kmatting_more"  # key in `info` of a decoded image
# What the pictures of a file are called that may hold several.
_PICTURES = {
    "GIF": "frames",
    "WEBP": "frames",
    "PNG": "frames",
    "AVIF": "frames",
    "TIFF": "pages",
    "HEIF": "pictures",
}
_SUBFILE, _REDUCED_OR_MASK = 0x00FE, 5  # a TIFF tag, and the bits of pages that are no pictures
_NAME_LENGTH = 500  # characters of a path that a message shows

Source = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | np.ndarray | Image.Image
)


@dataclass(frozen=True)
class Photo:
    """A decoded photo.

    Attributes:
        rgb: uint8 array (H, W, 3), upright, sRGB. Where the file was transparent, its own colours.
        opacity: uint8 array (H, W) with the transparency of the file (255 is opaque), or None
            for a file without any.
        exif: the file's EXIF data that say what the photo is (camera, time, place, author), not how
            its pixels were stored; empty if there are none.
        icc_profile: the file's ICC profile, or None. `rgb` has been converted from it.
        more: "frames", "pages" or "pictures" if the file holds further ones, of which this is the
            first (in a HEIC file the main one); else "".
    """

    rgb: np.ndarray
    opacity: np.ndarray | None = None
    exif: bytes = b""
    icc_profile: bytes | None = None
    more: str = ""

    def note(self) -> str:
        """Says in one phrase what of the file is left out; returns "" if nothing is."""
        if not self.more:
            return ""
        hint = "; kmatting video cuts out all of them" if self.more == "frames" else ""
        return f"holds several {self.more}, only the {_chosen(self.more)} is cut out{hint}"

    def flatten(self, grey: int = 255) -> np.ndarray:
        """Lays the photo over a grey level.

        Args:
            grey: level from 0 to 255; white by default.

        Returns:
            uint8 array (H, W, 3).
        """
        if self.opacity is None:
            return self.rgb
        opacity = self.opacity[..., None].astype(np.uint16)
        mixed = (self.rgb * opacity + np.uint16(grey) * (255 - opacity) + 127) // 255
        return mixed.astype(np.uint8)


def read_photo(source: Source, warn: bool = True) -> Photo:
    """Reads a photo.

    Handles EXIF orientation, ICC profiles (converted to sRGB), palette, grey, CMYK, Lab, 16-bit,
    float and transparent files. Of several frames or pages the first is read, with an
    `ImageWarning`.

    Args:
        source: path; encoded bytes (bytes, bytearray, memoryview) or a binary file, read from its
            position on; PIL image; or uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).
        warn: whether to warn of several frames or pages. `more` says it in any case.

    Returns:
        The `Photo`.

    Raises:
        ImageError: if the source is missing, empty, truncated, not an image, larger than
            `MAX_PIXELS`, or too large for the memory.
        TypeError: if the source is of another type.
    """
    with _decoded(source) as (image, name), _named_errors(name):
        profile, more = image.info.get("icc_profile"), image.info.get(_MORE, "")
        if warn:
            _warn_of_more(image, name)
        return Photo(np.asarray(_to_srgb(image)), _opacity(image), _exif(image), profile, more)


def read_image(source: Source) -> np.ndarray:
    """Reads a photo as plain pixels; transparent parts are laid over white.

    Args:
        source: as in `read_photo`.

    Returns:
        uint8 array (H, W, 3), upright, sRGB.

    Raises:
        ImageError: as in `read_photo`.
        TypeError: as in `read_photo`.
    """
    with _decoded(source) as (image, name), _named_errors(name):
        _warn_of_more(image, name)
        return Photo(np.asarray(_to_srgb(image)), _opacity(image)).flatten()


def read_alpha(source: Source, exact: bool = False) -> np.ndarray:
    """Reads a matte: its transparency where it has some (an RGBA cutout), else its grey level.

    A file does not always say which number is foreground. It is the smallest of 1, 255, 65535 and
    2**32 - 1 that no value exceeds: so masks of 0 and 1 are understood, and masks of 0 to 255 in 16
    bits. (A matte of 8 bits whose highest level is 1 is therefore read as a mask; it would be
    invisible otherwise.) Floats may overshoot it a little, as resampling makes them do.

    Args:
        source: as in `read_photo`; also a bool array (H, W).
        exact: whether 255 (65535 in 16 bits) is foreground even in a file that does not come near
            it. For predictions, which may be nearly empty.

    Returns:
        uint8 array (H, W), 255 is foreground. Other ranges are rounded to 8 bits.

    Raises:
        ImageError: as in `read_photo`, and if the file has colours: a colour map of labels, or a
            photo; or, unless `exact`, if it is a map of labels in grey with 255 for "void".
        TypeError: as in `read_photo`.
    """
    with _decoded(source) as (image, name), _named_errors(name):
        _warn_of_more(image, name)
        levels = _opacity(image)
        if levels is None:
            levels = _grey_levels(image)
        if not exact:
            _refuse_labels(levels)
        return _to_eight_bits(levels, _matte_whites(levels.dtype, exact))


def faint_set(name: str, peak: int) -> str | None:
    """Says what is wrong with a set of mattes in which nothing is opaque.

    Args:
        name: what to call the set, such as its folder.
        peak: highest level in all of its mattes, as `read_alpha` returns them.

    Returns:
        A sentence with what to do, or None if the peak is `OPAQUE_LEVEL` or more.
    """
    if peak >= OPAQUE_LEVEL:
        return None
    if peak == 0:
        return f"{name}: all mattes are black, expected 255 where the foreground is."
    return (
        f"{name}: no matte is above level {peak}, expected 255 where the foreground is; are these "
        "labels of classes? Set the levels of the foreground to 255."
    )


def image_size(source: Source) -> tuple[int, int]:
    """Reads the upright size of an image from its header.

    Args:
        source: as in `read_photo`.

    Returns:
        Height and width in pixels, after EXIF orientation.

    Raises:
        ImageError: as in `read_photo`.
        TypeError: as in `read_photo`.
    """
    with _opened(source) as (image, name), _named_errors(name):
        width, height = image.size
        # A PNG's own getexif decodes all pixels, to look for EXIF behind them.
        orientation = Image.Image.getexif(image).get(0x0112)
        # Of a TIFF, Pillow gives the upright size.
        sideways = image.format != "TIFF" and orientation in (5, 6, 7, 8)
        return (width, height) if sideways else (height, width)


# Folders


@dataclass(frozen=True)
class Listing:
    """What a folder holds. Hidden files and folders (`.x`, `._x.jpg`) do not count.

    Attributes:
        photos: paths of the image files, sorted.
        left_out: number of other files, by suffix in lower case; "" for files without a suffix.
        subfolders: number of folders in it that were not searched.
    """

    photos: list[Path]
    left_out: dict[str, int] = field(default_factory=dict)
    subfolders: int = 0

    def note(self) -> str:
        """Says in one phrase what was left out; returns "" if nothing was."""
        parts = []
        if self.left_out:
            counts = [
                f"{count} {suffix or 'without a suffix'}"
                for suffix, count in sorted(self.left_out.items())
            ]
            parts.append(f"left out {', '.join(counts)}: not photos that can be read")
            if any(suffix in _HEIF_SUFFIXES for suffix in self.left_out):
                parts.append(_HEIF_HINT)
        if self.subfolders:
            parts.append(f"did not search {self.subfolders} folder(s) in it")
        return "; ".join(parts)


def image_suffixes() -> tuple[str, ...]:
    """Lists the suffixes of files that can be read, in lower case.

    HEIC files can be read where pillow-heif is installed (extra `heic`).
    """
    return (*IMAGE_SUFFIXES, *(_HEIF_SUFFIXES if _has_heif() else ()))


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
        raise ImageError(f"{_shown(folder)}: expected a folder of images, but it {state}.")
    suffixes = image_suffixes()
    photos: list[Path] = []
    left_out: Counter[str] = Counter()
    subfolders = 0

    def refuse(error: OSError) -> None:
        raise ImageError(f"{error.filename}: the folder cannot be read: {error.strerror}.")

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.startswith("."):
                continue
            path = Path(place, name)
            suffix = path.suffix.lower()
            if suffix in suffixes:
                photos.append(path)
            else:
                left_out[suffix] += 1
        if not recursive:
            subfolders = len(folders)
            break
    return Listing(sorted(photos), dict(left_out), subfolders)


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


# Writing


def write_image(
    path: str | os.PathLike[str], pixels: np.ndarray | Image.Image, **options: Any
) -> None:
    """Writes pixels to an image file in the format of its suffix.

    Args:
        path: the destination; written beside and renamed.
        pixels: a PIL image; a uint8 array (H, W), (H, W, 3) or (H, W, 4); or a uint16 array
            (H, W) for a 16-bit grey PNG.
        **options: as in `save_image`.

    Raises:
        ImageError: if Pillow has no writer for the suffix or the pixels.
        OSError: if the disk is full, or the folder cannot be written to.
    """
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    with whole_file(path) as partial:
        try:
            with partial.open("w+b") as file:  # a writer of TIFF files reads, too
                save_image(file, image, partial.suffix, **options)
        except (ValueError, KeyError, OSError) as error:
            if getattr(error, "errno", None):  # the disk, not the format
                raise
            raise ImageError(f"{path}: cannot be written: {error}.") from error


def save_image(file: IO[bytes], image: Image.Image, suffix: str, **options: Any) -> None:
    """Writes an image to a file that is open, as PNG by `kmatting.images.png`, else by Pillow.

    Args:
        file: a binary file, open for reading and writing.
        image: the image.
        suffix: names the format, such as ".png".
        **options: passed to Pillow's writer, such as `quality=95`. A PNG file with others than
            `exif` and `icc_profile` is written by Pillow.

    Raises:
        KeyError: if the suffix is unknown.
        ValueError: if the format cannot hold the image.
        OSError: likewise, or if the disk is full.
    """
    suffix = suffix.lower()
    if suffix == ".png" and options.keys() <= {"exif", "icc_profile"} and can_write_png(image):
        write_png(file, image, **options)
        return
    Image.preinit()  # the usual formats; all of them take longer to import
    known = Image.EXTENSION if suffix in Image.EXTENSION else Image.registered_extensions()
    image.save(file, known[suffix], **options)


# Opening


@contextlib.contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Turns whatever a decoder raises into one `ImageError` that names the image."""
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
    except MemoryError as error:
        raise ImageError(f"{name}: there is not enough memory to read it.") from error
    except Exception as error:  # decoders raise nearly every type on broken files
        reason = " ".join(str(error).split())  # some write several lines
        raise ImageError(f"{name}: damaged or truncated image ({reason}).") from error


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[tuple[Image.Image, str]]:
    """Opens a source without decoding its pixels; yields the image and its name for messages."""
    if isinstance(source, Image.Image):
        with _named_errors("image"):
            _check_size(source)
            image = source.copy()
        yield image, "image"
        return
    if isinstance(source, np.ndarray):
        yield _from_array(source), "array"
        return
    _check_type(source)
    with contextlib.ExitStack() as stack:
        name = _name(source)
        with _named_errors(name):
            data: IO[bytes]
            if isinstance(source, str | os.PathLike):
                data = stack.enter_context(_open_path(source))
            else:
                data = io.BytesIO(_encoded(source))
            image = stack.enter_context(_identified(data))
            _check_size(image)
        yield image, name


@contextlib.contextmanager
def _decoded(source: Source) -> Iterator[tuple[Image.Image, str]]:
    """Opens a source, decodes it and turns it upright."""
    with _opened(source) as (image, name):
        with _named_errors(name):
            more = _more(image)
            if isinstance(image, ImageFile.ImageFile) and _is_sixteen_bit_colour(image):
                image = _with_sixteen_bits(image)
            image.load()
            image.info[_MORE] = more
            ImageOps.exif_transpose(image, in_place=True)
        yield image, name


def _more(image: Image.Image) -> str:
    """Says what a file that is not yet decoded holds beside its first picture, or returns ""."""
    kind = _PICTURES.get(image.format or "", "")
    if not kind or not getattr(image, "is_animated", False):
        return ""
    return "" if kind == "pages" and not _has_further_pages(image) else kind


def _has_further_pages(image: Any) -> bool:
    """Whether a TIFF file has pages beside the first that are no smaller copies and no masks."""
    found = False
    for page in range(1, image.n_frames):
        image.seek(page)
        found = found or not int(image.tag_v2.get(_SUBFILE, 0)) & _REDUCED_OR_MASK
    image.seek(0)
    return found


def _chosen(more: str) -> str:
    return "main one" if more == "pictures" else "first"


def _warn_of_more(image: Image.Image, name: str) -> None:
    """Warns of a decoded file that holds further pictures."""
    if more := image.info.get(_MORE, ""):
        text = f"{name}: holds several {more}, only the {_chosen(more)} is read."
        # From one place, so that Python shows it once for a file that is read again and again.
        warnings.warn(text, ImageWarning, stacklevel=1)


def _name(source: object) -> str:
    """Names a source in messages."""
    if isinstance(source, str | os.PathLike):
        return _shown(source)
    file_name = getattr(source, "name", None)  # of an open file
    return _shown(file_name) if isinstance(file_name, str) else "image"


def _shown(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    return text if len(text) <= _NAME_LENGTH else text[:_NAME_LENGTH] + "..."


def _open_path(path: str | os.PathLike[str]) -> IO[bytes]:
    try:
        file = Path(path).open("rb")  # noqa: SIM115
        if file.seekable():
            return file
        with file:  # a pipe
            return io.BytesIO(file.read())
    except ValueError:  # a NUL in it
        raise ImageError("expected the path of an image file.") from None
    except OSError as error:
        if isinstance(error, FileNotFoundError | IsADirectoryError | PermissionError):
            raise
        raise ImageError(f"cannot be opened: {error.strerror}.") from error


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
    """Opens encoded data with the first of `_FORMATS` that recognises it.

    Does what `PIL.Image.open` does, without its warning for large images: they are checked here,
    and warnings cannot be turned off for one thread alone.
    """
    prefix = data.read(16)
    if not prefix:
        raise ImageError("empty file.")
    for name in _FORMATS:
        if not _is_registered(name):
            continue
        factory, accept = Image.OPEN[name]
        accepted = accept is None or accept(prefix)
        if not accepted or isinstance(accepted, str):  # a string says what Pillow was built without
            continue
        data.seek(0)
        try:
            return factory(data, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue
    hint = f" ({_HEIF_HINT})" if prefix[4:8] == b"ftyp" and not _has_heif() else ""
    raise ImageError(
        "not an image that can be read (expected JPEG, PNG, WebP, BMP, TIFF, GIF, PPM, AVIF or "
        f"HEIC){hint}."
    )


@functools.cache
def _is_registered(name: str) -> bool:
    """Loads the module of a format; says whether Pillow can read it here."""
    with contextlib.suppress(ImportError):
        module = importlib.import_module(_FORMATS[name])
        if name == "HEIF":
            module.register_heif_opener()
    return name in Image.OPEN


@functools.cache
def _has_heif() -> bool:
    return importlib.util.find_spec("pillow_heif") is not None


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


# Pixels


# Rawmodes of Pillow that keep the upper byte of each value, and those that keep the lower one.
_SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def _rawmode(image: ImageFile.ImageFile) -> str:
    """Returns how the pixels of an image that is not yet decoded are stored, or ""."""
    if not image.tile:
        return ""
    arguments = image.tile[0].args
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _is_sixteen_bit_colour(image: ImageFile.ImageFile) -> bool:
    """Whether a file has 16 bits a channel of which Pillow would keep the upper 8."""
    kind, _, order = _rawmode(image).partition(";16")
    return kind in ("RGB", "RGBX", "RGBA", "RGBa", "CMYK", "LA") and order in _SWAPPED


def _with_sixteen_bits(image: ImageFile.ImageFile) -> Image.Image:
    """Decodes a colour image of 16 bits a channel, rounded to 8; Pillow cuts the lower byte off.

    The lower bytes are decoded as if they were the upper ones of the other byte order.
    """
    rawmode = _rawmode(image)
    premultiplied = rawmode.startswith("RGBa")
    if premultiplied:  # the bytes as they are: a half of each number cannot be divided
        rawmode = rawmode.replace("RGBa", "RGBA")
        _set_rawmode(image, rawmode)
    data = image.fp
    assert data is not None  # it is not decoded yet
    if rawmode == "LA;16B":  # four bytes a pixel, as RGBA has
        _set_rawmode(image, "RGBA")
        halves = np.asarray(image).astype(np.uint16)
        values = halves[..., 0::2] * 256 + halves[..., 1::2]
    else:
        upper = np.asarray(image).astype(np.uint16)
        data.seek(0)
        lower = _identified(data)
        _set_rawmode(lower, rawmode[:-1] + _SWAPPED[rawmode[-1]])
        values = upper * 256 + np.asarray(lower)
    if premultiplied:
        values = _unmultiplied(values)
    rounded = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    key = image.info.pop("transparency", None)
    mode = image.mode
    if key is not None:
        opaque = (values != np.array(key)).any(axis=2)
        rounded, mode = np.dstack([rounded, np.where(opaque, np.uint8(255), np.uint8(0))]), "RGBA"
    elif rounded.shape[2] == 2:
        mode = "LA"
    converted = Image.frombytes(mode, image.size, rounded.tobytes())
    converted.info = image.info
    return converted


def _unmultiplied(values: np.ndarray) -> np.ndarray:
    """Divides premultiplied colours by their opacity.

    Args:
        values: uint16 array (H, W, 4).

    Returns:
        uint16 array (H, W, 4); black where the opacity is 0.
    """
    opacity = values[..., 3:].astype(np.float64)
    colours = values[..., :3] * (65535 / np.maximum(opacity, 1))
    colours = np.rint(colours).clip(0, 65535) * (opacity > 0)
    return np.concatenate([colours.astype(np.uint16), values[..., 3:]], axis=2)


def _set_rawmode(image: ImageFile.ImageFile, rawmode: str) -> None:
    def changed(tile: Any) -> Any:
        arguments = (rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode
        return tile._replace(args=arguments)

    image.tile = [changed(tile) for tile in image.tile]


def _opacity(image: Image.Image) -> np.ndarray | None:
    """Returns the transparency of an image, uint8 (H, W); None where all of it is opaque."""
    if not image.has_transparency_data:
        return None
    key = image.info.get("transparency")
    if image.mode in (*_SIXTEEN_BIT, "I"):
        opacity = np.where(np.asarray(image) == key, np.uint8(0), np.uint8(255))
    elif image.mode == "La":  # Pillow converts it to LA alone
        opacity = np.asarray(image.convert("LA").getchannel("A"))
    else:
        opacity = np.asarray(image.convert("RGBA").getchannel("A"))
    return opacity if opacity.min() < 255 else None


def _grey_levels(image: Image.Image) -> np.ndarray:
    """Returns the levels of a grey image in the depth that it has: (H, W) of integers or floats.

    Raises:
        ImageError: if it has colours.
    """
    if image.mode in ("L", *_SIXTEEN_BIT, "I", "F"):
        return np.asarray(image)
    if image.mode in ("1", "LA"):
        return np.asarray(image.convert("L"))
    # No colour management: the numbers of a matte are coverage, not light.
    colours = _rgb(image)
    if np.ptp(np.asarray(colours), axis=2).max() > _COLOUR_TOLERANCE:
        found = "a palette of colours" if image.mode in ("P", "PA") else "colours"
        raise ImageError(
            f"expected a matte in grey levels or an image with transparency, received {found}. Is "
            "it a map of labels, or the photo? Save the matte as grey levels, 255 for foreground."
        )
    return np.asarray(colours.convert("L"))


def _refuse_labels(levels: np.ndarray) -> None:
    """Refuses a map of labels in which the highest level means "unknown", as in PASCAL VOC.

    Such a map has small numbers, 255 and nothing between, and more of it is labelled than void. A
    matte has levels between, or is nearly all 0 and 255.

    Args:
        levels: (H, W) of integers or floats.

    Raises:
        ImageError: if it is one.
    """
    if levels.dtype.kind not in "ui":
        return
    void = levels.max(initial=0)
    if void not in (255, 65535):
        return
    labelled = levels[(levels > 0) & (levels < void)]
    if not labelled.size or labelled.max() > _MOST_LABELS:
        return
    if labelled.size > np.count_nonzero(levels == void):
        shown = ", ".join(str(label) for label in np.unique(labelled)[:5])
        raise ImageError(
            f"expected a matte, received what looks like a map of labels: levels {shown} and "
            f"{void} (void), nothing between. Save a matte with 255 for foreground, 0 elsewhere."
        )


def _matte_whites(dtype: np.dtype, exact: bool) -> tuple[int, ...]:
    """Returns the levels that may stand for foreground in a matte of a dtype, in order."""
    if dtype == np.uint8:
        return (255,) if exact else (1, 255)
    if dtype == np.uint16:
        return (65535,) if exact else (1, 255, 65535)
    return (255, 65535, 2**32 - 1) if exact and dtype.kind != "f" else (1, 255, 65535, 2**32 - 1)


def _to_eight_bits(values: np.ndarray, whites: Sequence[int]) -> np.ndarray:
    """Scales levels to 8 bits and rounds them.

    Args:
        values: (H, W) of integers or floats.
        whites: as in `_white`.

    Returns:
        uint8 array (H, W).
    """
    white = _white(values, whites)
    if values.dtype == np.uint8 and white == 255:
        return values
    scaled = np.nan_to_num(values.astype(np.float64), posinf=np.inf).clip(0, white) / white
    return np.rint(scaled * 255).astype(np.uint8)


def _white(values: np.ndarray, whites: Sequence[int]) -> float:
    """Chooses the number that stands for white, in a file that does not say it.

    Args:
        values: (H, W) of integers or floats.
        whites: usual numbers for white, in ascending order.

    Returns:
        The first of `whites` that no value exceeds.
    """
    if values.dtype.kind == "f":
        finite = values[np.isfinite(values)]
        peak, tolerance = float(finite.max(initial=0)), _OVERSHOOT
        if peak < _HIGHLIGHT and (finite % 1).any():  # fractions count to 1
            return 1
    else:
        peak, tolerance = float(values.max(initial=0)), 1.0
    return next((white for white in whites if peak <= tolerance * white), peak)


def _to_srgb(image: Image.Image) -> Image.Image:
    """Converts to mode RGB in sRGB, by the ICC profile where there is a usable one."""
    profile = image.info.get("icc_profile")
    named = None if profile else image.info.get("nclx_profile")  # of a HEIC file
    if image.mode in (*_SIXTEEN_BIT, "I", "F"):
        values = np.asarray(image)
        image = Image.fromarray(_to_eight_bits(values, _photo_whites(values.dtype)))
    elif image.mode == "La":
        image = image.convert("LA").convert("L")
    elif image.mode in ("1", "LA"):
        image = image.convert("L")
    elif image.mode in ("P", "PA", "RGBA", "RGBa", "RGBX"):
        image = _rgb(image)
    if named and image.mode == "RGB":
        codes = named["color_primaries"], named["transfer_characteristics"]
        if is_other_than_srgb(*codes):
            return Image.fromarray(to_srgb(np.asarray(image), *codes))
    if profile or image.mode == "LAB":
        try:
            source = (
                ImageCms.ImageCmsProfile(io.BytesIO(profile))
                if profile
                else ImageCms.createProfile("LAB")
            )
            converted = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # a broken profile, or one for another mode: the plain numbers are the best guess
    return image.convert("RGB")


def _rgb(image: Image.Image) -> Image.Image:
    """Drops palette and transparency; Pillow would warn of a palette with opacities."""
    if image.mode == "P":
        image = image.convert("RGBA")
    return image.convert("RGB")


def _exif(image: Image.Image) -> bytes:
    """Returns the EXIF data of an image that stay true when its pixels are changed."""
    try:
        exif = image.getexif()
        details = exif.get_ifd(ExifTags.IFD.Exif)
        kept = Image.Exif()
        kept.update((tag, exif[tag]) for tag in exif if tag in _EXIF_TAGS)
        kept[ExifTags.IFD.Exif] = {tag: details[tag] for tag in details if tag not in _EXIF_LEFT}
        kept[ExifTags.IFD.GPSInfo] = dict(exif.get_ifd(ExifTags.IFD.GPSInfo))
        for tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            if not kept[tag]:
                del kept[tag]
        return kept.tobytes() if kept else b""
    except Exception:  # Pillow raises nearly every type on broken data; the photo itself is whole
        return b""


def _photo_whites(dtype: np.dtype) -> tuple[int, ...]:
    """Returns the levels that may be white in a grey photo of a dtype, in ascending order."""
    if dtype == np.uint16:
        return (65535,)
    return (1, 255, 65535, 2**32 - 1) if dtype.kind == "f" else (255, 65535, 2**32 - 1)
