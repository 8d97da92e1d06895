"""Video: frames in, mattes, cutouts and composites out (extra `video`).

Examples:
    >>> from kmatting import Matter
    >>> from kmatting.video import VideoSink, matte_frames, read_frames
    >>> with VideoSink("out.webm", audio="in.mp4") as sink:
    ...     for frame, matte in matte_frames(read_frames("in.mp4"), Matter()):
    ...         sink.write(matte.cutout(), frame.time, frame.duration)
"""

from kmatting.errors import VideoError
from kmatting.video.frame import Frame
from kmatting.video.mattes import matte_frames
from kmatting.video.read import Video, open_video, read_frames
from kmatting.video.write import VideoSink

__all__ = [
    "Frame",
    "Video",
    "VideoError",
    "VideoSink",
    "matte_frames",
    "open_video",
    "read_frames",
]
