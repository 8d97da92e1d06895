"""From frames to mattes: the network, the median over time, the size of the frame."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from kmatting.ahead import ahead, map_ordered
from kmatting.errors import PhotoError
from kmatting.images import Photo
from kmatting.inference.matter import Matter
from kmatting.inference.refine import refine
from kmatting.pictures.matte import Matte
from kmatting.video.clip import Frame
from kmatting.video.steady import steadied

WORKERS = 2  # threads that refine mattes and make pictures


@dataclass(frozen=True)
class Seen:
    """A frame on its way through the network.

    Attributes:
        frame: the frame.
        image: uint8 array (H, W, 3), what the network sees of it: where it is transparent, white.
    """

    frame: Frame
    image: np.ndarray


def matte_frames(
    frames: Iterable[Frame], matter: Matter, steady: bool = True
) -> Iterator[tuple[Frame, Matte]]:
    """Predicts the mattes of a video's frames.

    Reading, the network, the refinement and what the caller does with a matte run at the same time,
    in threads. A few frames are held, however long the video is.

    Args:
        frames: the frames, as from `read_frames`. All have one size.
        matter: the model.
        steady: whether to take the median over three frames, see `kmatting.video.steady`.

    Yields:
        Each frame with its `Matte`.

    Raises:
        PhotoError: if the model cannot run on a frame.
    """

    def with_matte(coarse: tuple[Seen, np.ndarray]) -> tuple[Frame, Matte]:
        return coarse[0].frame, refined(*coarse)

    yield from map_ordered(with_matte, coarse_mattes(frames, matter, steady), WORKERS)


def coarse_mattes(
    frames: Iterable[Frame], matter: Matter, steady: bool
) -> Iterator[tuple[Seen, np.ndarray]]:
    """Predicts the mattes of a video's frames at the size of the network.

    Args:
        frames: as in `matte_frames`.
        matter: as in `matte_frames`.
        steady: as in `matte_frames`.

    Yields:
        What was seen of each frame, with its matte, a float32 array (h, w) in [0, 1].
    """

    def predicted() -> Iterator[tuple[Seen, np.ndarray]]:
        for frame in ahead(frames):
            seen = Seen(frame, frame.photo.flatten())
            try:
                yield seen, matter.predict_small(Photo(seen.image))
            except PhotoError as error:
                reason = str(error).removeprefix("image: ")
                raise PhotoError(f"frame at {float(frame.time):.2f} seconds: {reason}") from error

    mattes = ahead(predicted())
    yield from steadied(mattes) if steady else mattes


def refined(seen: Seen, alpha: np.ndarray) -> Matte:
    """Brings the matte of a frame to the frame's size."""
    return Matte(seen.frame.photo, refine(alpha, seen.image))
