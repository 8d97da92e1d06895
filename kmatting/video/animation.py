"""Reads animated GIF, WebP, PNG and AVIF files, with Pillow."""

from collections.abc import Generator, Iterator
from fractions import Fraction

from PIL import Image

from kmatting.errors import VideoError
from kmatting.images import read_photo
from kmatting.video.clip import Clip, Frame, check_size
from kmatting.video.source import Source

_FORMATS = ("GIF", "WEBP", "PNG", "AVIF")
_MILLISECOND = Fraction(1, 1000)
_LEAST = 11  # milliseconds; browsers show frames of less for 100
_USUAL = 100


def is_animation(start: bytes) -> bool:
    """Returns whether a file that starts like this is a GIF, WebP, PNG or AVIF."""
    return (
        start.startswith((b"GIF8", b"\x89PNG"))
        or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")
        or start[4:12] in (b"ftypavif", b"ftypavis")
    )


class Animation(Clip):
    """An animated GIF, WebP, PNG or AVIF.

    Args:
        source: the file.

    Raises:
        VideoError: if the file is damaged or holds a single picture.
    """

    def __init__(self, source: Source) -> None:
        super().__init__(source.name)
        self.time_base = _MILLISECOND
        self._path = source.path
        with self._opened() as image:
            check_size(self.name, *image.size)
            # A PNG may begin with a picture for programs that show no animation.
            self._first = int(getattr(image, "default_image", False))
            self.count = getattr(image, "n_frames", 1) - self._first
            self.plays = _plays(image)
        if self.count == 1:
            raise VideoError(
                f"{self.name}: is a photo, not a video; cut it out with kmatting predict."
            )

    def frames(
        self, start: float | Fraction = 0, end: float | Fraction | None = None
    ) -> Generator[Frame]:
        """Reads the frames, see `Clip.frames`; they keep the transparency of the file."""
        start, time, found = Fraction(start), Fraction(0), False
        end = None if end is None else Fraction(end)
        for image, duration in self._pictures():
            if end is not None and time >= end:
                break
            if time >= start:
                found = True
                rest = duration if end is None else min(duration, end - time)
                yield Frame(read_photo(image), time - start, rest)
            time += duration
        else:
            self.duration = time
        if not found:
            raise self._no_frames(start, end)

    def _pictures(self) -> Iterator[tuple[Image.Image, Fraction]]:
        """Decodes the pictures up to a damaged one, with the seconds that each is shown."""
        time = Fraction(0)
        with self._opened() as image:
            for number in range(self._first, self._first + (self.count or 0)):
                try:
                    image.seek(number)
                    image.load()
                except Exception:  # decoders raise nearly every type on broken files
                    self.problems.append(f"{self.name}: damaged after {float(time):.2f} seconds.")
                    return
                duration = _milliseconds(image) * _MILLISECOND
                time += duration
                yield image, duration

    def _opened(self) -> Image.Image:
        try:
            return Image.open(self._path, formats=_FORMATS)
        except Exception as error:  # as above
            raise VideoError(f"{self.name}: damaged or truncated image ({error}).") from error


def _plays(image: Image.Image) -> int:
    """Returns how often an animation is shown, 0 for ever.

    A GIF counts the repetitions after the first time, and plays once if it says nothing; WebP and
    PNG count how often it is shown.
    """
    stated = image.info.get("loop")
    if image.format != "GIF":
        return stated or 0
    return 1 if stated is None else stated and stated + 1


def _milliseconds(image: Image.Image) -> int:
    stated = round(image.info.get("duration", 0))
    return stated if stated >= _LEAST else _USUAL
