"""Tests kmatting video: reading, the median over time, writing, and the command."""

import dataclasses
import io
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import red_model
from PIL import Image

av = pytest.importorskip("av")

from kmatting import Matter, files  # noqa: E402
from kmatting.errors import PhotoError  # noqa: E402
from kmatting.images import Photo  # noqa: E402
from kmatting.pictures.kinds import KINDS  # noqa: E402
from kmatting.video import (  # noqa: E402
    VideoError,
    VideoSink,
    matte_frames,
    mattes,
    open_video,
    read_frames,
)
from kmatting.video.__main__ import main  # noqa: E402
from kmatting.video.background import Background  # noqa: E402
from kmatting.video.clip import Frame  # noqa: E402
from kmatting.video.read import _described  # noqa: E402
from kmatting.video.steady import steadied  # noqa: E402
from kmatting.video.write import _Encoder  # noqa: E402

HEIGHT, WIDTH = 48, 64
RED, GREEN, BLUE = (230, 20, 20), (20, 200, 20), (20, 20, 220)


def picture(step=0, height=HEIGHT, width=WIDTH):
    """A red square, which the model takes for the subject, moving over blue."""
    pixels = np.full((height, width, 3), BLUE, np.uint8)
    pixels[12:36, 8 + 4 * step : 32 + 4 * step] = RED
    return pixels


