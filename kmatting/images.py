"""Reads any photo to upright 8-bit RGB, writes whole files only.

This is the one reader for training, evaluation and prediction, so that a network sees the same
pixels everywhere. Nothing here imports TensorFlow.
"""

import contextlib
import io
import os
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
MAX_PIXELS = 178_956_970  # twice Pillow's warning threshold: where Pillow itself refuses

# Formats a photo comes in. Pillow knows more, some of which start other programs (EPS).
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF")
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")

# The size is checked below with an error of our own; Pillow's earlier warning would be noise.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

Source = str | os.PathLike[str] | bytes | np.ndarray | Image.Image


class ImageError(ValueError):
    """A photo or matte that cannot be read; the message names it and says why in one line."""


@dataclass(frozen=True)
class Photo:
    """A decoded photo.

    Attributes:
        rgb: uint8 array (H, W, 3), upright, sRGB. Where the file was transparent, its own colours.
        opacity: uint8 array (H, W) with the transparency of the file (255 is opaque), or None
            for a file without any.
    """

    rgb: np.ndarray
    opacity: np.ndarray | None = None

    def flatten(self, colour: int = 255) -> np.ndarray:
        """Returns the photo over a grey level.

        Args:
            colour: level from 0 to 255; white by default.

        Returns:
            uint8 array (H, W, 3).
        """
        if self.opacity is None:
            return self.rgb
        opacity = self.opacity[..., None].astype(np.uint16)
        mixed = (self.rgb * opacity + np.uint16(colour) * (255 - opacity) + 127) // 255
        return mixed.astype(np.uint8)


def read_photo(source: Source) -> Photo:
    """Reads a photo of any usual kind.

    Handles EXIF orientation, ICC profiles (converted to sRGB), palette, grey, CMYK, Lab, 16-bit,
    float and transparent files. Of an animation the first frame is taken.

    Args:
        source: path, encoded bytes, PIL image, or uint8 array (H, W), (H, W, 3) or (H, W, 4).

    Returns:
        The `Photo`.

    Raises:
        ImageError: if the source is missing, empty, truncated, no image, or larger than
            `MAX_PIXELS`.
    """
    with _decoded(source) as (image, name), _named_errors(name):
        opacity = None
        if image.has_transparency_data:
            image = image.convert("RGBA") if image.mode not in ("RGBA", "LA") else image
            opacity = np.asarray(image.getchannel("A"))
            if opacity.min() == 255:
                opacity = None
        return Photo(np.asarray(_to_srgb(image)), opacity)


def read_image(source: Source) -> np.ndarray:
    """Reads a photo as plain pixels; transparent parts are laid over white.

    Args:
        source: as in `read_photo`.

    Returns:
        uint8 array (H, W, 3), upright, sRGB.

    Raises:
        ImageError: as in `read_photo`.
    """
    return read_photo(source).flatten()


def read_alpha(source: Source) -> np.ndarray:
    """Reads a matte: its grey level, or its transparency where the file has some (an RGBA cutout).

    Args:
        source: as in `read_photo`.

    Returns:
        uint8 array (H, W), 255 is foreground. 16-bit mattes are rounded to 8 bits.

    Raises:
        ImageError: as in `read_photo`.
    """
    with _decoded(source) as (image, name), _named_errors(name):
        if image.has_transparency_data:
            opacity = np.asarray(image.convert("RGBA").getchannel("A"))
            if opacity.min() < 255:
                return opacity
        # No colour management: a matte's numbers are coverage, not light.
        return np.asarray(_to_eight_bits(image).convert("L"))


def image_size(source: str | os.PathLike[str]) -> tuple[int, int]:
    """Reads the upright size of an image file from its header.

    Args:
        source: path of the file.

    Returns:
        Height and width in pixels, after EXIF orientation.

    Raises:
        ImageError: as in `read_photo`.
    """
    with _opened(source) as (image, name), _named_errors(name):
        width, height = image.size
        # A PNG's own getexif decodes all pixels, to look for EXIF behind them.
        orientation = Image.Image.getexif(image).get(0x0112)
        # Of a TIFF, Pillow gives the upright size.
        sideways = image.format != "TIFF" and orientation in (5, 6, 7, 8)
        return (width, height) if sideways else (height, width)


