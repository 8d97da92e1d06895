"""Writes pictures to a video."""

import contextlib
import os
import sys
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from PIL import Image

from kmatting.errors import Error, VideoError
from kmatting.files import whole_file, whole_folder
from kmatting.images import write_image
from kmatting.video.formats import FORMATS, Format
from kmatting.video.sound import Sound

_TICK = Fraction(1, 90_000)  # seconds; frames of 24, 25, 30 and 60 a second fall on whole ticks
_BT709 = 1  # the same number in FFmpeg's lists of matrices, primaries and transfer curves


class VideoSink:
    """Writes a video, one picture after the other.

    The suffix decides on the format: `.webm` (VP9), `.mov` (ProRes 4444), `.mp4` (H.264), `.webp`,
    `.apng` or `.gif`. All but `.mp4` hold RGBA pictures with their transparency. A path without a
    suffix is a folder of PNG files, with the times of the frames in `timestamps.txt`.

    The file is written beside its place and renamed at the end, so an error or Ctrl-C leaves none.

    Args:
        path: the file or folder to write. A folder must not exist, or be empty.
        audio: a file whose sound is added, or None.
        start: seconds of that file at which the video begins.
        end: seconds of that file at which it ends, or None.
        time_base: seconds, the unit of time stamps where the format leaves a choice.
        rate: frames a second, a hint for the encoder.

    Attributes:
        notes: what was changed on writing, one line each; complete once the sink is closed.
        problems: what could not be read of the sound, likewise.

    Raises:
        VideoError: if the suffix is unknown.

    Examples:
        >>> with VideoSink("out.webm") as sink:
        ...     for frame in read_frames("in.mp4"):
        ...         sink.write(matter(frame.photo).cutout(), frame.time, frame.duration)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        audio: str | os.PathLike[str] | None = None,
        start: float | Fraction = 0,
        end: float | Fraction | None = None,
        time_base: Fraction = _TICK,
        rate: Fraction | None = None,
    ) -> None:
        self.path = Path(path)
        self.notes: list[str] = []
        self.problems: list[str] = []
        self._audio = None if audio is None else Path(audio)
        self._part = Fraction(start), None if end is None else Fraction(end)
        self._time_base = time_base
        self._rate = rate
        self._writer: _Writer | None = None
        suffix = self.path.suffix.lower()
        if suffix and suffix not in FORMATS:
            raise VideoError(
                f"{path}: expected {', '.join(FORMATS)}, or a name without a suffix for a folder "
                "of PNG files."
            )
        self._format = FORMATS.get(suffix)
        if self._format is None and _is_taken(self.path):
            raise VideoError(f"{path}: exists; name a new or an empty folder.")

    def __enter__(self) -> Self:
        self._place: Any = whole_file(self.path) if self._format else whole_folder(self.path)
        self._partial = self._place.__enter__()
        return self

    def write(
        self,
        picture: np.ndarray | Image.Image,
        time: float | Fraction,
        duration: float | Fraction,
    ) -> None:
        """Writes a picture.

        Args:
            picture: uint8 array (H, W), (H, W, 3) or (H, W, 4), or the same as a PIL image. All
                pictures have the size and the channels of the first.
            time: seconds at which it appears, later than the one before.
            duration: seconds that it is shown. It counts for the last picture only.

        Raises:
            VideoError: if the picture has another shape, or the format cannot hold it.
            OSError: if it cannot be written.
        """
        pixels = np.asarray(picture)
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
            raise VideoError(
                "Expected a uint8 picture (H, W), (H, W, 3) or (H, W, 4), received "
                f"{pixels.dtype} {pixels.shape}."
            )
        with _named(self.path):
            if self._writer is None:
                self._writer = self._opened(pixels)
            self._writer.write(pixels, Fraction(time), Fraction(duration))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                if self._writer is None:
                    raise VideoError(f"{self.path}: no picture was written.")
                with _named(self.path):
                    self.problems += self._writer.finish()
        except BaseException:
            self._abandon(*sys.exc_info())
            raise
        if kind is None:
            self._place.__exit__(None, None, None)
        else:
            self._abandon(kind, error, traceback)

    def _abandon(self, *exception: Any) -> None:
        """Closes and removes what was written so far."""
        if self._writer is not None:
            with contextlib.suppress(av.FFmpegError):
                self._writer.close()
        self._place.__exit__(*exception)

    def _opened(self, pixels: np.ndarray) -> "_Writer":
        if self._format is None:
            if self._audio is not None:
                self.notes.append("PNG files have no sound: it is left out")
            return _Folder(self._partial)
        if pixels.ndim == 3 and pixels.shape[2] == 4 and self._format.transparent is None:
            raise VideoError(f"{self.path}: {self._format.container} files have no transparency.")
        return _Encoder(
            self._partial,
            self._format,
            pixels.shape,
            self._time_base,
            self._rate,
            self._audio,
            self._part,
            self.notes,
        )


def _is_taken(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


class _Writer(Protocol):
    def write(self, pixels: np.ndarray, time: Fraction, duration: Fraction) -> None: ...
    def finish(self) -> list[str]: ...
    def close(self) -> None: ...


class _Folder:
    """Writes PNG files, and their times as mkvmerge and other tools read them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._times: list[str] = []

    def write(self, pixels: np.ndarray, time: Fraction, duration: Fraction) -> None:
        name = f"frame_{len(self._times):06d}.png"
        write_image(self._folder / name, pixels)
        self._times.append(f"{float(time * 1000):.3f}")

    def finish(self) -> list[str]:
        lines = ["# timestamp format v2", *self._times]
        (self._folder / "timestamps.txt").write_text("\n".join(lines) + "\n")
        return []

    def close(self) -> None:
        pass


