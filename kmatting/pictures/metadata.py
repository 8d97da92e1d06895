"""The photo's metadata in the pictures that are made of it: EXIF data and colour profile."""

import io

import numpy as np
from PIL import ExifTags, Image

from kmatting.images import Photo

_JPEG_EXIF = 65_533 - 6  # bytes: a segment of JPEG holds no more, and "Exif" stands before them
_SUB_IFDS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)


def with_profile(
    image: Image.Image | np.ndarray, photo: Photo
) -> tuple[Image.Image | np.ndarray, bytes | None]:
    """Converts the colours of a picture to the ICC profile of its photo.

    Those that sRGB cannot hold were lost when the photo was read. Where the profile is not one for
    RGB, or only for reading, the picture stays in sRGB. A photo without a profile gives a picture
    without one.

    Args:
        image: PIL image in mode RGB or RGBA, or a uint16 array (H, W, 4); in sRGB.
        photo: the photo that it was made of.

    Returns:
        The picture in the same kind, and the profile that it is in, or None.
    """
    if not photo.icc_profile:
        return image, None
    if isinstance(image, np.ndarray):
        colours = Image.fromarray((image[..., :3] // 257).astype(np.uint8))
        converted, profile = with_profile(colours, photo)
        levels = np.asarray(converted).astype(np.uint16) * 257
        return np.dstack([levels, image[..., 3]]), profile
    from PIL import ImageCms  # here, as most photos need none

    image = image.copy()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    try:
        target = ImageCms.ImageCmsProfile(io.BytesIO(photo.icc_profile))
        ImageCms.profileToProfile(image, srgb, target, inPlace=True)
    except (ImageCms.PyCMSError, OSError, ValueError):
        target = srgb
    return image, target.tobytes()


def exif_option(exif: bytes, suffix: str) -> tuple[bytes | Image.Exif, str]:
    """Fits EXIF data to a format of files.

    Args:
        exif: EXIF data as in `Photo.exif`.
        suffix: of the file, in lower case. A TIFF file gets camera, author and the like, but
            neither exposure nor place: Pillow cannot write those into a compressed one. A JPEG file
            holds 64 KB.

    Returns:
        What the writer takes, and what was left out in a phrase, or "".
    """
    if suffix in (".tif", ".tiff"):
        fitted = _loaded(exif)
        left_out = [fitted.pop(tag, None) for tag in _SUB_IFDS]
        return fitted, "TIFF files do not keep exposure and place" if any(left_out) else ""
    if suffix in (".jpg", ".jpeg") and len(exif) > _JPEG_EXIF:
        return _shortened(exif), "EXIF data of more than 64 KB do not fit into JPEG: cut down"
    return exif, ""


def _shortened(exif: bytes) -> bytes:
    """Drops the longest values until a JPEG file holds the rest."""
    kept = _loaded(exif)
    details = dict(kept.get_ifd(ExifTags.IFD.Exif))
    kept[ExifTags.IFD.GPSInfo] = dict(kept.get_ifd(ExifTags.IFD.GPSInfo))
    holders = (details, kept)
    lengths = [
        (len(value), index, tag)
        for index, holder in enumerate(holders)
        for tag, value in dict(holder).items()
        if isinstance(value, bytes | str)
    ]
    for _, index, tag in sorted(lengths, reverse=True):
        del holders[index][tag]
        kept[ExifTags.IFD.Exif] = details
        if len(data := kept.tobytes()) <= _JPEG_EXIF:
            return data
    return b""  # thousands of short values


def _loaded(exif: bytes) -> Image.Exif:
    loaded = Image.Exif()
    loaded.load(exif)
    return loaded
