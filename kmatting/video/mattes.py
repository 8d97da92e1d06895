"""From frames to mattes: the network, the median over time, the size of the frame."""

from collections.abc import Iterable, Iterator

import numpy as np

from kmatting.inference.matter import Matter
from kmatting.inference.refine import refine
from kmatting.pictures.matte import Matte
from kmatting.video.ahead import ahead, map_ahead
from kmatting.video.frame import Frame
from kmatting.video.steady import steady


def matte_frames(
    frames: Iterable[Frame], matter: Matter, median: bool = True
) -> Iterator[tuple[Frame, Matte]]:
    """Predicts the mattes of a video's frames.

    Reading, the network, the refinement and what the caller does with a matte run at the same time,
    in threads. A few frames are held, however long the video is.

    Args:
        frames: the frames, as from `read_frames`. All have one size.
        matter: the model.
        median: whether to take the median over three frames, see `kmatting.video.steady`.

    Yields:
        Each frame with its `Matte`.

    Raises:
        PhotoError: if the model cannot run on a frame.
    """

    def with_matte(coarse: tuple[Frame, np.ndarray]) -> tuple[Frame, Matte]:
        return coarse[0], refined(*coarse)

    yield from map_ahead(with_matte, coarse_mattes(frames, matter, median))


def coarse_mattes(
    frames: Iterable[Frame], matter: Matter, median: bool
) -> Iterator[tuple[Frame, np.ndarray]]:
    """Predicts the mattes of a video's frames at the size of the network.

    Args:
        frames: as in `matte_frames`.
        matter: as in `matte_frames`.
        median: as in `matte_frames`.

    Yields:
        Each frame with its matte, a float32 array (h, w) in [0, 1].
    """

    def predicted() -> Iterator[tuple[Frame, np.ndarray]]:
        for frame in ahead(frames):
            yield frame, matter.predict_small(frame.photo)

    mattes = ahead(predicted())
    yield from steady(mattes) if median else mattes


def refined(frame: Frame, alpha: np.ndarray) -> Matte:
    """Brings the matte of a frame to the frame's size."""
    return Matte(frame.photo, refine(alpha, frame.photo.flatten()))
