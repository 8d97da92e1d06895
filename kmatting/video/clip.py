"""What frames come from, and what is known of it."""

from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction

from kmatting.errors import VideoError
from kmatting.images import Photo

# Of a frame: 8192x4320. As WebM, the hungriest, that takes 5 GB.
MAX_PIXELS = 36_000_000


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


class Clip(ABC):
    """A video file, an animation, or a folder of frames.

    Attributes:
        name: what messages call it.
        count: number of frames, as the file states it or estimated; None if unknown.
        rate: frames a second on average, or None if unknown.
        time_base: seconds, the unit of the time stamps.
        duration: seconds, as the file states it, or None.
        has_sound: whether there is a sound track.
        plays: how often an animation is shown; 0 is for ever, and stands for all other clips, too.
        tags: title, author, date, place and the like, by FFmpeg's names.
        notes: what is changed on reading, one line each; complete once the frames were read.
        problems: what could not be read, one line each; complete once the frames were read.
    """

    count: int | None = None
    rate: Fraction | None = None
    time_base = Fraction(1, 1000)
    duration: Fraction | None = None
    has_sound = False
    plays = 0

    def __init__(self, name: str) -> None:
        self.name = name
        self.tags: dict[str, str] = {}
        self.notes: list[str] = []
        self.problems: list[str] = []

    @abstractmethod
    def frames(
        self, start: float | Fraction = 0, end: float | Fraction | None = None
    ) -> Generator[Frame]:
        """Reads the frames.

        Args:
            start: as in `read_frames`.
            end: as in `read_frames`.

        Yields:
            The `Frame`s.

        Raises:
            VideoError: if the clip is damaged or holds no frame there.
        """

    def _no_frames(self, start: Fraction, end: Fraction | None) -> VideoError:
        where = "" if start == 0 and end is None else " between --start and --end"
        known = f"; it is {float(self.duration):.2f} seconds long" if self.duration else ""
        return VideoError(f"{self.name}: no frames{where}{known}.")


def check_size(name: str, width: int, height: int) -> None:
    """Refuses frames that would not fit into memory.

    Args:
        name: what messages call the clip.
        width: width of the frames in pixels, as they are shown.
        height: their height.

    Raises:
        VideoError: if they have more than `MAX_PIXELS`.
    """
    if width * height > MAX_PIXELS:
        raise VideoError(
            f"{name}: frames of {width}x{height} are more than {MAX_PIXELS:,} pixels, refused."
        )