class _Encoder:
    """Encodes pictures with FFmpeg."""

    def __init__(
        self,
        path: Path,
        form: Format,
        shape: tuple[int, ...],
        time_base: Fraction,
        rate: Fraction | None,
        audio: Path | None,
        part: tuple[Fraction, Fraction | None],
        notes: list[str],
    ) -> None:
        self._shape = shape
        self._even = form.even
        height, width = shape[:2]
        if form.even and (height % 2 or width % 2):
            height, width = height + height % 2, width + width % 2
            notes.append(
                f"{form.container} files have even sides: the last row or column is repeated, "
                f"which gives {width}x{height}"
            )
        self._time_base = form.tick or time_base
        self._container = av.open(
            str(path), "w", format=form.container, options=form.container_options
        )
        transparent = len(shape) == 3 and shape[2] == 4
        self._stream = _video_stream(self._container, form, width, height, transparent)
        self._stream.codec_context.time_base = self._time_base
        self._stream.codec_context.framerate = rate or Fraction(30)
        self._sound: Sound | None = None
        if audio is not None:
            self._sound = Sound(audio, self._container, form, *part)
            notes += self._sound.notes
        self._palette = form.opaque == "pal8"
        self._last = -1
        self._durations: dict[int, int] = {}

    def write(self, pixels: np.ndarray, time: Fraction, duration: Fraction) -> None:
        if pixels.shape != self._shape:
            raise VideoError(
                f"Expected pictures of shape {self._shape} as the first, received {pixels.shape}."
            )
        ticks = max(self._last + 1, round(time / self._time_base))
        self._last = ticks
        frame = self._frame(pixels)
        frame.pts, frame.time_base = ticks, self._time_base
        frame.duration = max(1, round((time + duration) / self._time_base) - ticks)
        self._durations[ticks] = frame.duration
        self._mux(frame)
        if self._sound is not None:
            self._sound.write_until(time + duration)

    def finish(self) -> list[str]:
        self._mux(None)
        if self._sound is not None:
            self._sound.finish()
        self.close()
        return [] if self._sound is None else self._sound.problems

    def close(self) -> None:
        self._container.close()
        if self._sound is not None:
            self._sound.close()

    def _mux(self, frame: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            packet.duration = self._durations.pop(packet.pts, packet.duration)
            self._container.mux(packet)

    def _frame(self, pixels: np.ndarray) -> av.VideoFrame:
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[..., None], 3, axis=2)
        if self._even:
            margins = ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0))
            pixels = np.pad(pixels, margins, mode="edge") if any(map(any, margins)) else pixels
        layout = "rgba" if pixels.shape[2] == 4 else "rgb24"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=layout)
        if self._palette:
            return _in_palette(frame)
        context = self._stream.codec_context
        if context.pix_fmt.startswith("yuv"):
            frame = frame.reformat(
                format=context.pix_fmt,
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
            )
            frame.color_primaries, frame.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        return frame


def _video_stream(
    container: av.container.OutputContainer,
    form: Format,
    width: int,
    height: int,
    transparent: bool,
) -> av.VideoStream:
    stream = container.add_stream(form.encoder, options=form.options)
    pixel_format = form.transparent if transparent else form.opaque
    stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
    context = stream.codec_context
    context.thread_type = "AUTO"
    if str(pixel_format).startswith("yuv"):
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = ColorRange.MPEG
    if pixel_format == "yuva420p":
        stream.metadata["alpha_mode"] = "1"
    return stream


def _in_palette(frame: av.VideoFrame) -> av.VideoFrame:
    """Reduces a frame to 256 colours of its own; it is opaque from an alpha of 128 on."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 100)
    )
    split = graph.add("split")
    palette = graph.add("palettegen", "stats_mode=single")
    use = graph.add("paletteuse", "new=1:alpha_threshold=128")
    sink = graph.add("buffersink")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    frame.pts = 0
    graph.vpush(frame)
    graph.vpush(None)
    return graph.vpull()


@contextlib.contextmanager
def _named(path: Path) -> Any:
    """Names the file in what FFmpeg raises."""
    try:
        yield
    except av.FFmpegError as error:
        raise Error(f"{path}: cannot be written: {error.strerror}.") from error
