"""Reads frames from a folder of images, as `VideoSink` and many programs write them."""

import os
import re
from collections.abc import Generator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from kmatting.errors import ImageError, VideoError
from kmatting.images import image_suffixes, list_images, read_photo
from kmatting.terminal import counted
from kmatting.video.clip import Clip, Frame, check_size

TIMES = "timestamps.txt"
TIMES_HEADER = "# timestamp format v2"  # of mkvmerge: a line of milliseconds for each frame

_NUMBER = re.compile(r"%(?:0\d{1,2})?d")
_MILLISECOND = Fraction(1, 1000)
_USUAL_RATE = Fraction(25)  # frames a second, of a single image
_TIME = re.compile(r"\d{1,12}(\.\d{1,9})?")


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path is that of a folder, or a pattern such as `frames/%04d.png`."""
    path = Path(path)
    return path.is_dir() or (_is_pattern(path) and not path.exists())


def folder_of(path: Path) -> Path:
    """Returns the folder of frames that a path or a pattern means."""
    return path if path.is_dir() else path.parent


def frame_files(folder: Path) -> list[Path]:
    """Lists the images of a folder in the order of the numbers in their names."""
    return sorted(list_images(folder), key=lambda path: _natural(path.name))


class FrameFolder(Clip):
    """A folder of images, or those of its images whose names fit a pattern.

    Args:
        path: the folder, or a pattern such as `frames/%04d.png`.
        rate: frames a second. Without it the folder's `timestamps.txt` is read.

    Raises:
        VideoError: if there are no images, or neither times nor a rate.
        ImageError: if the folder cannot be read.
    """

    time_base = Fraction(1, 90_000)  # frames of 24, 25, 30 and 60 a second fall on whole ticks

    def __init__(self, path: str | os.PathLike[str], rate: Fraction | None) -> None:
        super().__init__(str(path))
        if rate is not None and rate <= 0:
            raise VideoError(f"{path}: expected a rate above 0, received {rate}.")
        numbered = _numbered(Path(path))
        if not numbered:
            where = "in this folder" if Path(path).is_dir() else "of this name"
            raise VideoError(f"{path}: no images {where}.")
        self._files = [file for _, file in numbered]
        times = self._appearing(numbered, rate, folder_of(Path(path)) / TIMES)
        if rate is None and len(times) > 1:
            last = times[-1] - times[-2]  # it is shown as long as the one before it
        else:
            last = 1 / (rate or _USUAL_RATE)
        self._times = [*times, times[-1] + last]
        self.count, self.duration = len(times), self._times[-1]
        self.rate = rate or self.count / (self.duration - times[0])

    def _appearing(
        self, numbered: list[tuple[int, Path]], rate: Fraction | None, stated: Path
    ) -> list[Fraction]:
        """Returns the times, in seconds, at which the frames appear."""
        if rate is not None:
            first, last = numbered[0][0], numbered[-1][0]
            if missing := last - first + 1 - len(numbered):
                self.notes.append(
                    f"{counted(missing, 'number')} missing; "
                    "the frame before is shown until the next one"
                )
            return [(number - first) / rate for number, _ in numbered]
        if stated.exists():
            return _read_times(stated, len(numbered))
        raise VideoError(
            f"{self.name}: images do not say when they are shown; add the frames a second, such as "
            "--fps 25."
        )

    def frames(
        self, start: float | Fraction = 0, end: float | Fraction | None = None
    ) -> Generator[Frame]:
        """Reads the frames, see `Clip.frames`."""
        start, end = Fraction(start), None if end is None else Fraction(end)
        size: tuple[int, int] | None = None
        for file, time, until in zip(self._files, self._times, self._times[1:], strict=False):
            if time < start:
                continue
            if end is not None and time >= end:
                break
            try:
                photo = read_photo(file)
            except ImageError as error:
                self.problems.append(f"{str(error).rstrip('.')}; this frame is left out.")
                continue
            height, width = photo.rgb.shape[:2]
            check_size(str(file), width, height)
            size = size or (width, height)
            if (width, height) != size:
                raise VideoError(
                    f"{file}: is {width}x{height}, expected {size[0]}x{size[1]} as the first frame."
                )
            yield Frame(photo, time - start, (until if end is None else min(until, end)) - time)
        if size is None:
            raise self._no_frames(start, end)


def _is_pattern(path: Path) -> bool:
    return len(_NUMBER.findall(path.name)) == 1 and path.suffix.lower() in image_suffixes()


def _numbered(path: Path) -> list[tuple[int, Path]]:
    """Lists the images of a folder, counted, or those that fit a pattern, with their numbers."""
    if path.is_dir():
        return list(enumerate(frame_files(path)))
    before, after = _NUMBER.split(path.name)
    width = re.search(r"%0(\d+)d", path.name)
    digits = rf"\d{{{width[1]},18}}" if width else r"0|[1-9]\d{0,17}"
    name = re.compile(f"{re.escape(before)}({digits}){re.escape(after)}")
    found = ((name.fullmatch(file.name), file) for file in list_images(path.parent))
    return sorted((int(match[1]), file) for match, file in found if match)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Makes a key by which `frame_2` comes before `frame_10`."""
    parts = re.split(r"(\d{1,18})", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]


def _read_times(path: Path, count: int) -> list[Fraction]:
    """Reads the times, in seconds, at which frames appear."""
    lines = path.read_text(errors="replace").split("\n")
    header, stated = lines[0].strip(), [line.strip() for line in lines[1:] if line.strip()]
    if header != TIMES_HEADER or not all(map(_TIME.fullmatch, stated)):
        raise VideoError(
            f"{path}: expected {TIMES_HEADER!r} and a line of milliseconds for each frame; "
            "or add the frames a second, such as --fps 25."
        )
    times = [Fraction(line) * _MILLISECOND for line in stated]
    if len(times) != count or any(a >= b for a, b in pairwise(times)):
        raise VideoError(
            f"{path}: expected {count} times that rise, one for each image, received {len(times)}; "
            "or add the frames a second, such as --fps 25."
        )
    return times
