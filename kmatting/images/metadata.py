"""What a file says of its photo besides pixels: EXIF data and resolution."""

from typing import Any

from PIL import ExifTags, Image

SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height

# Tags that describe a photo: title, camera, program, time, author, rights. (Its resolution is
# `Photo.dpi`.)
_EXIF_TAGS = (0x10E, 0x10F, 0x110, 0x131, 0x132, 0x13B, 0x13C, 0x8298)
# Maker notes are void when they are moved, and the size may change: width, height, related file.
_EXIF_LEFT = (0x927C, 0xA002, 0xA003, 0xA005)
_DPI_RANGE = (2, 65535)  # what is less is no resolution, such as 1 to 1; JPEG holds no more


def exif_of(image: Image.Image) -> Image.Exif:
    """Returns the EXIF data of an image; none if they are damaged: the photo itself is whole."""
    try:
        exif = image.getexif()
        _ = exif.get(ExifTags.Base.Orientation)  # read only now
    except Exception:  # Pillow raises nearly every type on broken data
        return Image.Exif()
    return exif


def stored_orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation of an image that is not decoded, from its header alone."""
    try:
        # A PNG's own getexif decodes all pixels, to look for EXIF data after them.
        return Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # as above
        return 1


def described(exif: Image.Exif) -> bytes:
    """Returns the EXIF data that stay true when a photo's pixels are changed."""
    groups = _read_groups(exif)
    kept = Image.Exif()
    for group, values in groups.items():
        if group is None:
            kept.update(values)
        elif values:
            kept[group] = values
    if not kept:
        return b""
    try:
        return kept.tobytes()
    except Exception:  # of values that are of another type than their tag has
        return b""


def _read_groups(exif: Image.Exif) -> dict[int | None, dict[int, Any]]:
    """Returns the tags that are kept: the plain ones by None, those of a group by its tag."""
    try:
        details = exif.get_ifd(ExifTags.IFD.Exif)
        return {
            None: {tag: exif[tag] for tag in exif if tag in _EXIF_TAGS},
            ExifTags.IFD.Exif: {tag: details[tag] for tag in details if tag not in _EXIF_LEFT},
            ExifTags.IFD.GPSInfo: dict(exif.get_ifd(ExifTags.IFD.GPSInfo)),
        }
    except Exception:  # values are decoded here
        return {}


def resolution(info: dict[Any, Any], exif: Image.Exif) -> tuple[float, float] | None:
    """Returns the dots per inch across and down of the stored pixels, or None.

    Args:
        info: what Pillow found in the file.
        exif: the EXIF data.
    """
    stated = info.get("dpi")
    if "exif" in info and info.get("jfif_unit") not in (1, 2):
        # Of a JPEG file Pillow takes one side of EXIF's for both, and guesses 72 where it has none.
        return _exif_dpi(exif) or (None if stated == (72, 72) else _usable_dpi(stated, 1))
    return _usable_dpi(stated, 1) or _exif_dpi(exif)


def with_resolution(exif: bytes | Image.Exif | None, dpi: tuple[float, float]) -> Image.Exif:
    """Returns EXIF data that state a resolution as well.

    Args:
        exif: EXIF data, as Pillow returns or takes them.
        dpi: dots per inch across and down.
    """
    stated = Image.Exif()
    if isinstance(exif, Image.Exif):
        stated.load(exif.tobytes())
    elif exif:
        stated.load(exif)
    stated[ExifTags.Base.XResolution], stated[ExifTags.Base.YResolution] = dpi
    stated[ExifTags.Base.ResolutionUnit] = 2  # inches
    return stated


def _exif_dpi(exif: Image.Exif) -> tuple[float, float] | None:
    try:
        unit = exif.get(ExifTags.Base.ResolutionUnit, 2)
        across = exif.get(ExifTags.Base.XResolution)
        down = exif.get(ExifTags.Base.YResolution, across)
    except Exception:  # as above
        return None
    return _usable_dpi((across, down), 2.54 if unit == 3 else 1)  # centimetres or inches


def _usable_dpi(stated: Any, unit: float) -> tuple[float, float] | None:
    """Returns a resolution in dots per inch, or None for one that cannot be true."""
    try:
        across, down = (float(each) * unit for each in stated)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    least, most = _DPI_RANGE
    return (across, down) if least <= across <= most and least <= down <= most else None
