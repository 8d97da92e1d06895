"""Carries the sound of a video over to another file."""

import contextlib
from collections.abc import Iterator
from fractions import Fraction

import av

from kmatting.terminal import counted
from kmatting.video.formats import Format
from kmatting.video.read import opened, origin_of
from kmatting.video.source import Source

_RATE = 48000  # samples a second of sound that is encoded anew; Opus takes no other


class Sound:
    """The first sound track of a file, on its way into another one.

    It is copied where the container takes its codec, and encoded anew elsewhere.

    Args:
        source: the file with the sound.
        target: the container to write to; nothing but the video stream is in it yet.
        form: its format.
        start: seconds of the source at which the new video begins.
        end: seconds of the source at which it ends, or None.

    Attributes:
        notes: what is changed or left out, one line each.
        problems: what could not be read, one line each; complete at the end.
    """

    def __init__(
        self,
        source: Source,
        target: av.container.OutputContainer,
        form: Format,
        start: Fraction = Fraction(0),
        end: Fraction | None = None,
    ) -> None:
        self.notes: list[str] = []
        self.problems: list[str] = []
        self._damaged = 0
        self._target = target
        self._source = opened(source)
        self._packets: Iterator[av.Packet] = iter(())
        self._next: av.Packet | None = None
        self._is_encoded = False
        tracks = self._source.streams.audio
        if not tracks:
            return
        if not form.sound:
            self.notes.append(f"{form.container} files have no sound: it is left out")
            return
        self._track = tracks[0]
        if self._track.codec_context is None:
            self.notes.append("FFmpeg has no decoder for the sound: it is left out")
            return
        if len(tracks) > 1:
            self.notes.append(f"the first of {len(tracks)} sound tracks is kept")
        codec = self._track.codec_context.codec.canonical_name
        self._is_encoded = codec not in form.sound
        if not self._is_encoded:
            self._out = target.add_stream_from_template(self._track)
        else:
            self.notes.append(
                f"{form.container} files take no {codec}: the sound is encoded as "
                f"{form.sound_encoder.removeprefix('lib')}"
            )
            mono = self._track.codec_context.layout.nb_channels == 1
            self._out = target.add_stream(
                form.sound_encoder, rate=_RATE, layout="mono" if mono else "stereo"
            )
        self._begin = origin_of(self._source) + start
        self._packets = self._in_part(start, end)
        self._next = next(self._packets, None)

    def write_until(self, time: Fraction) -> None:
        """Writes the sound before a time, in seconds of the new video."""
        while self._next is not None and self._time(self._next) < time:
            self._write(self._next)
            self._next = next(self._packets, None)

    def finish(self) -> None:
        """Writes the rest of the sound."""
        while self._next is not None:
            self._write(self._next)
            self._next = next(self._packets, None)
        if self._is_encoded:
            self._decode(None)
            self._target.mux(self._out.encode(None))
        if self._damaged:
            places = counted(self._damaged, "place")
            self.problems.append(f"the sound is damaged in {places}, silent there.")

    def close(self) -> None:
        """Closes the source."""
        self._source.close()

    def _in_part(self, start: Fraction, end: Fraction | None) -> Iterator[av.Packet]:
        """Yields the packets between start and end, up to where the file is damaged."""
        if start > 0:
            with contextlib.suppress(av.FFmpegError):  # no index: it is read from the start on
                self._source.seek(int(self._begin / self._track.time_base), stream=self._track)
        packets = self._source.demux(self._track)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                packet = None
            if packet is None:
                return
            if packet.pts is None:
                continue
            time = self._time(packet)
            if end is not None and time >= end - start:
                return
            if start == 0 or time >= 0:  # what precedes 0 prepares the decoder
                yield packet

    def _time(self, packet: av.Packet) -> Fraction:
        return packet.pts * packet.time_base - self._begin

    def _write(self, packet: av.Packet) -> None:
        if self._is_encoded:
            self._decode(packet)
            return
        shift = round(self._begin / packet.time_base)
        packet.pts -= shift
        if packet.dts is not None:
            packet.dts -= shift
        packet.stream = self._out
        self._target.mux(packet)

    def _decode(self, packet: av.Packet | None) -> None:
        """Encodes the sound of a packet anew, at the end what the decoder still holds."""
        try:
            frames = self._track.codec_context.decode(packet)
        except av.FFmpegError:
            self._damaged += 1
            return
        for frame in frames:
            self._encode(frame)

    def _encode(self, frame: av.AudioFrame) -> None:
        if frame.pts is not None:
            frame.pts -= round(self._begin / frame.time_base)
        self._target.mux(self._out.encode(frame))
