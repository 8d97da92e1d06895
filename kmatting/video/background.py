"""The scene behind a subject: a colour, an image, or a video that plays along."""

import contextlib
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from kmatting.errors import VideoError
from kmatting.inference.compose import Colour, read_background
from kmatting.video.animation import is_animation
from kmatting.video.frame import Frame
from kmatting.video.read import open_video

_SUFFIXES = (
    *(".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
    *(".3gp", ".wmv", ".flv", ".ogv"),
)


class Background:
    """What is behind the subject at each moment.

    Args:
        source: a colour (`white`, `#00ff00`), or the path of an image, an animation or a video. A
            video is known by its suffix. What moves is repeated where it is too short.

    Attributes:
        notes: what is changed on reading a video, one line each; complete once it is closed.
        problems: what could not be read, likewise.

    Raises:
        ImageError: if it is neither a colour nor an image that can be read.
        VideoError: if it is a video that cannot be read.
    """

    def __init__(self, source: str) -> None:
        self.notes: list[str] = []
        self.problems: list[str] = []
        self._still: Colour | np.ndarray | None = None
        self._scene: Generator[tuple[Frame, Fraction]] | None = None
        if _moves(source):
            open_video(source)  # a bad one is known before any work
            self._scene = self._repeated(source)
            self._shown, self._until = next(self._scene)
        else:
            self._still = read_background(source)

    def at(self, time: Fraction, size: tuple[int, int]) -> Colour | np.ndarray:
        """Returns the background at a time.

        Args:
            time: seconds, not before that of the call before.
            size: height and width in pixels that an image or a frame is to cover.

        Returns:
            The colour, or a uint8 array (H, W, 3).
        """
        if self._scene is not None:
            while self._until <= time:
                self._shown, self._until = next(self._scene)
            return _covering(self._shown.photo.flatten(), size)
        if isinstance(self._still, np.ndarray):
            self._still = _covering(self._still, size)
        assert self._still is not None
        return self._still

    def close(self) -> None:
        """Ends the reading of a video."""
        if self._scene is not None:
            self._scene.close()

    def _repeated(self, source: str) -> Generator[tuple[Frame, Fraction]]:
        """Yields the frames of a video over and over, with the time until which each is shown."""
        until = Fraction(0)
        while True:
            video = open_video(source)
            try:
                with contextlib.closing(video.frames()) as frames:
                    for frame in frames:
                        until += frame.duration
                        yield frame, until
            finally:  # each time around it says the same
                self.notes += [note for note in video.notes if note not in self.notes]
                self.problems += [each for each in video.problems if each not in self.problems]


def _moves(source: str) -> bool:
    """Whether a source is a video or an animation, by its suffix or its content."""
    path = Path(source)
    if not is_animation(path):
        return path.suffix.lower() in _SUFFIXES
    try:
        open_video(path)
    except VideoError:  # a single picture
        return False
    return True


def _covering(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scales an image to cover a size, and crops it around its centre."""
    if image.shape[:2] == size:
        return image
    fitted = ImageOps.fit(Image.fromarray(image), size[::-1], Image.Resampling.BICUBIC)
    return np.asarray(fitted)
