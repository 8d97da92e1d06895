"""Reads the frames of a video, one by one."""

import contextlib
import os
import warnings
from collections.abc import Generator, Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

from kmatting.errors import VideoError
from kmatting.images import MAX_PIXELS, list_images, read_alpha
from kmatting.video.animation import Animation, is_animation
from kmatting.video.convert import Converter
from kmatting.video.frame import Frame

_MICROSECOND = Fraction(1, 1_000_000)  # in which a container states its start and duration
_USUAL_RATE = 30  # frames a second, where a file says nothing
_STILLS = ("image2", "_pipe")  # FFmpeg reads a photo as a video of one frame
_MISSING = 1  # seconds that a video without an index may be shorter than its header says
_COLOUR_TOLERANCE = 16  # levels between the channels of a grey frame
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's own decoders drop the alpha


def open_video(path: str | os.PathLike[str]) -> "Video | Animation":
    """Opens a video, or an animated GIF, WebP, PNG or AVIF.

    Args:
        path: path of the file.

    Returns:
        A `Video`, or an `Animation` with the same attributes.

    Raises:
        VideoError: if the file is missing, damaged or holds no video.
    """
    path = Path(path)
    return Animation(path) if is_animation(path) else Video(path)


def read_frames(
    path: str | os.PathLike[str], start: float | Fraction = 0, end: float | Fraction | None = None
) -> Iterator[Frame]:
    """Reads the frames of a video, or of an animated GIF, WebP, PNG or AVIF.

    Args:
        path: path of the file.
        start: seconds; frames before it are left out, and times count from it.
        end: seconds; frames from it on are left out.

    Yields:
        The `Frame`s, one at a time. All have the size of the first.

    Raises:
        VideoError: if the file is missing, damaged or holds no frame there. Where only a part is
            damaged, the other frames are read, and a warning says so.

    Examples:
        >>> for frame in read_frames("in.mp4"):
        ...     print(float(frame.time), frame.photo.rgb.shape)
    """
    video = open_video(path)
    yield from video.frames(start, end)
    for problem in video.problems:
        warnings.warn(problem, stacklevel=2)


def read_mattes(path: str | os.PathLike[str]) -> Iterator[np.ndarray]:
    """Reads the mattes of a video: its transparency where it has some, else its grey levels.

    Args:
        path: path of a video, of an animation, or of a folder of image files in the order of their
            names.

    Yields:
        uint8 arrays (H, W), 255 is foreground.

    Raises:
        VideoError: if it cannot be read, is damaged, or has colours but no transparency.
        ImageError: if an image of the folder cannot be read or has colours.
    """
    if Path(path).is_dir():
        for image in list_images(path):
            yield read_alpha(image, exact=True)
        return
    video = open_video(path)
    for frame in video.frames():
        photo = frame.photo
        if photo.opacity is not None:
            yield photo.opacity
            continue
        colours = photo.rgb.max(axis=2) - photo.rgb.min(axis=2)
        if colours.max() > _COLOUR_TOLERANCE:
            raise VideoError(
                f"{path}: expected a video of mattes in grey, or one with transparency, but the "
                f"frame at {float(frame.time):.2f} seconds has colours."
            )
        yield photo.rgb[..., 1]
    if video.problems:
        raise VideoError(video.problems[0])


