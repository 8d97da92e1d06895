"""Video: frames in, mattes, cutouts and composites out (extra `video`).

Examples:
    >>> from kmatting import Matter
    >>> from kmatting.video import VideoSink, matte_frames, read_frames
    >>> with VideoSink("out.webm", audio="in.mp4") as sink:
    ...     for frame, matte in matte_frames(read_frames("in.mp4"), Matter()):
    ...         sink.write(matte.cutout(), frame.time, frame.duration)
"""

import importlib
from typing import TYPE_CHECKING, Any

from kmatting.errors import VideoError
from kmatting.video.clip import Clip, Frame
from kmatting.video.mattes import matte_frames

if TYPE_CHECKING:
    from kmatting.video.read import open_video, read_frames
    from kmatting.video.write import VideoSink

__all__ = [
    "Clip",
    "Frame",
    "VideoError",
    "VideoSink",
    "matte_frames",
    "open_video",
    "read_frames",
]

# The modules that need PyAV, so that `kmatting video --help` does without it.
_HOMES = {"VideoSink": "write", "open_video": "read", "read_frames": "read"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"kmatting.video.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
