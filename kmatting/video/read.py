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

from kmatting.errors import ImageError, VideoError
from kmatting.images import image_size, read_alpha
from kmatting.terminal import counted
from kmatting.video.animation import Animation, is_animation
from kmatting.video.clip import Clip, Frame, check_size
from kmatting.video.convert import Converter, square_size
from kmatting.video.folder import FrameFolder, frame_files, is_folder
from kmatting.video.source import Source

_MICROSECOND = Fraction(1, 1_000_000)  # in which a container states its start and duration
_USUAL_RATE = 30  # frames a second, where a file says nothing
# The formats that are read, by FFmpeg's names. Others of its 300 name further files, which a
# stranger's upload could make kmatting read (concat, hls, dash, image2, mlv and more).
_FORMATS = (
    *("matroska", "webm", "mov", "mp4", "avi", "mpegts", "mpeg", "mpegvideo", "m4v", "flv"),
    *("live_flv", "asf", "ogg", "mxf", "gxf", "rm", "wtv", "dv", "nut", "nsv", "swf", "dhav"),
    *("yuv4mpegpipe", "mjpeg", "h261", "h263", "h264", "hevc", "vvc", "av1", "obu", "ivf", "vc1"),
    *("vc1test", "dirac", "cavsvideo", "dnxhd", "cine", "amr", "aac", "ac3", "eac3", "aiff"),
    *("caf", "dts", "flac", "mp3", "opus", "truehd", "tta", "w64", "wav", "wv"),
)
_PLAYLISTS = (b"ffconcat", b"#EXTM3U")
# Tags that describe a clip, with what Apple and others call them.
_DESCRIBING = (
    *("title", "artist", "author", "date", "creation_time", "location", "comment", "description"),
    *("copyright", "genre", "make", "model"),
)
_TAGS = {
    **dict(zip(_DESCRIBING, _DESCRIBING, strict=True)),
    "creationdate": "date",
    "location-eng": "location",
    "location.iso6709": "location",
}
_APPLE = "com.apple.quicktime."
_MOST_STRETCHED = 8  # width of a pixel by its height; the widest in use are 2.4
_MISSING = 1  # seconds that a video without an index may be shorter than its header says
_COLOUR_TOLERANCE = 16  # levels between the channels of a grey frame
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's own decoders drop the alpha


def open_video(path: str | os.PathLike[str] | Source, rate: float | Fraction | None = None) -> Clip:
    """Opens a video, an animated GIF, WebP, PNG or AVIF, or a folder of frames.

    Args:
        path: path of a file, of a named pipe, which is read to its end, or of a folder of images;
            or a pattern such as `frames/%04d.png`. A pattern gives each image the time of its
            number; a folder takes them in the order of their numbers, or as its `timestamps.txt`
            says, which `VideoSink` writes.
        rate: frames a second of a folder; it counts before `timestamps.txt`.

    Returns:
        The `Clip`.

    Raises:
        VideoError: if the clip is missing, damaged or no video, or if a folder says nothing of its
            times and there is no rate.
    """
    if not isinstance(path, Source):
        if is_folder(path):
            return FrameFolder(path, None if rate is None else Fraction(rate))
        path = Source(path)
    if rate is not None:
        raise VideoError(
            f"{path.name}: has times of its own; only a folder of frames takes a rate."
        )
    return Animation(path) if is_animation(path.start()) else Video(path)


def read_frames(
    path: str | os.PathLike[str],
    start: float | Fraction = 0,
    end: float | Fraction | None = None,
    rate: float | Fraction | None = None,
) -> Iterator[Frame]:
    """Reads the frames of a video, an animated GIF, WebP, PNG or AVIF, or a folder of frames.

    Args:
        path: as in `open_video`.
        start: seconds; frames before it are left out, and times count from it.
        end: seconds; frames from it on are left out.
        rate: as in `open_video`.

    Yields:
        The `Frame`s, one at a time. All have the size of the first.

    Raises:
        VideoError: as in `open_video`, or if there is no frame. Where only a part is damaged, the
            other frames are read, and a warning says so.

    Examples:
        >>> for frame in read_frames("in.mp4"):
        ...     print(float(frame.time), frame.photo.rgb.shape)
    """
    video = open_video(path, rate)
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
        for image in frame_files(Path(path)):
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


