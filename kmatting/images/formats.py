"""The formats of image files: one record for each, which all of kmatting reads.

Pillow has more formats, some of which start other programs (EPS starts Ghostscript), and importing
all of them takes longer than decoding a photo. So only the module of a file's own format is
imported, once its first bytes are seen.
"""

import functools
import importlib
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

from PIL import Image, ImageFile

from kmatting.extras import install_command

_QUALITY = 90  # of lossy formats


@dataclass(frozen=True)
class ImageFormat:
    """A format of image files.

    Attributes:
        name: its name, as Pillow has it.
        module: the module that reads it.
        suffixes: in lower case.
        signature: pattern of its first bytes. Files of several formats may match; they are tried
            in the order of `FORMATS`.
        pictures: what its pictures are called if a file may hold several: "frames" follow each
            other in time, "pages" and "pictures" do not. "" if there is one alone.
        written: those of its suffixes that kmatting writes.
        options: of Pillow's writer.
        has_alpha: whether a file can hold transparency, so that a cutout can be written to it.
        lossless: whether a file keeps every level, so that a matte can be written to it.
        bits: the most bits a channel that are written.
        extra: the extra that installs `module`, where it is no part of Pillow.
    """

    name: str
    module: str
    suffixes: tuple[str, ...]
    signature: bytes
    pictures: str = ""
    written: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    has_alpha: bool = True
    lossless: bool = True
    bits: int = 8
    extra: str = ""

    def matches(self, start: bytes) -> bool:
        """Returns whether the first bytes of a file (16 are enough) may be of this format."""
        return re.match(self.signature, start, re.DOTALL) is not None


FORMATS = (
    ImageFormat(
        name="JPEG",
        module="PIL.JpegImagePlugin",
        suffixes=(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
        signature=rb"\xff\xd8\xff",
        written=(".jpg", ".jpeg"),
        options={"quality": _QUALITY},
        lossless=False,
        has_alpha=False,
    ),
    ImageFormat(
        name="PNG",
        module="PIL.PngImagePlugin",
        suffixes=(".png", ".apng"),
        signature=rb"\x89PNG\r\n\x1a\n",
        pictures="frames",
        written=(".png",),
        bits=16,
    ),
    ImageFormat(
        name="WEBP",
        module="PIL.WebPImagePlugin",
        suffixes=(".webp",),
        signature=rb"RIFF....WEBP",
        pictures="frames",
        written=(".webp",),
        options={"quality": _QUALITY},
        lossless=False,
    ),
    ImageFormat(
        name="BMP",
        module="PIL.BmpImagePlugin",
        suffixes=(".bmp",),
        signature=rb"BM",
        written=(".bmp",),
        has_alpha=False,  # of those that others read
    ),
    ImageFormat(
        name="TIFF",
        module="PIL.TiffImagePlugin",
        suffixes=(".tif", ".tiff"),
        signature=rb"II[*+]\0|MM\0[*+]|II\0[*]|MM[*]\0",
        pictures="pages",
        written=(".tif", ".tiff"),
        options={"compression": "tiff_deflate"},
        bits=16,
    ),
    ImageFormat(
        name="GIF",
        module="PIL.GifImagePlugin",
        suffixes=(".gif",),
        signature=rb"GIF8[79]a",
        pictures="frames",
    ),
    ImageFormat(
        name="PPM",
        module="PIL.PpmImagePlugin",
        suffixes=(".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
        signature=rb"P[0-6fy]",
    ),
    ImageFormat(
        name="AVIF",
        module="PIL.AvifImagePlugin",
        suffixes=(".avif",),
        signature=rb"....ftyp(avif|avis|mif1|msf1)",
        pictures="frames",
        written=(".avif",),
        options={"quality": _QUALITY},
        lossless=False,
    ),
    ImageFormat(
        name="HEIF",
        module="pillow_heif",
        suffixes=(".heic", ".heif", ".hif"),
        signature=rb"....ftyp(he(i[cmsx]|v[cmsx])|mif1|msf1)",
        pictures="pictures",
        extra="heic",
    ),
)


def image_suffixes() -> tuple[str, ...]:
    """Lists the suffixes of files that can be read here, in lower case.

    HEIC files can be read where pillow-heif is installed (extra `heic`).
    """
    return tuple(suffix for each in FORMATS if is_installed(each) for suffix in each.suffixes)


def written_suffixes(has_alpha: bool = False) -> tuple[str, ...]:
    """Lists the suffixes of files that `write_image` writes, in lower case.

    Args:
        has_alpha: whether to list only formats that hold transparency.
    """
    return tuple(
        suffix for each in FORMATS if each.has_alpha or not has_alpha for suffix in each.written
    )


def format_written(suffix: str) -> ImageFormat | None:
    """Returns the format that is written to a suffix, in any case of letters; None for others."""
    return next((each for each in FORMATS if suffix.lower() in each.written), None)


def pictures_of(name: str | None) -> str:
    """Returns what the pictures of a file are called, by Pillow's name of its format."""
    return next((each.pictures for each in FORMATS if each.name == name), "")


def is_installed(image_format: ImageFormat) -> bool:
    """Returns whether the module that reads a format is there."""
    return not image_format.extra or _is_found(image_format.module)


@functools.cache
def _is_found(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def factory(
    image_format: ImageFormat, start: bytes
) -> Callable[[IO[bytes], str], ImageFile.ImageFile] | None:
    """Imports the module of a format; returns what opens a file, or None if it will not.

    Args:
        image_format: the format.
        start: the first 16 bytes of the file.
    """
    module = importlib.import_module(image_format.module)
    if image_format.name == "HEIF":  # unknown to Pillow: a library leaves its host's as it is
        return module.HeifImageFile
    opener, accept = Image.OPEN[image_format.name]
    # A text says what Pillow was built without.
    accepted = accept is None or accept(start)
    return opener if accepted and not isinstance(accepted, str) else None


def extra_hint(image_format: ImageFormat) -> str:
    """Returns what to install for a format whose module is missing."""
    package, kind = image_format.module.replace("_", "-"), image_format.suffixes[0][1:].upper()
    return f"{kind} files need {package}: {install_command(image_format.extra)}"