class Video:
    """A video file.

    Args:
        path: path of the file.

    Attributes:
        count: number of frames, as the file states it or estimated; None if unknown.
        rate: frames a second on average, or None if unknown.
        time_base: seconds, the unit of the file's time stamps.
        duration: seconds, as the file states it, or None.
        has_sound: whether there is a sound track.
        notes: what is changed on reading, one line each; complete once the frames were read.
        problems: what could not be read, one line each; complete once the frames were read.

    Raises:
        VideoError: if the file is missing, damaged or holds no video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        self.problems: list[str] = []
        self._ends_at: Fraction | None = None  # of the part that was read, if the file says it
        with opened(path) as container:
            stream = _video_stream(container, path)
            self.time_base: Fraction = stream.time_base or _MICROSECOND
            self.rate: Fraction | None = stream.average_rate or stream.guessed_rate
            self.duration: Fraction | None = (
                None if container.duration is None else container.duration * _MICROSECOND
            )
            self.has_sound = bool(container.streams.audio)
            self.count: int | None = stream.frames or None
            if self.count is None and self.rate and self.duration:
                self.count = max(1, round(self.rate * self.duration))

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
            VideoError: if the file is damaged or holds no frame there.
        """
        start, end = Fraction(start), None if end is None else Fraction(end)
        convert: Converter | None = None
        for picture, time, duration in self._until_next(self._pictures(start, end)):
            if picture.width * picture.height > MAX_PIXELS:
                raise VideoError(
                    f"{self.path}: {picture.width}x{picture.height} are more than "
                    f"{MAX_PIXELS:,} pixels, refused."
                )
            convert = convert or Converter(picture, self._aspect, self.notes)
            yield Frame(convert(picture), time - start, duration)
        if convert is None:
            where = "" if start == 0 and end is None else " between --start and --end"
            known = f"; it is {float(self.duration):.2f} seconds long" if self.duration else ""
            raise VideoError(f"{self.path}: no frames{where}{known}.")

    def _pictures(
        self, start: Fraction, end: Fraction | None
    ) -> Iterator[tuple[av.VideoFrame, Fraction, Fraction]]:
        """Decodes a part of the video; yields each frame, its time and the duration it states."""
        damage = _Damage()
        try:
            with opened(self.path) as container:
                stream = _video_stream(container, self.path)
                self._aspect = stream.sample_aspect_ratio or Fraction(1)
                origin = origin_of(container)
                if start > 0:  # without an index it is read from the start on
                    with contextlib.suppress(av.FFmpegError):
                        container.seek(int((origin + start) / self.time_base), stream=stream)
                last: Fraction | None = None
                for picture in _decoded(container, stream, damage):
                    time = self._time(picture, last, origin)
                    last = time
                    if start > 0 and time < start:
                        continue
                    if end is not None and time >= end:
                        self._ends_at = end
                        break
                    yield picture, time, Fraction(picture.duration or 0) * self.time_base
                else:
                    if self._is_whole(container, stream, last):
                        self._ends_at = _end_in_index(stream, origin)
                    if end is not None and self._ends_at is not None:
                        self._ends_at = min(end, self._ends_at)
        finally:  # also where the caller needs no more of it
            if damage.places:
                self.problems.append(
                    f"{self.path}: damaged in {damage.places} place(s); frames may be missing "
                    "there, or show only what could be decoded."
                )

    def _until_next(
        self, pictures: Iterable[tuple[av.VideoFrame, Fraction, Fraction]]
    ) -> Iterator[tuple[av.VideoFrame, Fraction, Fraction]]:
        """Gives each frame the time until the next one as its duration, the last what is left.

        What a last frame states itself counts only where the index says nothing: a file that stores
        its frames in another order than it shows them states the duration of another one.
        """
        held: tuple[av.VideoFrame, Fraction, Fraction] | None = None
        duration = 1 / Fraction(self.rate or _USUAL_RATE)
        for picture, time, stated in pictures:
            if held is not None:
                duration = time - held[1]
                yield held[0], held[1], duration
            held = picture, time, stated
        if held is not None:
            rest = Fraction(0) if self._ends_at is None else self._ends_at - held[1]
            yield held[0], held[1], rest if rest > 0 else held[2] or duration

    def _time(self, picture: av.VideoFrame, last: Fraction | None, origin: Fraction) -> Fraction:
        """Returns the time of a frame, which is always later than that of the frame before."""
        if picture.pts is None:  # as in some AVI files
            return Fraction(0) if last is None else last + 1 / Fraction(self.rate or _USUAL_RATE)
        time = picture.pts * self.time_base - origin
        return time if last is None else max(time, last + self.time_base)

    def _is_whole(
        self, container: av.container.InputContainer, stream: av.VideoStream, last: Fraction | None
    ) -> bool:
        """Whether the file holds the video to its end; notes it if not."""
        entries = stream.index_entries
        final = entries[len(entries) - 1] if len(entries) else None
        in_index = final is not None and final.pos + final.size > self.path.stat().st_size
        lost = 0 if self.duration is None or last is None else self.duration - last
        has_index = final is not None and bool(stream.frames)
        if in_index or (not has_index and lost > _MISSING + 2 / (self.rate or _USUAL_RATE)):
            seconds = "" if last is None else f" after {float(last):.2f} seconds"
            self.problems.append(f"{self.path}: truncated; the video ends{seconds}.")
            return False
        return True


