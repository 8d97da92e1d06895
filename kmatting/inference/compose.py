"""Makes cutouts and composites from foreground colours and an alpha."""

import io
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageColor, ImageOps

from kmatting.errors import ImageError
from kmatting.images import Photo, Source, read_image
from kmatting.inference.tiles import tiles

LOSSY_QUALITY = 90  # of JPEG and WebP

# Options of the writer by the suffix of a cutout's file.
CUTOUT_OPTIONS: dict[str, dict[str, Any]] = {
    ".png": {},
    ".webp": {"quality": LOSSY_QUALITY},
    ".tif": {"compression": "tiff_deflate"},
    ".tiff": {"compression": "tiff_deflate"},
}
COMPOSITE_OPTIONS = {
    **CUTOUT_OPTIONS,
    ".jpg": {"quality": LOSSY_QUALITY},
    ".jpeg": {"quality": LOSSY_QUALITY},
}

Colour = tuple[int, int, int]

_TILE = 256  # side in pixels


def cutout(foreground: np.ndarray, alpha: np.ndarray) -> Image.Image:
    """Joins foreground colours and alpha.

    Args:
        foreground: uint8 array (H, W, 3), the colours of the foreground.
        alpha: float array (H, W) in [0, 1].

    Returns:
        PIL image in mode RGBA, not premultiplied. Transparent pixels are black, so that the file
        holds nothing of the background.
    """
    pixels = np.empty((*alpha.shape, 4), np.uint8)
    for tile in tiles(alpha.shape[0], alpha.shape[1], _TILE):
        opacity = np.rint(alpha[tile] * 255).astype(np.uint8)
        visible = opacity > 0
        for channel in range(3):  # NumPy is slow along an axis of three
            colour = foreground[tile][..., channel]
            np.multiply(colour, visible, out=pixels[tile][..., channel])
        pixels[tile][..., 3] = opacity
    return Image.fromarray(pixels)


def composite(
    foreground: np.ndarray, alpha: np.ndarray, background: Colour | np.ndarray
) -> Image.Image:
    """Lays a foreground over a new background: alpha * foreground + (1 - alpha) * background.

    Args:
        foreground: uint8 array (H, W, 3), the colours of the foreground.
        alpha: float array (H, W) in [0, 1].
        background: a colour or an image, as returned by `read_background`. An image is scaled to
            cover the photo and cropped around its centre.

    Returns:
        PIL image in mode RGB, of the photo's size.
    """
    height, width = alpha.shape
    if isinstance(background, tuple):
        behind = np.broadcast_to(np.array(background, np.uint8), foreground.shape)
    else:
        scene = Image.fromarray(background)
        behind = np.asarray(ImageOps.fit(scene, (width, height), Image.Resampling.LANCZOS))
    mixed = np.empty_like(foreground)
    for tile in tiles(height, width, _TILE):
        for channel in range(3):  # as above
            under = behind[tile][..., channel].astype(np.float32)
            mixture = foreground[tile][..., channel] - under
            mixture *= alpha[tile]
            mixture += under
            mixed[tile][..., channel] = np.rint(mixture, out=mixture)
    return Image.fromarray(mixed)


def with_metadata(picture: Image.Image, photo: Photo) -> Image.Image:
    """Gives a picture the EXIF data and the colour profile of its photo.

    Its colours are converted to the photo's ICC profile. Those that sRGB cannot hold were lost when
    the photo was read. Where the profile is not one for RGB, or only for reading, the picture stays
    in sRGB and says so by that profile. A photo without a profile gives a picture without one.

    Args:
        picture: PIL image in mode RGB or RGBA, in sRGB.
        photo: the photo that it was made of.

    Returns:
        A PIL image of the same mode, whose `info` holds `exif` and, for a photo with a profile,
        `icc_profile`. `metadata_options` passes them on to Pillow's writer.
    """
    picture = picture.copy()
    if photo.icc_profile:
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        try:
            target = ImageCms.ImageCmsProfile(io.BytesIO(photo.icc_profile))
            ImageCms.profileToProfile(picture, srgb, target, inPlace=True)
        except (ImageCms.PyCMSError, OSError, ValueError):
            target = srgb
        picture.info["icc_profile"] = target.tobytes()
    picture.info["exif"] = photo.exif
    return picture


def metadata_options(picture: Image.Image, suffix: str) -> dict[str, Any]:
    """Returns the options of the writer that put a picture's metadata into its file.

    Args:
        picture: PIL image; only what `with_metadata` gave it counts.
        suffix: suffix of the file in lower case. A TIFF file gets camera, author and the like, but
            neither exposure nor place: Pillow cannot write those into a compressed one.
    """
    keys = [key for key in ("exif", "icc_profile") if key in picture.info]
    options: dict[str, Any] = {key: picture.info[key] for key in keys}
    if options.get("exif") and suffix in (".tif", ".tiff"):
        exif = Image.Exif()
        exif.load(options["exif"])
        for tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            exif.pop(tag, None)
        options["exif"] = exif
    return options


def read_background(background: Source | Colour) -> Colour | np.ndarray:
    """Reads a background: a colour or an image.

    Args:
        background: a colour, or an image as in `read_image`. A colour is a name ("white"), a
            text such as "#rrggbb" or "rgb(0, 128, 0)", or three integers from 0 to 255. A text
            that names a colour is taken as one: write "./white" for a file of that name.

    Returns:
        The colour as a tuple of three integers, or the image as a uint8 array (H, W, 3).

    Raises:
        ImageError: if it is neither.
    """
    if isinstance(background, tuple | list):
        return _checked_colour(background)
    if not isinstance(background, str):
        return read_image(background)
    try:
        colour = ImageColor.getrgb(background)
    except ValueError:
        try:
            return read_image(background)
        except ImageError as error:
            raise ImageError(
                f"Background {background!r}: neither a colour (such as white, #00ff00) "
                f"nor an image that can be read ({error})"
            ) from error
    if len(colour) == 4:
        raise ImageError(f"Background {background!r}: expected a colour without transparency.")
    return colour


def _checked_colour(colour: Sequence[Any]) -> Colour:
    try:
        levels = tuple(operator.index(level) for level in colour)
    except TypeError:
        levels = ()
    if len(levels) != 3 or not all(0 <= level <= 255 for level in levels):
        raise ImageError(
            "Background: expected a colour of three integers from 0 to 255, received a "
            f"{type(colour).__name__} of {', '.join(_short(level) for level in colour[:4])}. "
            "Multiply floats in [0, 1] by 255 and round them."
        )
    red, green, blue = levels
    return red, green, blue


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, int | float) else type(value).__name__