def list_images(folder: str | os.PathLike[str], recursive: bool = False) -> list[Path]:
    """Lists the image files of a folder, sorted by path; hidden files are left out.

    Args:
        folder: the folder.
        recursive: whether to descend into its folders.

    Returns:
        Paths of the files whose suffix is in `IMAGE_SUFFIXES`, in any case.

    Raises:
        ImageError: if the folder does not exist or is none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "does not exist"
        raise ImageError(f"{folder}: expected a folder of images, but it {state}.")
    paths = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(
        path
        for path in paths
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Writes a file beside its destination and renames it at the end.

    A crash, a kill or a full disk at any moment leaves the former file whole.

    Args:
        path: the destination. Its folder is made if it does not exist.

    Yields:
        The path to write to, with the same suffix and in the same folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_image(
    path: str | os.PathLike[str], pixels: np.ndarray | Image.Image, **options: Any
) -> None:
    """Writes pixels to an image file whose format follows from the suffix.

    Args:
        path: the destination; written beside and renamed.
        pixels: a PIL image; a uint8 array (H, W), (H, W, 3) or (H, W, 4); or a uint16 array
            (H, W) for a 16-bit grey PNG.
        **options: passed to Pillow's writer, such as `quality=95`.

    Raises:
        ImageError: if Pillow has no writer for the suffix or the pixels.
    """
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    with whole_file(path) as partial:
        try:
            image.save(partial, **options)
        except (ValueError, KeyError, OSError) as error:
            if getattr(error, "errno", None):  # the disk, not the format
                raise
            raise ImageError(f"{path}: cannot be written: {error}.") from error


@contextlib.contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Turns whatever a decoder raises into one `ImageError` that names the image."""
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file.") from error
    except IsADirectoryError as error:
        raise ImageError(f"{name}: is a folder, expected an image file.") from error
    except PermissionError as error:
        raise ImageError(f"{name}: no permission to read it.") from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name}: not an image that can be read "
            "(expected JPEG, PNG, WebP, BMP, TIFF, GIF, PPM or AVIF)."
        ) from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: more than {MAX_PIXELS:,} pixels, refused.") from error
    except MemoryError:
        raise
    except Exception as error:  # decoders raise nearly every type on broken files
        raise ImageError(f"{name}: damaged or truncated image ({error}).") from error


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[tuple[Image.Image, str]]:
    """Opens a source without decoding its pixels; yields the image and its name for messages."""
    if isinstance(source, Image.Image):
        yield source.copy(), "image"
        return
    if isinstance(source, np.ndarray):
        yield _from_array(source), "array"
        return
    name = "image" if isinstance(source, bytes) else str(source)
    with contextlib.ExitStack() as stack:
        with _named_errors(name):
            data: IO[bytes]
            if isinstance(source, bytes):
                data = io.BytesIO(source)
            else:
                data = stack.enter_context(Path(source).open("rb"))
            if not data.read(1):
                raise ImageError(f"{name}: empty file.")
            data.seek(0)
            Image.init()  # loads the plugins once; Image.open with a list of formats does not
            formats = [known for known in _FORMATS if known in Image.OPEN]
            image = stack.enter_context(Image.open(data, formats=formats))
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
        yield image, name


@contextlib.contextmanager
def _decoded(source: Source) -> Iterator[tuple[Image.Image, str]]:
    """Opens a source, decodes it and turns it upright."""
    with _opened(source) as (image, name):
        with _named_errors(name):
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
        yield image, name


def _from_array(array: np.ndarray) -> Image.Image:
    right_shape = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not right_shape or array.size == 0:
        raise ImageError(
            f"array: expected uint8 of shape (H, W), (H, W, 3) or (H, W, 4), "
            f"received {array.dtype} of shape {array.shape}."
        )
    return Image.fromarray(array)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scales 16-bit, 32-bit and float greys to 8 bits; leaves other modes alone."""
    if image.mode not in (*_SIXTEEN_BIT, "I", "F"):
        return image
    values = np.asarray(image).astype(np.float64)
    if image.mode in _SIXTEEN_BIT:
        white = 65535
    else:
        # Such a file does not say which number is white: the smallest usual one that holds it.
        peak = np.nan_to_num(values).max(initial=0)
        levels = (1, 255, 65535, 2**32 - 1) if image.mode == "F" else (255, 65535, 2**32 - 1)
        white = next((level for level in levels if peak <= level), peak)
    scaled = np.nan_to_num(values).clip(0, white) / white
    return Image.fromarray(np.rint(scaled * 255).astype(np.uint8))


def _to_srgb(image: Image.Image) -> Image.Image:
    """Converts to mode RGB in sRGB, by the ICC profile where there is a usable one."""
    profile = image.info.get("icc_profile")
    image = _to_eight_bits(image)
    if image.mode in ("1", "P", "PA", "La", "LA", "RGBA", "RGBa", "RGBX"):
        image = image.convert("L" if image.mode in ("1", "La", "LA") else "RGB")
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
