"""Reads any photo to upright 8-bit RGB in sRGB."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from kmatting.images.faults import named_errors
from kmatting.images.levels import photo_whites, to_eight_bits
from kmatting.images.metadata import SIDEWAYS, described, stored_orientation
from kmatting.images.opening import Source, chosen, decoded, opened

DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")  # of a single channel


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
        dpi: dots per inch across and down, or None if the file states none that can be true.
    """

    rgb: np.ndarray
    opacity: np.ndarray | None = None
    exif: bytes = b""
    icc_profile: bytes | None = None
    more: str = ""
    dpi: tuple[float, float] | None = None

    def note(self) -> str:
        """Returns in one phrase what of the file is left out; "" if nothing is."""
        if not self.more:
            return ""
        hint = "; kmatting video cuts out all of them" if self.more == "frames" else ""
        return f"holds several {self.more}, only the {chosen(self.more)} is cut out{hint}"

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
    with decoded(source) as found:
        if warn:
            found.warn_of_more()
        image = found.image
        return Photo(
            rgb=np.asarray(_to_srgb(image)),
            opacity=opacity_of(image),
            exif=described(found.exif),
            icc_profile=image.info.get("icc_profile"),
            more=found.more,
            dpi=found.dpi,
        )


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
    with decoded(source) as found:
        found.warn_of_more()
        return Photo(np.asarray(_to_srgb(found.image)), opacity_of(found.image)).flatten()


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
    with opened(source) as (image, name), named_errors(name):
        width, height = image.size
        # Of a TIFF, Pillow gives the upright size.
        sideways = image.format != "TIFF" and stored_orientation(image) in SIDEWAYS
        return (width, height) if sideways else (height, width)


def opacity_of(image: Image.Image) -> np.ndarray | None:
    """Returns the transparency of an image, uint8 (H, W); None where all of it is opaque."""
    if not image.has_transparency_data:
        return None
    key = image.info.get("transparency")
    if image.mode in DEEP_MODES:
        opacity = np.where(np.asarray(image) == key, np.uint8(0), np.uint8(255))
    elif image.mode in ("RGBA", "LA", "PA"):
        opacity = np.asarray(image.getchannel("A"))
    elif image.mode == "La":  # Pillow converts it to LA alone
        opacity = np.asarray(image.convert("LA").getchannel("A"))
    else:
        opacity = np.asarray(image.convert("RGBA").getchannel("A"))
    return opacity if opacity.min() < 255 else None


def _to_srgb(image: Image.Image) -> Image.Image:
    """Converts to mode RGB in sRGB, by the ICC profile where there is a usable one."""
    profile = image.info.get("icc_profile")
    named = None if profile else image.info.get("nclx_profile")  # of a HEIC file
    if image.mode in DEEP_MODES:
        values = np.asarray(image)
        image = Image.fromarray(to_eight_bits(values, photo_whites(values.dtype)))
    elif image.mode == "La":
        image = image.convert("LA").convert("L")
    elif image.mode in ("1", "LA"):
        image = image.convert("L")
    elif image.mode in ("P", "PA", "RGBA", "RGBa", "RGBX"):
        image = without_palette(image)
    if named and image.mode == "RGB":
        from kmatting.images.nclx import is_other_than_srgb, to_srgb

        codes = named["color_primaries"], named["transfer_characteristics"]
        if is_other_than_srgb(*codes):
            return Image.fromarray(to_srgb(np.asarray(image), *codes))
    if profile or image.mode == "LAB":
        image = _by_profile(image, profile)
    return image if image.mode == "RGB" else image.convert("RGB")


def _by_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Converts to sRGB by an ICC profile, or from Lab; by none that is broken or does not fit."""
    from PIL import ImageCms  # here, as most photos need none

    try:
        source = (
            ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if profile
            else ImageCms.createProfile("LAB")
        )
        srgb = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image  # the plain numbers are the best guess
    return image if converted is None else converted


def without_palette(image: Image.Image) -> Image.Image:
    """Drops palette and transparency; Pillow would warn of a palette that has opacities."""
    if image.mode == "P":
        image = image.convert("RGBA")
    return image.convert("RGB")
