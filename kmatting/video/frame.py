"""A frame of a video, and the error of a video."""

from dataclasses import dataclass
from fractions import Fraction

from kmatting.images import Photo


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Attributes:
        photo: the picture, upright, with square pixels, in sRGB.
        time: seconds from the start of the video, or of the part that is read, to this frame.
        duration: seconds until the next frame.
    """

    photo: Photo
    time: Fraction
    duration: Fraction