def write_clip(
    path,
    pictures=None,
    times=None,
    rate=25,
    codec="libx264",
    layout="yuv420p",
    sound=None,
    tags=(),
    turn=0,
    aspect=None,
    options=None,
    unit=1000,
    last=0,
):
    """Writes a clip with PyAV alone. `times` are in 1/unit of a second, and so is `last`.

    That is the duration of the packet that is decoded last.
    """
    pictures = [picture(step) for step in range(6)] if pictures is None else pictures
    times = [unit * number // rate for number in range(len(pictures))] if times is None else times
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = layout
        stream.codec_context.time_base = Fraction(1, unit)
        for name, value in dict(tags).items():
            setattr(stream.codec_context, name, value)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if turn:
            stream.set_display_rotation(turn)
        track = sound and container.add_stream(sound, rate=48000, layout="mono")
        for pixels, moment in zip(pictures, times, strict=True):
            depth = "rgb48le" if pixels.dtype == np.uint16 else "rgb24"
            frame = av.VideoFrame.from_ndarray(pixels, format=depth)
            if dict(tags).get("colorspace"):
                frame = frame.reformat(format=layout, dst_colorspace=tags["colorspace"])
            frame.pts, frame.time_base = moment, Fraction(1, unit)
            container.mux(stream.encode(frame))
        packets = stream.encode(None)
        if last:
            packets[-1].duration = last
        container.mux(packets)
        if track:
            tone = np.sin(np.arange(12000) / 20).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
            container.mux(track.encode(frame))
            container.mux(track.encode(None))
    return path


def decode(path, decoder=None):
    """Decodes a video with PyAV alone; returns RGBA arrays and the times in seconds."""
    pictures, times = [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = av.CodecContext.create(decoder, "r") if decoder else stream.codec_context
        for packet in container.demux(stream):
            for frame in context.decode(packet):
                pictures.append(frame.to_ndarray(format="rgba"))
                times.append(float(frame.pts * stream.time_base))
    return np.stack(pictures), times


def with_index_first(clip, path):
    """Copies a clip to a file that can be read though its end is missing."""
    with (
        av.open(str(clip)) as source,
        av.open(str(path), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return path


def wipe(path, number, kind="video"):
    """Overwrites a packet of a file with zeros."""
    with av.open(str(path)) as container:
        entry = container.streams.get({kind: 0})[0].index_entries[number]
        start, size = entry.pos, entry.size  # void once the file is closed
    content = bytearray(path.read_bytes())
    content[start : start + size] = bytes(size)
    path.write_bytes(content)


def sound_of(path):
    """Returns the codec of a file's sound and its length in seconds."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None, 0
        stream = container.streams.audio[0]
        samples = sum(frame.samples for frame in container.decode(stream))
        return stream.codec_context.name, samples / stream.codec_context.sample_rate


@pytest.fixture(scope="module")
def model():
    return str(red_model.folder() / "red.tflite")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Six frames whose distances in time differ, with sound."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, times=[0, 40, 80, 200, 240, 400], sound="aac")


def run(clip, output, model, *options):
    return main([str(clip), "-o", str(output), "--model", model, *map(str, options)])


# Reading


def test_frames_keep_their_times(clip):
    frames = list(read_frames(clip))
    assert [float(frame.time) for frame in frames] == [0, 0.04, 0.08, 0.2, 0.24, 0.4]
    assert [float(frame.duration) for frame in frames[:-1]] == pytest.approx(
        [0.04, 0.04, 0.12, 0.04, 0.16]
    )
    assert frames[0].photo.rgb.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(frames[2].photo.rgb[24, 30].astype(int) - RED).max() < 12


def test_a_broadcast_that_does_not_start_at_0(tmp_path):
    """Its start is no whole number of microseconds."""
    path = write_clip(tmp_path / "late.ts", codec="mpeg2video", rate=24, unit=24)
    with av.open(str(path)) as container:
        assert container.start_time * Fraction(1, 1_000_000) > Fraction(1, 24)
    times = [frame.time for frame in read_frames(path)]
    assert times == [Fraction(number, 24) for number in range(6)]


def test_a_part(clip):
    frames = list(read_frames(clip, 0.05, 0.3))
    assert [float(frame.time) for frame in frames] == pytest.approx([0.03, 0.15, 0.19])
    assert float(frames[-1].duration) == pytest.approx(0.06)  # up to the end
    with pytest.raises(VideoError, match=r"no frames between --start and --end; it is 0\.\d+"):
        list(read_frames(clip, 10))


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_rotation_is_applied(tmp_path, turn):
    quarters = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    quarters[: HEIGHT // 2, : WIDTH // 2] = RED
    quarters[HEIGHT // 2 :, : WIDTH // 2] = GREEN
    path = write_clip(tmp_path / "turned.mp4", [quarters] * 2, turn=turn)
    (frame, _) = read_frames(path)
    expected = np.rot90(quarters, turn // 90)  # FFmpeg counts against the clock
    assert frame.photo.rgb.shape == expected.shape
    assert np.abs(frame.photo.rgb.astype(int) - expected).mean() < 12


def test_mirroring_is_applied(tmp_path):
    path = tmp_path / "mirrored.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.set_display_rotation(0, hflip=True)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture())))
        container.mux(stream.encode(None))
    (frame,) = read_frames(path)
    assert np.abs(frame.photo.rgb.astype(int) - picture()[:, ::-1]).mean() < 12


def test_pixels_become_square(tmp_path):
    video = open_video(write_clip(tmp_path / "wide.mp4", aspect=Fraction(2)))
    assert next(iter(video.frames())).photo.rgb.shape == (HEIGHT, 2 * WIDTH, 3)


def perceptual_quantizer(nits):
    """SMPTE ST 2084: light in candela per square metre to a code in [0, 1]."""
    light = (nits / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * light) / (1 + 2392 / 128 * light)) ** (2523 / 32)


def hybrid_log_gamma(nits):
    """ITU-R BT.2100: light of a grey on a display of 1000 nits to a code in [0, 1]."""
    light = (nits / 1000) ** (1 / 1.2)
    if light <= 1 / 12:
        return (3 * light) ** 0.5
    return 0.17883277 * np.log(12 * light - 0.28466892) + 0.55991073


@pytest.mark.parametrize(
    "name, transfer, encode, tolerance",
    [("PQ", 16, perceptual_quantizer, 12), ("HLG", 18, hybrid_log_gamma, 6)],
)
def test_hdr_becomes_sdr(tmp_path, name, transfer, encode, tolerance):
    tags = {"color_primaries": 9, "color_trc": transfer, "colorspace": 9, "color_range": 1}
    levels = [encode(nits) for nits in (0, 26, 203, 1000)]  # white is 203
    row = np.rint(np.repeat(levels, WIDTH // 4) * 65535).astype(np.uint16)
    pixels = np.broadcast_to(row[None, :, None], (HEIGHT, WIDTH, 3))
    path = write_clip(
        tmp_path / "hdr.mkv",
        [np.ascontiguousarray(pixels)] * 2,
        codec="libx265",
        layout="yuv420p10le",
        tags=tags,
        # x265 gives B-frames of so short a clip decoding times out of memory that it has not set.
        options={"crf": "4", "x265-params": "log-level=none:pools=1:frame-threads=1:bframes=0"},
    )
    video = open_video(path)
    first, _ = video.frames()
    shown = first.photo.rgb[24, 8::16].mean(axis=1)
    linear = (26 / 203) ** (1 / 2.4) * 255  # the curve of a display of BT.709
    assert shown[0] < 6 and shown[2] > 248 and shown[3] > 248
    assert shown[1] == pytest.approx(linear, abs=tolerance)
    assert any(f"HDR ({name})" in note for note in video.notes)


def test_unlabelled_hd_is_bt709(tmp_path):
    green = np.full((720, 64, 3), (30, 160, 60), np.uint8)
    frame709 = av.VideoFrame.from_ndarray(green).reformat(format="yuv420p", dst_colorspace=1)
    path = tmp_path / "hd.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 720, "yuv420p"
        frame709.colorspace = 2  # unspecified
        frame709.pts = 0
        container.mux([*stream.encode(frame709), *stream.encode(None)])
    (frame,) = read_frames(path)
    assert np.abs(frame.photo.rgb[300, 30].astype(int) - (30, 160, 60)).max() <= 3


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations(tmp_path, suffix, model):
    path = tmp_path / f"moving.{suffix}"
    images = [Image.fromarray(picture(step)) for step in range(3)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=[40, 80, 200])
    assert run(path, tmp_path / "out.webm", model) == 0
    assert len(decode(tmp_path / "out.webm")[0]) == 3
    frames = list(read_frames(path))
    assert [float(frame.time) for frame in frames] == [0, 0.04, 0.12]
    assert [float(frame.duration) for frame in frames] == [0.04, 0.08, 0.2]
    assert np.abs(frames[2].photo.rgb[24, 24].astype(int) - RED).max() < 40


# What cannot be read


def test_damaged_files_are_named(tmp_path, clip):
    whole = clip.read_bytes()
    cases = {
        "empty.mp4": (b"", "empty file"),
        "text.mp4": (b"hello, this is not a video" * 20, "not a video that can be read"),
        "headless.mp4": (whole[: len(whole) // 2], "cut off or damaged; the index"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(VideoError, match=f"{name}: {message}"):
            open_video(tmp_path / name)
    with pytest.raises(VideoError, match="no such file"):
        open_video(tmp_path / "none.mp4")
    with pytest.raises(VideoError, match="is a device, expected a file or a pipe"):
        open_video(os.devnull)


def test_files_without_video_are_named(tmp_path):
    with av.open(str(tmp_path / "tone.m4a"), "w", format="mp4") as container:
        track = container.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.float32), "fltp", "mono")
        frame.sample_rate = 48000
        container.mux([*track.encode(frame), *track.encode(None)])
    with pytest.raises(VideoError, match=r"no video in it \(only audio\)"):
        open_video(tmp_path / "tone.m4a")
    for name in ("photo.png", "photo.jpg"):
        Image.fromarray(picture()).save(tmp_path / name)
        with pytest.raises(VideoError, match="is a photo, not a video"):
            open_video(tmp_path / name)


def test_a_truncated_video_gives_what_is_there(tmp_path, model, capsys):
    clip = write_clip(tmp_path / "clip.mp4", [picture(step % 8) for step in range(40)])
    path = with_index_first(clip, tmp_path / "cut.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    assert run(path, tmp_path / "out.webm", model) == 1
    assert "cut.mp4: truncated; the video ends after" in capsys.readouterr().err
    assert 10 < len(decode(tmp_path / "out.webm")[0]) < 40


def test_every_whole_frame_before_the_cut_is_kept(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (20, HEIGHT, WIDTH, 3), dtype=np.uint8)
    clip = write_clip(tmp_path / "clip.mp4", list(noise))
    path = with_index_first(clip, tmp_path / "cut.mp4")
    with av.open(str(path)) as container:
        entry = container.streams.video[0].index_entries[14]
        length = entry.pos + entry.size // 2
    path.write_bytes(path.read_bytes()[:length])
    video = open_video(path)
    assert len(list(video.frames())) == 14
    assert video.problems


def test_the_last_frame_of_a_varying_rate_ends_where_the_file_says(tmp_path):
    # The frame that is shown last is not decoded last, and so states another duration.
    options = {"bf": "2", "x264-params": "b-adapt=0"}
    path = write_clip(tmp_path / "clip.mp4", last=300, options=options)
    with av.open(str(path)) as container:
        ends = container.duration / 1_000_000
    *_, last = read_frames(path)
    assert ends > 0.4 and float(last.time + last.duration) == pytest.approx(ends, abs=0.001)
    *_, last = read_frames(path, end=0.1)
    assert float(last.time + last.duration) == pytest.approx(0.1)


def test_a_damaged_place_is_left_out(tmp_path, model, capsys):
    path = write_clip(
        tmp_path / "bad.mp4", [picture(step % 8) for step in range(20)], options={"g": "1"}
    )
    wipe(path, 9)
    assert run(path, tmp_path / "out.webm", model) == 1
    assert "bad.mp4: damaged in 1 place" in capsys.readouterr().err
    assert len(decode(tmp_path / "out.webm")[0]) == 19


# Folders of frames


def write_frames(folder, numbers=range(6), name="frame_{:06d}.png"):
    """Writes frames as images; returns the folder."""
    folder.mkdir(exist_ok=True)
    for step, number in enumerate(numbers):
        Image.fromarray(picture(step % 8)).save(folder / name.format(number))
    return folder


def test_a_pattern_gives_frames_the_time_of_their_number(tmp_path):
    write_frames(tmp_path / "in", [8, 9, 10, 12], "f_{}.png")
    write_frames(tmp_path / "in", [3], "other_{}.png")
    clip = open_video(tmp_path / "in" / "f_%d.png", 10)
    times = [(float(frame.time), float(frame.duration)) for frame in clip.frames()]
    assert times == [(0, 0.1), (0.1, 0.1), (0.2, 0.2), (0.4, 0.1)]
    assert clip.notes == ["1 number missing; the frame before is shown until the next one"]
    found = next(clip.frames(Fraction(1, 10)))
    assert found.photo.rgb[24, 12].tolist() == list(RED) and found.time == 0
    # %04d means at least four digits, and %d none in front
    write_frames(tmp_path / "four", [9999, 10000], "{:04d}.png")
    assert open_video(tmp_path / "four" / "%04d.png", 25).count == 2
    with pytest.raises(VideoError, match=r"f_%03d.png: no images of this name"):
        open_video(tmp_path / "in" / "f_%03d.png", 10)


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path):
    folder = write_frames(tmp_path / "in", range(8, 12), "f{}.png")
    frames = list(read_frames(folder, rate=25))
    assert [frame.photo.rgb[24, 9 + 4 * step, 0] for step, frame in enumerate(frames)] == [230] * 4
    assert [float(frame.time) for frame in frames] == [0, 0.04, 0.08, 0.12]


def test_frames_without_times_ask_for_a_rate(tmp_path, clip):
    folder = write_frames(tmp_path / "in")
    with pytest.raises(VideoError, match=r"add the frames a second, such as --fps 25"):
        open_video(folder)
    times = folder / "timestamps.txt"
    for text, message in [
        ("# timestamp format v2\n0\n40\n", "expected 6 times that rise"),
        ("# timestamp format v2\n0\n40\n80\n80\n90\n99\n", "expected 6 times that rise"),
        ("# timestamp format v2\n0\n1e400000000\n", "a line of milliseconds for each frame"),
        ("0\n40\n", "a line of milliseconds for each frame"),
    ]:
        times.write_text(text)
        with pytest.raises(VideoError, match=message):
            open_video(folder)
    assert open_video(folder, 25).count == 6  # which counts before the file
    with pytest.raises(VideoError, match="has times of its own"):
        open_video(clip, 25)


def test_frames_that_are_unlike_the_first_or_damaged(tmp_path):
    folder = write_frames(tmp_path / "in")
    (folder / "frame_000002.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    clip = open_video(folder, 25)
    assert [float(frame.time) for frame in clip.frames()] == [0, 0.04, 0.12, 0.16, 0.2]
    assert "frame_000002.png: " in clip.problems[0]
    assert "this frame is left out" in clip.problems[0]
    Image.new("RGB", (10, 20)).save(folder / "frame_000004.png")
    with pytest.raises(
        VideoError, match=r"frame_000004.png: is 10x20, expected 64x48 as the first"
    ):
        list(open_video(folder, 25).frames())


def test_what_was_written_as_a_folder_can_be_read(tmp_path, clip, model):
    assert run(clip, tmp_path / "frames", model, "--alpha") == 0
    assert run(tmp_path / "frames", tmp_path / "out.webm", model, "--alpha") == 0
    times = [float(frame.time) for frame in read_frames(tmp_path / "out.webm")]
    assert times == pytest.approx([0, 0.04, 0.08, 0.2, 0.24, 0.4], abs=0.001)
    pattern = tmp_path / "frames" / "frame_%06d.png"
    assert main([str(pattern), "--fps", "30000/1001", "--model", model]) == 0
    written = read_frames(tmp_path / "frames.cutout.webm")
    assert [float(frame.time) for frame in written][1] == pytest.approx(1001 / 30000, abs=0.001)


# Pipes

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")


@needs_pipes
@pytest.mark.parametrize("ends_with_index", [True, False])
def test_a_named_pipe_is_read_once(tmp_path, clip, model, ends_with_index):
    """For its frames and its sound; also an MP4 whose index, which is needed first, comes last."""
    path = clip
    if not ends_with_index:
        path = tmp_path / "in.mkv"
        write_clip(path, times=[0, 40, 80, 200, 240, 400], sound="libopus")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = subprocess.Popen(f"cat '{path}' > '{pipe}'", shell=True)
    try:
        assert run(pipe, tmp_path / "out.mov", model) == 0
    finally:
        writer.kill()
        writer.wait()
    assert len(decode(tmp_path / "out.mov")[0]) == 6
    assert sound_of(tmp_path / "out.mov")[0] is not None


@needs_pipes
def test_pipes_in_the_background(tmp_path, clip, model):
    scene = write_clip(tmp_path / "scene.mp4", [np.full((HEIGHT, WIDTH, 3), GREEN, np.uint8)] * 2)
    still = tmp_path / "still.jpg"
    Image.new("RGB", (50, 50), GREEN).save(still)
    for source in (scene, still):
        pipe = tmp_path / f"pipe-{source.name}"
        os.mkfifo(pipe)
        writer = subprocess.Popen(f"cat '{source}' > '{pipe}'", shell=True)
        try:
            background = Background(str(pipe))
        finally:
            writer.kill()
            writer.wait()
        for second in (0, 0.05, 0.5):  # a video is read over and over
            shown = background.at(Fraction(second), (20, 20))
            assert np.abs(shown[10, 10].astype(int) - GREEN).max() < 12


@needs_pipes
def test_a_pipe_with_nothing_in_it_and_one_without_an_output(tmp_path, model, capsys):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = subprocess.Popen(f": > '{pipe}'", shell=True)
    assert run(pipe, tmp_path / "out.webm", model) == 2
    writer.wait()
    assert f"{pipe}: empty file" in capsys.readouterr().err
    assert main([str(pipe)]) == 2
    assert "is a pipe; name the file to write with --output" in capsys.readouterr().err


def piped(clip, model, *options, **how):
    """Runs the command in a process, with a clip as standard input."""
    command = [sys.executable, "-m", "kmatting", "video", *options, "--model", model]
    with clip.open("rb") as file:
        return subprocess.run(command, stdin=file, capture_output=True, timeout=120, **how)


def test_standard_input_and_output(tmp_path, clip, model):
    done = piped(clip, model, "-", cwd=tmp_path)
    assert done.returncode == 0 and b"6 frames done" in done.stderr
    (tmp_path / "out.webm").write_bytes(done.stdout)
    assert len(decode(tmp_path / "out.webm", "libvpx-vp9")[0]) == 6
    assert sound_of(tmp_path / "out.webm")[0] == "opus"
    done = piped(clip, model, str(clip), "-o", "-", "--alpha", cwd=tmp_path)
    (tmp_path / "out.mp4").write_bytes(done.stdout)
    assert len(decode(tmp_path / "out.mp4")[0]) == 6
    assert done.stdout.find(b"moov") < done.stdout.find(b"mdat")  # a pipe cannot go back
    done = piped(clip, model, "-", "-o", "named.gif", cwd=tmp_path)
    assert done.returncode == 0 and b"written to named.gif" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["named.gif", "out.mp4", "out.webm"]


def test_formats_of_standard_output(tmp_path, clip, model):
    done = piped(clip, model, str(clip), "-o", "-", "--format", "gif", cwd=tmp_path)
    assert done.stdout.startswith(b"GIF8")
    done = piped(clip, model, str(clip), "-o", "-", "--format", "mp4", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == b""
    assert b"mp4 files have no transparency" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_nothing_of_a_failed_video_is_handed_over(tmp_path, model):
    path = tmp_path / "text.mp4"
    path.write_bytes(b"no video")
    done = piped(path, model, "-")
    assert done.returncode == 2 and done.stdout == b""
    assert b"error: standard input: not a video that can be read" in done.stderr


def test_sink_into_a_binary_file():
    file = io.BytesIO()
    with VideoSink(file, ".gif") as sink:
        sink.write(picture(0), 0, 0.5)
        assert file.tell() == 0
    assert file.getvalue().startswith(b"GIF8")
    with pytest.raises(VideoError, match=r"output: expected \.webm"):
        VideoSink(file)
    file = io.BytesIO()
    with pytest.raises(KeyError), VideoSink(file, ".webm") as sink:
        sink.write(picture(0), 0, 0.5)
        raise KeyError
    assert file.getvalue() == b""


def test_what_is_given_up_is_removed_before_it_is_closed(tmp_path, monkeypatch):
    """Closing it moves the index of an MP4 to its front, which takes long in a large file."""
    left = []
    close = _Encoder.close

    def watched(encoder):
        left.extend(tmp_path.iterdir())
        close(encoder)

    monkeypatch.setattr(_Encoder, "close", watched)
    with pytest.raises(KeyError), VideoSink(tmp_path / "out.mov") as sink:
        for step in range(4):  # the encoder holds back one for each of its threads
            sink.write(picture(0), step / 2, 0.5)
        assert list(tmp_path.iterdir())
        raise KeyError
    assert left == [] == list(tmp_path.iterdir())


# Other files


def test_a_list_of_files_is_no_video(tmp_path, clip):
    """Otherwise an upload would show the frames of any file beside it."""
    (tmp_path / "other.mp4").write_bytes(clip.read_bytes())
    write_clip(tmp_path / "other.ts", codec="mpeg2video", unit=25)
    for name, text in [
        ("upload.mp4", "ffconcat version 1.0\nfile other.mp4\n"),
        ("upload.webm", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\nother.ts\n#EXT-X-ENDLIST\n"),
        ("upload.mov", '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>'),
        ("upload.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 5000 RTP/AVP 96\n"),
    ]:
        (tmp_path / name).write_text(text)
        with pytest.raises(VideoError, match=f"{name}: (is a list of other files|not a video)"):
            open_video(tmp_path / name)
    for number in range(2):
        Image.fromarray(picture()).save(tmp_path / f"shot{number}.jpg")
    (tmp_path / "shot%d.jpg").write_bytes((tmp_path / "shot0.jpg").read_bytes())
    with pytest.raises(VideoError, match="is a photo"):  # FFmpeg would read shot0 and shot1
        open_video(tmp_path / "shot%d.jpg")


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        *[
            ("a.mkv", "libx264"),
            ("a.avi", "mpeg4"),
            ("a.ts", "mpeg2video"),
            ("a.mpg", "mpeg2video"),
        ],
        *[("a.flv", "flv"), ("a.wmv", "wmv2"), ("a.mxf", "mpeg2video"), ("a.ogv", "libtheora")],
        *[("a.m4v", "libx264"), ("a.3gp", "libx264"), ("a.nut", "ffv1"), ("a.h264", "libx264")],
        *[("a.ivf", "libvpx"), ("a.gxf", "mpeg2video"), ("a.y4m", "wrapped_avframe")],
    ],
)
def test_formats_that_are_read(tmp_path, name, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV has no {codec}")
    frames = [picture(step, 576, 720) for step in range(3)]
    path = write_clip(tmp_path / name, frames, codec=codec, unit=25)
    assert len(list(read_frames(path))) == 3


# Sizes


def test_frames_that_are_too_large_once_stretched(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "wide.mp4", aspect=Fraction(4))
    monkeypatch.setattr("kmatting.video.clip.MAX_PIXELS", 4 * WIDTH * HEIGHT - 1)
    with pytest.raises(VideoError, match=r"wide.mp4: frames of 256x48 are more than 12,287 pixels"):
        open_video(path)
    monkeypatch.setattr("kmatting.video.clip.MAX_PIXELS", 4 * WIDTH * HEIGHT)
    assert next(open_video(path).frames()).photo.rgb.shape == (HEIGHT, 4 * WIDTH, 3)


@pytest.mark.parametrize("aspect", [Fraction(20), Fraction(1, 20)])
def test_pixels_that_no_camera_makes(tmp_path, aspect):
    path = write_clip(tmp_path / "odd.mp4", aspect=aspect)
    with pytest.raises(VideoError, match=r"odd.mp4: states pixels of (20:1|1:20), expected"):
        open_video(path)


def test_large_animations_are_refused(tmp_path):
    path = tmp_path / "large.gif"
    images = [Image.fromarray(picture(step)) for step in range(2)]
    images[0].save(path, save_all=True, append_images=images[1:])
    content = bytearray(path.read_bytes())
    for width, height in ((9000, 9000), (65535, 65535)):
        content[6:10] = width.to_bytes(2, "little") + height.to_bytes(2, "little")
        path.write_bytes(content)
        with pytest.raises(VideoError, match=r"large.gif: .*(36,000,000|exceeds limit)"):
            open_video(path)


def test_what_ffmpeg_refuses_is_named(tmp_path, clip, model, monkeypatch, capsys):
    def refuse(*arguments):
        raise av.ArgumentError(22, "Invalid argument", "avcodec")

    monkeypatch.setattr("kmatting.video.convert.Converter.__call__", refuse)
    assert run(clip, tmp_path / "out.webm", model) == 2
    err = capsys.readouterr().err
    assert f"error: {clip}: the frame of 64x48 at 0.00 seconds cannot be converted" in err
    assert [path.name for path in tmp_path.iterdir()] == []


# In between


def test_median_over_three_frames():
    values = [0.0, 0.9, 0.1, 0.2, 1.0]
    mattes = [(number, np.full((2, 3), value)) for number, value in enumerate(values)]
    found = [(number, matte[0, 0]) for number, matte in steadied(mattes)]
    assert found == [(0, 0.0), (1, 0.1), (2, 0.2), (3, 0.2), (4, 1.0)]
    assert list(steadied([])) == []
    assert list(steadied([("one", np.ones(1))])) == [("one", np.ones(1))]


def test_median_is_one_frame_late():
    asked = []

    def mattes():
        for number in range(4):
            asked.append(number)
            yield number, np.zeros(1)

    for number, _ in steadied(mattes()):
        assert max(asked) <= number + 1


def test_matte_frames(clip, model):
    pairs = list(matte_frames(read_frames(clip), Matter(model), steady=False))
    assert len(pairs) == 6
    for step, (_, matte) in enumerate(pairs):
        assert matte.alpha[24, 20 + 4 * step] > 0.8  # red
        assert matte.alpha[6, 60] < 0.2


def test_second_looks_at_a_subject_that_grows_are_steadied(model):
    """Each has a resolution of its own."""
    frames = []
    for side in (60, 90, 120):
        image = np.zeros((240, 320, 3), np.uint8)
        image[60 : 60 + side, 100 : 100 + side] = RED
        frames.append(Frame(Photo(image), Fraction(len(frames)), Fraction(1)))
    matter = Matter(model, quality="normal")
    assert len({matter.predict_small(frame.photo).shape for frame in frames}) == 3
    mattes = [matte.alpha for _, matte in matte_frames(frames, matter)]
    for alpha, side in zip(mattes, (60, 90, 120), strict=True):  # it grows evenly
        assert alpha[60 + side // 2, 100 + side // 2] > 0.7
        assert alpha.shape == (240, 320)
        assert abs((alpha[100] > 0.4).sum() - side) < 6


# Writing


SUFFIXES = [".webm", ".mov", ".webp", ".apng", ".gif"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_cutouts_keep_alpha_and_times(tmp_path, clip, model, suffix):
    output = tmp_path / f"out{suffix}"
    assert run(clip, output, model, "--no-steady") == 0
    frames = list(read_frames(output))
    tolerance = 0.006 if suffix == ".gif" else 0.001
    times = [float(frame.time) for frame in frames]
    assert times == pytest.approx([0, 0.04, 0.08, 0.2, 0.24, 0.4], abs=tolerance)
    for step, frame in enumerate(frames):
        assert frame.photo.opacity[24, 20 + 4 * step] > 200
        assert frame.photo.opacity[4, 60] < 40
        assert np.abs(frame.photo.rgb[24, 20 + 4 * step].astype(int) - RED).max() < 40
    if suffix not in (".webp", ".apng"):  # there FFmpeg makes up how long the last one is shown
        source = list(read_frames(clip))[-1]
        assert float(frames[-1].duration) == pytest.approx(float(source.duration), abs=0.011)


def test_webm_says_that_it_has_alpha(tmp_path, clip, model):
    output = tmp_path / "out.webm"
    run(clip, output, model, "--no-steady")
    with av.open(str(output)) as container:
        assert container.streams.video[0].metadata["ALPHA_MODE"] == "1"
    plain, _ = decode(output)  # FFmpeg's own decoder drops the alpha
    full, _ = decode(output, "libvpx-vp9")
    assert plain[..., 3].min() == 255
    assert full[0, 4, 60, 3] < 40 and full[0, 24, 20, 3] > 200


def test_composites(tmp_path, clip, model):
    Image.new("RGB", (100, 100), GREEN).save(tmp_path / "meadow.png")
    scenes = [np.full((HEIGHT, WIDTH, 3), colour, np.uint8) for colour in (GREEN, (250, 250, 0))]
    write_clip(tmp_path / "scene.mp4", scenes, times=[0, 100], rate=10)
    expected = {
        "white": [(255, 255, 255)] * 6,
        tmp_path / "meadow.png": [GREEN] * 6,
        # green until 0.1 s, yellow until 0.2 s, and over again
        tmp_path / "scene.mp4": [GREEN] * 4 + [GREEN, GREEN],
    }
    for background, colours in expected.items():
        output = tmp_path / "out.mp4"
        assert run(clip, output, model, "--composite", background, "--overwrite") == 0
        pictures, times = decode(output)
        assert times == [0, 0.04, 0.08, 0.2, 0.24, 0.4]
        for step, colour in enumerate(colours):
            behind = pictures[step, 24, 3, :3].astype(int)
            assert np.abs(behind - colour).max() < 60, (background, step, behind)


def test_a_background_video_plays_and_repeats(tmp_path):
    scenes = [np.full((HEIGHT, WIDTH, 3), level, np.uint8) for level in (0, 120, 240)]
    path = write_clip(tmp_path / "scene.mp4", scenes, times=[0, 100, 200], rate=10)
    background = Background(str(path))
    moments = [0, 90, 210, 299, 301, 730]
    shown = [int(background.at(Fraction(ms, 1000), (20, 40)).mean()) for ms in moments]
    assert shown == pytest.approx([0, 0, 240, 240, 0, 120], abs=4)
    assert background.at(Fraction(1), (20, 40)).shape == (20, 40, 3)


def test_damage_in_a_background_video_is_named(tmp_path, clip, model, capsys):
    scenes = [np.full((HEIGHT, WIDTH, 3), level, np.uint8) for level in range(0, 200, 10)]
    path = write_clip(tmp_path / "scene.mp4", scenes, options={"g": "1"})
    wipe(path, 8)  # the clip is over before the scene is
    assert run(clip, tmp_path / "out.mp4", model, "--composite", path) == 1
    err = capsys.readouterr().err.splitlines()
    assert f"warning: {path}: damaged in 1 place" in err[-1]
    short = write_clip(tmp_path / "short.mp4", scenes[:10], rate=50, options={"g": "1"})
    wipe(short, 8)  # and is repeated, but named once
    assert run(clip, tmp_path / "out2.mp4", model, "--composite", short) == 1
    assert capsys.readouterr().err.count("damaged in 1 place") == 1


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations_play_in_the_background_and_pictures_stand(tmp_path, suffix):
    black, white = Image.new("RGB", (32, 24)), Image.new("RGB", (32, 24), "white")
    path = tmp_path / f"scene.{suffix}"
    black.save(path, save_all=True, append_images=[white], duration=100)
    background = Background(str(path))
    shown = [background.at(Fraction(ms, 1000), (24, 32)).mean() for ms in (0, 150, 210)]
    assert shown == [0, 255, 0]
    white.save(path)
    background = Background(str(path))
    assert [background.at(Fraction(second), (24, 32)).mean() for second in (0, 1)] == [255, 255]


def test_alpha_alone(tmp_path, clip, model):
    assert run(clip, tmp_path / "out.mp4", model, "--alpha", "--no-steady") == 0
    pictures, _ = decode(tmp_path / "out.mp4")
    assert np.ptp(pictures[..., :3], axis=3).max() <= 4
    assert pictures[0, 24, 20, 0] > 200 and pictures[0, 4, 60, 0] < 40


def test_a_folder_of_png_files(tmp_path, clip, model):
    assert run(clip, tmp_path / "frames", model) == 0
    files = sorted((tmp_path / "frames").glob("*.png"))
    assert [file.name for file in files] == [f"frame_{number:06d}.png" for number in range(6)]
    assert Image.open(files[0]).mode == "RGBA"
    times = (tmp_path / "frames" / "timestamps.txt").read_text().split("\n")[1:-1]
    assert [float(line) for line in times] == [0, 40, 80, 200, 240, 400]
    with pytest.raises(VideoError, match="name a new or an empty folder"):
        VideoSink(tmp_path / "frames")


def test_the_median_takes_a_flash_out(tmp_path, model):
    pictures = [picture() for _ in range(5)]
    pictures[2][:, :] = RED
    clip = write_clip(tmp_path / "flash.mp4", pictures, options={"crf": "1"})
    for options, low, high in (((), 0, 60), (("--no-steady",), 200, 255)):
        output = tmp_path / f"out{len(options)}"
        run(clip, output, model, "--alpha", *options)
        matte = np.asarray(Image.open(output / "frame_000002.png"))
        assert low <= matte[5, 60] <= high


def test_sound_is_copied_or_encoded(tmp_path, clip, model, capsys):
    for name, codec in (("out.mov", "aac"), ("out.webm", "opus")):
        assert run(clip, tmp_path / name, model) == 0
        found, seconds = sound_of(tmp_path / name)
        assert found.removeprefix("lib") == codec
        assert seconds == pytest.approx(0.25, abs=0.06)
    assert "webm files take no aac: the sound is encoded as opus" in capsys.readouterr().err
    with av.open(str(clip)) as source, av.open(str(tmp_path / "out.mov")) as copy:
        packets = [
            [bytes(packet) for packet in file.demux(audio=0) if packet.size]
            for file in (source, copy)
        ]
    assert packets[0] == packets[1]  # not encoded again
    assert run(clip, tmp_path / "out.gif", model) == 0
    assert "gif files have no sound" in capsys.readouterr().err


def test_damaged_sound_is_named(tmp_path, model, capsys):
    path = write_clip(tmp_path / "bad.mp4", sound="aac")
    wipe(path, 4, "audio")
    assert run(path, tmp_path / "out.webm", model) == 1
    err = capsys.readouterr().err
    assert f"warning: {path}: the sound is damaged in 1 place" in err
    assert sound_of(tmp_path / "out.webm")[0] == "opus"


def test_mp3_is_copied(tmp_path, model, capsys):
    """Its decoder has another name than the codec."""
    clip = write_clip(tmp_path / "in.mkv", sound="libmp3lame")
    assert run(clip, tmp_path / "out.mp4", model, "--alpha") == 0
    assert sound_of(tmp_path / "out.mp4")[0].startswith("mp3")
    assert "sound" not in capsys.readouterr().err


def test_sound_of_a_part(tmp_path, clip, model):
    run(clip, tmp_path / "out.mov", model, "--start", "0.1", "--end", "0.22")
    _, seconds = sound_of(tmp_path / "out.mov")
    assert seconds == pytest.approx(0.12, abs=0.05)


def test_odd_sizes(tmp_path, model, capsys):
    clip = write_clip(
        tmp_path / "odd.mkv", [picture(0, 47, 63)] * 2, codec="libx264rgb", layout="rgb24"
    )
    run(clip, tmp_path / "out.mp4", model, "--composite", "white")
    assert decode(tmp_path / "out.mp4")[0].shape[1:3] == (48, 64)
    assert "which gives 64x48" in capsys.readouterr().err
    run(clip, tmp_path / "out.webm", model)
    assert decode(tmp_path / "out.webm")[0].shape[1:3] == (47, 63)


def test_one_frame(tmp_path, model):
    clip = write_clip(tmp_path / "one.mp4", [picture()])
    for name in ("out.webm", "out.mov", "out.gif", "out.webp", "out"):
        assert run(clip, tmp_path / name, model) == 0
    assert len(decode(tmp_path / "out.webm")[0]) == 1


def loops(path, count, **options):
    """Writes an animation with Pillow."""
    images = [Image.fromarray(picture(step)) for step in range(count)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=100, **options)
    return path


@pytest.mark.parametrize(
    ("name", "options", "plays"),
    [
        ("in.gif", {}, 1),  # says nothing
        ("in.gif", {"loop": 0}, 0),
        ("in.gif", {"loop": 2}, 3),  # two repetitions
        ("in.webp", {"loop": 1}, 1),
        ("in.webp", {"loop": 3}, 3),
        ("in.png", {"loop": 0}, 0),
        ("in.png", {"loop": 3}, 3),
    ],
)
def test_animations_are_shown_as_often(tmp_path, model, name, options, plays):
    clip = loops(tmp_path / name, 2, **options)
    assert open_video(clip).plays == plays
    stated = {
        "out.gif": {0: 0, 1: None, 3: 2}[plays],  # the number of repetitions
        "out.webp": plays,
        "out.apng": plays,
    }
    for output, number in stated.items():
        assert run(clip, tmp_path / output, model, "--overwrite") == 0
        with Image.open(tmp_path / output) as image:
            assert image.info.get("loop") == number, output
        assert open_video(tmp_path / output).plays == plays


def test_a_picture_for_programs_without_animation_is_no_frame(tmp_path):
    images = [Image.fromarray(picture(step)) for step in range(3)]
    path = tmp_path / "in.png"
    images[0].save(path, save_all=True, append_images=images[1:], default_image=True, duration=100)
    frames = list(read_frames(path))
    assert [float(frame.time) for frame in frames] == [0, 0.1]
    assert frames[0].photo.rgb[24, 13].tolist() == list(RED)
    assert frames[0].photo.rgb[24, 9].tolist() == list(BLUE)


TAGS = {
    "title": "Holiday",
    "date": "2024-05-01",
    "creation_time": "2024-05-01T10:00:00.000000Z",
    "location": "+48.1000+011.5000/",
}


def tagged(clip, path):
    """Copies a clip and gives it tags."""
    with av.open(str(clip)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        target.metadata.update(TAGS)
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return path


def test_title_date_and_place(tmp_path, clip, model, capsys):
    path = tagged(clip, tmp_path / "in.mp4")
    for name in ("out.webm", "out.mov"):
        assert run(path, tmp_path / name, model) == 0
        assert open_video(tmp_path / name).tags == {}
        note = capsys.readouterr().err
        assert "creation_time, title, date, location left out; --keep-metadata keeps them" in note
    for name in ("out.webm", "out.mov"):
        assert run(path, tmp_path / name, model, "--keep-metadata", "--overwrite") == 0
        tags = open_video(tmp_path / name).tags
        assert tags.items() >= {k: v for k, v in TAGS.items() if k != "location"}.items()
        assert tags["location"].startswith("+48.1")
        assert "left out" not in capsys.readouterr().err.replace("sound", "")
    assert run(path, tmp_path / "out.gif", model, "--keep-metadata") == 0
    assert "gif files hold no creation_time, title, date, location: left out" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("key", ["com.apple.quicktime.location.ISO6709", "location-eng"])
def test_the_place_as_phones_write_it(key):
    assert _described({key: "+48.1+011.5/", "com.android.version": "9"}) == {
        "location": "+48.1+011.5/"
    }


def test_sink_in_python(tmp_path):
    path = tmp_path / "deep" / "out.webm"
    with VideoSink(path) as sink:
        sink.write(picture(0), 0, 0.5)
        sink.write(Image.fromarray(picture(1)), 0.5, 0.25)
    with av.open(str(path)) as container:
        assert container.duration == 750_000
    with pytest.raises(VideoError, match="as the first, received"), VideoSink(path) as sink:
        sink.write(picture(0), 0, 1)
        sink.write(picture(0)[1:], 1, 1)
    with pytest.raises(VideoError, match="no picture was written"), VideoSink(path):
        pass
    with av.open(str(path)) as container:  # what failed has not replaced it
        assert container.duration == 750_000
    assert [each.name for each in path.parent.iterdir()] == ["out.webm"]
    with pytest.raises(VideoError, match=r"expected \.webm, \.mov, \.mp4"):
        VideoSink(tmp_path / "out.avi")


# Edits and bugs


@pytest.mark.parametrize(
    ("options", "holds"),
    [
        (["--erode", "4"], lambda a, b: (a > 128).sum() < 0.8 * (b > 128).sum()),
        (["--erode", "-4"], lambda a, b: (a > 128).sum() > 1.2 * (b > 128).sum()),
        (["--threshold", "0.5"], lambda a, b: set(np.unique(a)) <= {0, 255}),
        (["--only-largest"], lambda a, b: a[2:6, 56:62].max() == 0 < b[2:6, 56:62].min()),
    ],
)
def test_the_matte_is_edited(tmp_path, model, options, holds):
    pixels = picture()
    pixels[..., 0][pixels[..., 0] < 100] = 0  # or the background would join the parts
    pixels[1:7, 55:63] = RED
    clip = write_clip(tmp_path / "in.mkv", [pixels] * 2, codec="ffv1", layout="bgr0")
    assert run(clip, tmp_path / "plain", model, "--alpha") == 0
    assert run(clip, tmp_path / "edited", model, "--alpha", *options) == 0
    plain, edited = (
        np.asarray(Image.open(tmp_path / name / "frame_000001.png")) for name in ("plain", "edited")
    )
    assert holds(edited, plain)


def test_a_canvas_and_a_shadow(tmp_path, clip, model):
    assert run(clip, tmp_path / "square", model, "--canvas") == 0
    assert Image.open(tmp_path / "square" / "frame_000000.png").size == (WIDTH, WIDTH)
    Image.new("RGB", (300, 300), GREEN).save(tmp_path / "meadow.png")
    composite = ["--composite", tmp_path / "meadow.png"]
    assert run(clip, tmp_path / "over", model, *composite, "--canvas") == 0
    pixels = np.asarray(Image.open(tmp_path / "over" / "frame_000000.png"))
    assert pixels.shape == (WIDTH, WIDTH, 3) and pixels[2, 2].tolist() == list(GREEN)
    assert run(clip, tmp_path / "white", model, "--composite", "white") == 0
    assert run(clip, tmp_path / "dark", model, "--composite", "white", "--shadow", "1") == 0
    light, dark = (
        np.asarray(Image.open(tmp_path / name / "frame_000000.png")).mean()
        for name in ("white", "dark")
    )
    assert dark < light - 2


@pytest.mark.parametrize("place", ["refine", "draw"])
def test_a_bug_in_one_frame_leaves_the_others(tmp_path, clip, model, monkeypatch, capsys, place):
    asked = []

    def broken(function):
        def once(*arguments):
            asked.append(1)
            if len(asked) == 2:
                raise IndexError("planted")
            return function(*arguments)

        return once

    if place == "refine":
        monkeypatch.setattr("kmatting.video.mattes.refine", broken(mattes.refine))
    else:
        kind = KINDS["cutout"]
        broken_kind = dataclasses.replace(kind, draw=broken(kind.draw))
        monkeypatch.setitem(KINDS, "cutout", broken_kind)
    assert run(clip, tmp_path / "out.webm", model) == 70
    err = capsys.readouterr().err
    assert "Traceback" in err and "this is a bug of kmatting" in err
    assert "seconds: internal error (IndexError: planted)" in err
    assert len(decode(tmp_path / "out.webm")[0]) == 5


@pytest.mark.parametrize("count", [3, 15])
def test_a_bug_in_every_frame_ends_the_command(tmp_path, model, monkeypatch, capsys, count):
    def broken(*arguments):
        raise ValueError("planted")

    monkeypatch.setattr("kmatting.video.mattes.refine", broken)
    clip = write_clip(tmp_path / "in.mp4", [picture(step % 8) for step in range(count)])
    assert run(clip, tmp_path / "out.webm", model) == 70
    assert "this is a bug of kmatting" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize("place", ["convert.Converter.__call__", "steady._median"])
def test_a_bug_in_a_step_before_ends_the_command(tmp_path, clip, model, monkeypatch, capsys, place):
    def broken(*arguments):
        raise ValueError("planted")

    monkeypatch.setattr(f"kmatting.video.{place}", broken)
    assert run(clip, tmp_path / "out.webm", model) == 70
    assert "this is a bug of kmatting" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_frame_that_the_model_cannot_run_on_is_named(tmp_path, clip, model, monkeypatch, capsys):
    def refuse(*arguments):
        raise PhotoError("image: the model cannot run on it (no).")

    monkeypatch.setattr(Matter, "predict_small", refuse)
    assert run(clip, tmp_path / "out.webm", model) == 2
    assert f"error: {clip}: frame at 0.00 seconds: the model cannot run" in capsys.readouterr().err


# The command


def test_wrong_commands_end_in_one_line(tmp_path, clip, model, capsys):
    cases = [
        ([clip, "-o", tmp_path / "out.mp4"], "mp4 files have no transparency"),
        ([clip, "-o", tmp_path / "out.avi"], "expected .webm, .mov, .mp4"),
        ([clip, "-o", clip, "--alpha", "--overwrite"], "would replace the input"),
        ([clip, "--end", "1", "--start", "1:00"], "--end must be later than --start"),
        ([clip, "--start", "soon"], "expected seconds, minutes:seconds"),
        ([clip, "--start", "1e400000000"], "expected seconds, minutes:seconds"),
        ([clip, "--end", "9" * 5000], "expected seconds, minutes:seconds"),
        ([clip, "--fps", "1e400000000"], "expected frames a second, such as 25"),
        ([clip, "--fps", "0/0"], "expected frames a second, such as 25"),
        ([clip, "--fps", "25", "-o", tmp_path / "o.webm"], "has times of its own"),
        ([clip, "-o", tmp_path / "o.webm", "--canvas", "9000"], "frames of 9000x9000 are more"),
        ([clip, "--crop", "9"], "--crop: a subject moves"),
        ([clip, "--alpha", "--composite", "white"], "holds one of --alpha and --composite"),
        ([clip, "--composite", "red", "--composite", "white"], "a video has one background"),
        ([clip, "-o", tmp_path / "o.mp4", "--format", "webm"], "o.mp4 is no .webm file"),
        ([clip, "-o", tmp_path / "o", "--format", "webm"], "o is no .webm file"),
        ([tmp_path, "-o", tmp_path / "o.webm"], "no images in this folder"),
        ([tmp_path / "none.mp4", "-o", tmp_path / "o.webm"], "none.mp4: no such file."),
        ([clip, "-o", tmp_path / "o.mp4", "--composite", "nowhere.mp4"], "nowhere.mp4: no such"),
    ]
    for arguments, message in cases:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code
        error = capsys.readouterr().err
        assert status == 2 and message in error, (arguments, error)
        assert "Traceback" not in error
    (tmp_path / "there.webm").touch()
    assert main([str(clip), "-o", str(tmp_path / "there.webm")]) == 2
    assert "Use --overwrite" in capsys.readouterr().err


def test_default_output(tmp_path, model):
    clip = write_clip(tmp_path / "in.mp4", [picture()] * 2)
    assert main([str(clip), "--model", model]) == 0
    assert (tmp_path / "in.cutout.webm").exists()


def stopped(process, number, seconds=30):
    """Sends a signal; returns what a process writes until it ends."""
    process.send_signal(number)
    try:
        _, error = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        pytest.fail(f"it ignores signal {number}")
    return error


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["unopened", "silent", "standard input", "background"])
def test_waiting_for_a_pipe_ends_by_a_signal(tmp_path, clip, model, number, where):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = None if where == "unopened" else os.open(pipe, os.O_RDWR)  # which writes nothing more
    if writer is not None:
        os.write(writer, clip.read_bytes()[:100])
    source = {"standard input": "-", "background": str(clip)}.get(where, str(pipe))
    command = [sys.executable, "-m", "kmatting", "video", source, "-o", str(tmp_path / "o.mp4")]
    command += ["--composite", str(pipe) if where == "background" else "white", "--model", model]
    with subprocess.Popen(
        command,
        stdin=writer if where == "standard input" else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        # A shell's background jobs inherit that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        wait_for_import(process)
        error = stopped(process, number)
    if writer is not None:
        os.close(writer)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert error.strip() in ("interrupted", "terminated")
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def wait_for_import(process):
    """Waits until a command has loaded what it needs and waits itself."""
    deadline, used, asleep = time.monotonic() + 60, 0, 0
    status = Path(f"/proc/{process.pid}/stat")
    while time.monotonic() < deadline and status.exists() and asleep < 3:
        fields = status.read_text().rpartition(")")[2].split()
        now = sum(map(int, fields[11:13]))  # hundredths of a second of processor time
        # On a busy machine a process that waits for a processor is "R".
        asleep = asleep + 1 if now > 20 and now == used and fields[0] == "S" else 0
        used = now
        time.sleep(0.3)


@pytest.mark.skipif(not Path("/proc").exists(), reason="kills by force")
def test_what_a_killed_command_leaves_is_removed_by_the_next(tmp_path, clip, model):
    long = write_clip(tmp_path / "long.mp4", [picture(step % 8) for step in range(3000)])
    command = [sys.executable, "-m", "kmatting", "video", str(long), "--model", model]
    for name in ("frames", "out.webm"):
        with subprocess.Popen([*command, "-o", str(tmp_path / name)]) as process:
            deadline = time.monotonic() + 60
            while not list(tmp_path.glob(".*partial*")) and time.monotonic() < deadline:
                time.sleep(0.05)
            process.kill()
        assert list(tmp_path.glob(".*partial*"))
        files._remove_leftovers.cache_clear()
        assert run(clip, tmp_path / f"next-{name}", model) == 0
        assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["out.webm", "frames"])
def test_interrupted_leaves_nothing(tmp_path, model, name):
    clip = write_clip(tmp_path / "long.mp4", [picture(step % 8) for step in range(3000)])
    command = [sys.executable, "-m", "kmatting", "video", str(clip), "-o", str(tmp_path / name)]
    process = subprocess.Popen(
        [*command, "--model", model],
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs inherit that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".*.partial*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.strip().endswith("interrupted")
    assert [path.name for path in tmp_path.iterdir()] == ["long.mp4"]


def test_missing_package_names_the_extra(tmp_path):
    (tmp_path / "av.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'av'\", name='av')"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])

    def video(argument):
        return subprocess.run(
            [sys.executable, "-m", "kmatting", "video", argument],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )

    done = video("in.mp4")
    assert done.returncode == 2
    assert "error: av is not installed: pip install" in done.stderr
    assert "[video]" in done.stderr
    assert "usage: kmatting video" in video("--help").stdout


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_bounded_memory(tmp_path, model):
    """A clip four times as long takes no more memory."""
    code = (
        "import re, sys; from kmatting.video.__main__ import main; main(sys.argv[1:]);"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    peaks = []
    for count in (40, 160):
        frames = [picture(step % 8, 480, 640) for step in range(count)]
        clip = write_clip(tmp_path / f"{count}.mp4", frames)
        arguments = [str(clip), "-o", str(tmp_path / f"{count}.webm"), "--model", model]
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments, "--foreground", "none"],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout.split()[-1]))
    assert peaks[1] < peaks[0] + 40_000  # 120 frames of RGBA would be 147,000 kB


def test_times_that_a_format_cannot_tell_apart(tmp_path):
    with VideoSink(tmp_path / "out.webm") as sink:  # whose unit is a millisecond
        for number in range(4):
            sink.write(picture(number), Fraction(number, 10_000), Fraction(1, 10_000))
    assert decode(tmp_path / "out.webm")[1] == [0, 0.001, 0.002, 0.003]


def test_written_beside_and_renamed(tmp_path):
    target = tmp_path / "out.webm"
    with VideoSink(target) as sink:
        sink.write(picture(), 0, 1)
        assert not target.exists()
    assert Path(target).stat().st_size > 0
