"""Reads animated GIF, WebP, PNG and AVIF files, with Pillow."""

from collections.abc import Generator
from fractions import Fraction
from pathlib import Path

from PIL import Image, ImageSequence

from kmatting.errors import VideoError
from kmatting.images import MAX_PIXELS, read_photo
from kmatting.video.frame import Frame

_FORMATS = ("GIF", "WEBP", "PNG", "AVIF")
_MILLISECOND = Fraction(1, 1000)
_LEAST = 11  # milliseconds; browsers show frames of less for 100
_USUAL = 100


def is_animation(path: Path) -> bool:
    """Tells whether a file is a GIF, WebP, PNG or AVIF, by its content."""
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except OSError:
        return False
    return (
        start.startswith((b"GIF8", b"\x89PNG"))
        or (start[:4] == b"RIFF" and start[8:] == b"WEBP")
        or start[4:] in (b"ftypavif", b"ftypavis")
    )


class Animation:
    """An animated GIF, WebP, PNG or AVIF.

    Args:
        path: path of the file.

    Attributes:
        count: number of frames.
        rate: frames a second on average, or None.
        time_base: seconds, the unit of time stamps.
        duration: None; it is known once the frames were read.
        has_sound: False.
        notes: empty, as an animation is read as it is.
        problems: what could not be read, one line each; complete once the frames were read.

    Raises:
        VideoError: if the file is damaged or holds a single picture.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.time_base = _MILLISECOND
        self.rate: Fraction | None = None
        self.duration: Fraction | None = None
        self.has_sound = False
        self.notes: list[str] = []
        self.problems: list[str] = []
        with self._opened() as image:
            self.count = getattr(image, "n_frames", 1)
            size = image.size
        if size[0] * size[1] > MAX_PIXELS:
            raise VideoError(f"{path}: {size[0]}x{size[1]} are more than {MAX_PIXELS:,} pixels.")
        if self.count == 1:
            raise VideoError(f"{path}: is a photo, not a video; cut it out with kmatting predict.")

    def frames(
        self, start: float | Fraction = 0, end: float | Fraction | None = None
    ) -> Generator[Frame]:
        """Reads the frames.

        Args:
            start: as in `kmatting.video.read_frames`.
            end: as in `kmatting.video.read_frames`.

        Yields:
            The `Frame`s, with the transparency of the file.

        Raises:
            VideoError: if there is no frame.
        """
        start, time, found = Fraction(start), Fraction(0), False
        with self._opened() as image:
            frames = iter(ImageSequence.Iterator(image))
            while end is None or time < end:
                try:
                    frame = next(frames)
                    photo = read_photo(frame)
                except StopIteration:
                    break
                except (OSError, ValueError, SyntaxError, EOFError):
                    self.problems.append(f"{self.path}: damaged after {float(time):.2f} seconds.")
                    break
                duration = _milliseconds(frame) * _MILLISECOND
                if time >= start:
                    found = True
                    rest = duration if end is None else min(duration, Fraction(end) - time)
                    yield Frame(photo, time - start, rest)
                time += duration
        if not found:
            where = "" if start == 0 and end is None else " between --start and --end"
            raise VideoError(f"{self.path}: no frames{where}.")

    def _opened(self) -> Image.Image:
        try:
            return Image.open(self.path, formats=_FORMATS)
        except (OSError, ValueError, SyntaxError) as error:
            raise VideoError(f"{self.path}: damaged or truncated image ({error}).") from error


def _milliseconds(frame: Image.Image) -> int:
    stated = round(frame.info.get("duration", 0))
    return stated if stated >= _LEAST else _USUAL