class Video(Clip):
    """A video file.

    Args:
        source: the file.

    Raises:
        VideoError: if the file is damaged or holds no video.
    """

    def __init__(self, source: Source) -> None:
        super().__init__(source.name)
        self._source = source
        self._ends_at: Fraction | None = None  # of the part that was read, if the file says it
        with opened(source) as container:
            stream = _video_stream(container, source.name)
            self.time_base = stream.time_base or _MICROSECOND
            self.rate = stream.average_rate or stream.guessed_rate
            if container.duration is not None:
                self.duration = container.duration * _MICROSECOND
            self.has_sound = bool(container.streams.audio)
            self.count = stream.frames or None
            if self.count is None and self.rate and self.duration:
                self.count = max(1, round(self.rate * self.duration))
            self.tags = _described(container.metadata)
            self._aspect = Fraction(stream.sample_aspect_ratio or 1)
            self._check_size(stream.codec_context.width, stream.codec_context.height)

    def frames(
        self, start: float | Fraction = 0, end: float | Fraction | None = None
    ) -> Generator[Frame]:
        """Reads the frames, see `Clip.frames`."""
        start, end = Fraction(start), None if end is None else Fraction(end)
        convert: Converter | None = None
        try:
            for picture, time, duration in self._until_next(self._pictures(start, end)):
                self._check_size(picture.width, picture.height)
                try:
                    convert = convert or Converter(picture, self._aspect)
                    photo = convert(picture)
                except av.FFmpegError as error:
                    raise VideoError(
                        f"{self.name}: the frame of {picture.width}x{picture.height} at "
                        f"{float(time):.2f} seconds cannot be converted: {error.strerror}."
                    ) from error
                yield Frame(photo, time - start, duration)
        finally:
            if convert is not None:
                self.notes += [note for note in convert.notes if note not in self.notes]
        if convert is None:
            raise self._no_frames(start, end)

    def _check_size(self, width: int, height: int) -> None:
        """Refuses frames that are too large, as coded or once their pixels are square."""
        if not 1 / _MOST_STRETCHED <= self._aspect <= _MOST_STRETCHED:
            raise VideoError(
                f"{self.name}: states pixels of {self._aspect.numerator}:"
                f"{self._aspect.denominator}, expected at most {_MOST_STRETCHED}:1."
            )
        check_size(self.name, width, height)
        check_size(self.name, *square_size(width, height, self._aspect))

    def _pictures(
        self, start: Fraction, end: Fraction | None
    ) -> Iterator[tuple[av.VideoFrame, Fraction, Fraction]]:
        """Decodes a part of the video; yields each frame, its time and the duration it states."""
        damage = _Damage()
        try:
            with opened(self._source) as container:
                stream = _video_stream(container, self.name)
                origin = origin_of(container)
                if start > 0:  # without an index it is read from the start on
                    with contextlib.suppress(av.FFmpegError, OverflowError):
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
                    f"{self.name}: damaged in {counted(damage.places, 'place')}; frames may be "
                    "missing there, or show only what could be decoded."
                )

    def _until_next(
        self, pictures: Iterable[tuple[av.VideoFrame, Fraction, Fraction]]
    ) -> Iterator[tuple[av.VideoFrame, Fraction, Fraction]]:
        """Gives each frame the time until the next one as its duration, the last what is left.

        The last frame's own duration is used only without an index: in files with reordered frames
        it belongs to a different frame.
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
        """Returns whether the file holds the video to its end; notes it if not."""
        entries = stream.index_entries
        final = entries[len(entries) - 1] if len(entries) else None
        in_index = final is not None and final.pos + final.size > self._source.path.stat().st_size
        lost = 0 if self.duration is None or last is None else self.duration - last
        has_index = final is not None and bool(stream.frames)
        if in_index or (not has_index and lost > _MISSING + 2 / (self.rate or _USUAL_RATE)):
            seconds = "" if last is None else f" after {float(last):.2f} seconds"
            self.problems.append(f"{self.name}: truncated; the video ends{seconds}.")
            return False
        return True


class _Damage:
    """Counts the places where a video cannot be decoded."""

    places = 0


def opened(source: Source) -> av.container.InputContainer:
    """Opens a file with FFmpeg.

    Args:
        source: the file.

    Returns:
        The container, to be used as a context manager.

    Raises:
        VideoError: if it is nothing that FFmpeg knows.
    """
    try:
        # An absolute path is never taken for a URL, and the file may not name others.
        return av.open(
            str(source.path.absolute()),
            metadata_errors="ignore",
            options={"protocol_whitelist": "file", "format_whitelist": ",".join(_FORMATS)},
        )
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(f"{source.name}: {_why_unreadable(source)}.") from error


def _why_unreadable(source: Source) -> str:
    start = source.start()
    if not start:
        return "empty file"
    if start.startswith(_PLAYLISTS):
        return "is a list of other files, not a video; name one of those files"
    with contextlib.suppress(ImageError):
        image_size(source.path)
        return "is a photo, not a video; cut it out with kmatting predict"
    if start[4:8] == b"ftyp":
        return (
            "cut off or damaged; the index of an MP4 file (moov), which cameras write last, is lost"
        )
    return "not a video that can be read, or damaged at its start"


def _described(metadata: dict[str, str]) -> dict[str, str]:
    """Picks the tags that describe a clip; others say how it was made and stored."""
    found: dict[str, str] = {}
    for key, value in metadata.items():
        name = _TAGS.get(key.lower().removeprefix(_APPLE))
        if name and value:
            found.setdefault(name, value)
    return found


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


def _video_stream(container: av.container.InputContainer, name: str) -> av.VideoStream:
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic  # the cover of a piece of music
    ]
    if not streams:
        others = ", ".join(sorted({stream.type for stream in container.streams}))
        raise VideoError(f"{name}: no video in it" + (f" (only {others})." if others else "."))
    stream = streams[0]
    if stream.codec_context is None:
        raise VideoError(f"{name}: its video is in a format that FFmpeg has no decoder for.")
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
