"""From frames to mattes: the network, the median over time, the size of the frame."""

from collections.abc import Iterable, Iterator

import numpy as np

from kmatting.inference.matte import Matte
from kmatting.inference.matter import Matter
from kmatting.inference.refine import refine
from kmatting.video.ahead import ahead, map_ahead
from kmatting.video.frame import Frame
from kmatting.video.steady import steady


def matte_frames(
    frames: Iterable[Frame], matter: Matter, median: bool = True
) -> Iterator[tuple[Frame, Matte]]:
    """Predicts the mattes of a video's frames.

    Reading, the network and what the caller does with a matte run at the same time, in threads. A
    few frames are held at a time, however long the video is.

    Args:
        frames: the frames, as from `read_frames`. All have one size.
        matter: the model.
        median: whether to take the median over three frames, see `kmatting.video.steady`.

    Yields:
        Each frame with its `Matte`.

    Raises:
        PhotoError: if the model cannot run on a frame.
    """
    coarse = ahead(_coarse(ahead(frames), matter))
    yield from map_ahead(_refined, steady(coarse) if median else coarse)


def _coarse(frames: Iterable[Frame], matter: Matter) -> Iterator[tuple[Frame, np.ndarray]]:
    for frame in frames:
        yield frame, matter.coarse(frame.photo)


def _refined(coarse: tuple[Frame, np.ndarray]) -> tuple[Frame, Matte]:
    frame, alpha = coarse
    return frame, Matte(frame.photo, refine(alpha, frame.photo.flatten()))
