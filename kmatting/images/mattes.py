"""Reads any matte to 8 bits, and refuses what is none."""

import numpy as np
from PIL import Image

from kmatting.errors import ImageError
from kmatting.images.levels import matte_whites, to_eight_bits
from kmatting.images.opening import Source, decoded
from kmatting.images.photos import DEEP_MODES, opacity_of, without_palette

OPAQUE_LEVEL = 128  # a set of mattes whose levels all lie below is taken for a mistake

_MOST_LABELS = 63  # numbers of classes in a map of labels
_COLOUR_TOLERANCE = 16  # levels between the channels of a grey JPEG


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
    with decoded(source) as found:
        found.warn_of_more()
        levels = opacity_of(found.image)
        if levels is None:
            levels = _grey_levels(found.image)
        if not exact:
            _refuse_labels(levels)
        return to_eight_bits(levels, matte_whites(levels.dtype, exact))


def faint_set(name: str, peak: int) -> str | None:
    """Explains what is wrong with a set of mattes in which nothing is opaque.

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


def _grey_levels(image: Image.Image) -> np.ndarray:
    """Returns the levels of a grey image in the depth that it has: (H, W) of integers or floats.

    Raises:
        ImageError: if it has colours.
    """
    if image.mode in ("L", *DEEP_MODES):
        return np.asarray(image)
    if image.mode in ("1", "LA"):
        return np.asarray(image.convert("L"))
    # No colour management: the numbers of a matte are coverage, not light.
    colours = without_palette(image)
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