class _Damage:
    """Counts the places where a video cannot be decoded."""

    places = 0


def opened(path: Path) -> av.container.InputContainer:
    """Opens a file with FFmpeg.

    Args:
        path: path of the file.

    Returns:
        The container, to be used as a context manager.

    Raises:
        VideoError: if it is missing, or nothing that FFmpeg knows.
    """
    try:
        # An absolute path is never taken for a URL, and the file may not name others.
        return av.open(
            str(path.absolute()), metadata_errors="ignore", options={"protocol_whitelist": "file"}
        )
    except FileNotFoundError as error:
        raise VideoError(f"{path}: no such file.") from error
    except IsADirectoryError as error:
        raise VideoError(f"{path}: is a folder, expected a video.") from error
    except PermissionError as error:
        raise VideoError(f"{path}: no permission to read it.") from error
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(f"{path}: {_why_unreadable(path)}.") from error


def _why_unreadable(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(12)
    if not start:
        return "empty file"
    if start[4:8] == b"ftyp":
        return (
            "cut off or damaged; the index of an MP4 file (moov), which cameras write last, is lost"
        )
    return "not a video that can be read, or damaged at its start"


def origin_of(container: av.container.InputContainer) -> Fraction:
    """Returns the time stamp, in seconds, at which a file starts; in a broadcast it is not 0.

    The container's own `start_time` is rounded to microseconds, so the first frame may lie before
    it. Sound before 0 only prepares its decoder.
    """
    starts = [
        stream.start_time * stream.time_base
        for stream in (*container.streams.video, *container.streams.audio)
        if stream.start_time is not None and stream.time_base
        if stream.type == "video" or stream.start_time >= 0
    ]
    return min(starts, default=Fraction(0))


def _end_in_index(stream: av.VideoStream, origin: Fraction) -> Fraction | None:
    """Returns the time, in seconds, at which the last frame ends, if there is an index."""
    if not (stream.frames and stream.duration and stream.time_base):
        return None
    return ((stream.start_time or 0) + stream.duration) * stream.time_base - origin


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    if any(part in container.format.name for part in _STILLS):
        raise VideoError(f"{path}: is a photo, not a video; cut it out with kmatting predict.")
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic  # the cover of a piece of music
    ]
    if not streams:
        others = ", ".join(sorted({stream.type for stream in container.streams}))
        raise VideoError(f"{path}: no video in it" + (f" (only {others})." if others else "."))
    stream = streams[0]
    if stream.codec_context is None:
        raise VideoError(f"{path}: its video is in a format that FFmpeg has no decoder for.")
    return stream


def _decoded(
    container: av.container.InputContainer, stream: av.VideoStream, damage: _Damage
) -> Iterator[av.VideoFrame]:
    """Yields every frame that can be decoded."""
    context = stream.codec_context
    tags = {key.lower(): value for key, value in stream.metadata.items()}
    codec = context.codec.canonical_name
    if tags.get("alpha_mode") == "1" and codec in _ALPHA_DECODERS:
        context = av.CodecContext.create(_ALPHA_DECODERS[codec], "r")
    else:
        # Frames in threads of their own would be lost with a damaged one.
        context.thread_type = "SLICE"
    packets = container.demux(stream)
    flushed = False
    while not flushed:
        packet = None
        try:
            packet = next(packets, None)
        except av.FFmpegError:  # the rest cannot be read; what was read is still to be decoded
            damage.places += 1
        flushed = packet is None or packet.size == 0
        try:
            pictures = context.decode(packet)
        except av.EOFError:
            continue
        except av.FFmpegError:
            damage.places += 1
            continue
        for picture in pictures:
            damage.places += picture.is_corrupt
            yield picture
