"""Predicts the mattes of a video, and writes a cutout, a composite or the matte."""

import argparse
import contextlib
import re
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from kmatting.ahead import map_ordered
from kmatting.bugs import BugCounter, attempt, is_expected
from kmatting.cli import add_model, add_quality, add_size, add_threads, command, make_parser
from kmatting.errors import PhotoError, UsageError, VideoError
from kmatting.files import check_writable
from kmatting.inference.matter import Matter
from kmatting.networks.runtime import processors
from kmatting.pictures.compose import Colour
from kmatting.pictures.kinds import KINDS
from kmatting.pictures.maker import draw
from kmatting.pictures.matte import Matte
from kmatting.pictures.wanted import Wanted, add_picture_options, wanted_from
from kmatting.quiet import quiet
from kmatting.sizes import Quality, Size
from kmatting.terminal import complain, progress, say
from kmatting.video.clip import Clip, Frame, check_size
from kmatting.video.folder import folder_of, is_folder
from kmatting.video.formats import FORMATS
from kmatting.video.mattes import WORKERS, Seen, coarse_mattes, refined
from kmatting.video.source import Source

if TYPE_CHECKING:
    from kmatting.video.background import Background
    from kmatting.video.write import VideoSink

_NUMBER = r"\d{1,9}(?:\.\d{1,9})?"  # Python would take minutes to write out 1e400000000
_TIME = re.compile(rf"(?:{_NUMBER}:){{0,2}}{_NUMBER}")
_RATE = re.compile(rf"{_NUMBER}(?:/\d{{1,9}})?")

Predicted = tuple[Seen, np.ndarray]
Drawn = tuple[Image.Image, bool]  # a picture, and whether it is without a subject

EPILOG = """\
what is written:
  The suffix of --output decides: .webm (VP9), .mov (ProRes 4444), .mp4 (H.264), .webp, .apng or
  .gif; a name without a suffix is a folder of PNG files. All but .mp4 hold a cutout. Without
  --output it is in.cutout.webm, in.composite.mp4 or in.alpha.mp4, beside in.mp4, or with another
  suffix as --format says. --output - is standard output, and so is the default if INPUT is -.
  Number, times and duration of the frames are those of the input, and its sound is kept.

exit status:
  0 done, 1 done but for what is damaged in an input, 2 the command cannot be run as given,
  70 a bug of kmatting, 130 interrupted, 143 terminated; after 2, 130 and 143 nothing is written.

examples:
  a cutout for the web, or for an editor:
    kmatting video in.mp4 -o out.webm
    kmatting video in.mp4 -o out.mov
  over a colour, an image or another video:
    kmatting video in.mp4 -o out.mp4 --composite white
    kmatting video in.mp4 -o out.mp4 --composite beach.mp4
  the matte of ten seconds:
    kmatting video in.mp4 -o matte.mp4 --alpha --start 1:20 --end 1:30
  frames that another program wrote:
    kmatting video frames/%04d.png --fps 25 -o out.webm
  in a pipe:
    kmatting video - < in.mp4 > out.webm
"""


@dataclass(frozen=True)
class Request:
    """What the command was asked for.

    Attributes:
        input: path of a clip, or "-" for standard input.
        output: the file or folder to write, or None for standard output.
        suffix: of the format to write; "" for a folder.
        wanted: the kind of picture and the changes to the matte.
        start: seconds of the input at which it begins.
        end: seconds at which it ends, or None.
        fps: frames a second of a folder of frames, or None.
        steady: whether to take the median over three frames.
        keep_metadata: whether to keep title, date, place and the like.
        model: path of a model, or None for the shipped one.
        size: as in `Matter`.
        threads: of the network; None for half of the processors.
        quality: as in `Matter`.
    """

    input: str
    output: Path | None
    suffix: str
    wanted: Wanted
    start: Fraction
    end: Fraction | None
    fps: Fraction | None
    steady: bool
    keep_metadata: bool
    model: str | None
    size: Size | None
    threads: int | None
    quality: Quality

    @property
    def kind(self) -> str:
        """The kind of picture."""
        return self.wanted.kinds[0]


@dataclass
class _Tally:
    """Counts the frames that were written, and those without a subject."""

    frames: int = 0
    empty: int = 0


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    request = _parse(argv)
    # Here, so that --help does without the extra.
    from kmatting.video.background import Background
    from kmatting.video.read import open_video

    with contextlib.ExitStack() as stack:
        place = _opened(request, stack)
        clip = open_video(place, request.fps)
        background = None
        if request.kind == "composite":
            background = Background(str(request.wanted.backgrounds[0]))
            stack.callback(background.close)
        sink = _sink(request, clip, place if clip.has_sound else None)
        with quiet():
            # The other steps, which run at the same time, take as long as the network.
            threads = request.threads or max(1, processors() // 2)
            matter = Matter(request.model, request.size, threads, request.quality)
        began = time.monotonic()
        tally, bugs = _Tally(), BugCounter()
        total = None if request.start or request.end is not None else clip.count
        pictures = _pictures(clip, matter, background, request)
        with contextlib.closing(pictures), sink:
            _write(progress(pictures, total, "frame"), sink, tally, bugs, clip)
    problems = _report(request, clip, sink, background)
    if tally.empty == tally.frames:
        complain(f"warning: {clip.name}: no subject found in any frame.")
    seconds = time.monotonic() - began
    speed = f"{tally.frames} frames done in {seconds:.1f} s ({tally.frames / seconds:.1f} frames/s)"
    if request.output is None:
        complain(speed)
    else:
        say(f"{speed}, written to {request.output}")
    return bugs.status(1 if problems else 0)


def _opened(request: Request, stack: contextlib.ExitStack) -> str | Source:
    """Opens a file or a pipe; leaves a folder as it is."""
    if request.input != "-" and is_folder(request.input):
        return request.input
    source = Source.of_standard_input() if request.input == "-" else Source(request.input)
    stack.callback(source.close)
    return source


def _sink(request: Request, clip: Clip, audio: str | Source | None) -> "VideoSink":
    """Prepares what is written to."""
    from kmatting.video.write import VideoSink

    return VideoSink(
        sys.stdout.buffer if request.output is None else request.output,
        request.suffix,
        audio=audio,
        start=request.start,
        end=request.end,
        time_base=clip.time_base,
        rate=clip.rate,
        plays=clip.plays,
        tags=clip.tags if request.keep_metadata else None,
    )


def _pictures(
    clip: Clip, matter: Matter, background: "Background | None", request: Request
) -> Generator[tuple[Frame, Drawn | Exception]]:
    """Makes what is written of each frame.

    Yields:
        Each frame with its picture and whether it is without a subject, or with what made it fail.
    """
    frames = clip.frames(request.start, request.end)
    mattes = coarse_mattes(frames, matter, request.steady)
    Work = tuple[Seen, np.ndarray, Colour | np.ndarray | None]

    def with_scenes() -> Iterator[Work]:
        size: tuple[int, int] | None = None
        for seen, alpha in _named(mattes, clip):
            size = size or _size(seen, request.wanted, clip)
            scene = None if background is None else background.at(seen.frame.time, size)
            yield seen, alpha, scene

    def picture(seen: Seen, alpha: np.ndarray, scene: Colour | np.ndarray | None) -> Drawn:
        matte = refined(seen, alpha)
        scenes = {} if scene is None else {request.kind: scene}
        drawn = draw(request.wanted.edited(matte), request.kind, request.wanted, scenes)
        assert isinstance(drawn, Image.Image)  # 16 bits cannot be asked for
        return drawn, matte.is_empty

    def attempted(work: Work) -> tuple[Frame, Drawn | Exception]:
        return work[0].frame, attempt(picture, *work)

    yield from map_ordered(attempted, with_scenes(), WORKERS)


def _named(mattes: Iterator[Predicted], clip: Clip) -> Iterator[Predicted]:
    """Names the clip in what the model refuses."""
    try:
        yield from mattes
    except PhotoError as error:
        raise VideoError(f"{clip.name}: {error}") from error


def _size(seen: Seen, wanted: Wanted, clip: Clip) -> tuple[int, int]:
    """Returns height and width of the pictures, which a canvas may change; bounds them."""
    height, width = seen.image.shape[:2]
    if wanted.canvas is None:
        return height, width
    edited = wanted.edited(Matte(seen.frame.photo, np.zeros((height, width), np.float32)))
    height, width = edited.alpha.shape
    check_size(clip.name, width, height)
    return height, width


def _write(
    pictures: Iterator[tuple[Frame, Drawn | Exception]],
    sink: "VideoSink",
    tally: _Tally,
    bugs: BugCounter,
    clip: Clip,
) -> None:
    """Writes the pictures; leaves out the frames in which there is a bug of kmatting."""
    bug: Exception | None = None
    for frame, outcome in pictures:
        if isinstance(outcome, Exception):
            problem = bugs.problem(outcome)
            message = f"{clip.name}: frame at {float(frame.time):.2f} seconds: {problem}"
            if is_expected(outcome):
                raise VideoError(message) from outcome
            complain(f"error: {message}")
            bug = outcome
            continue
        bugs.problem(None)
        picture, is_empty = outcome
        sink.write(picture, frame.time, frame.duration)
        tally.frames, tally.empty = tally.frames + 1, tally.empty + is_empty
    if bug is not None and not tally.frames:
        raise bug


def _report(
    request: Request, clip: Clip, sink: "VideoSink", background: "Background | None"
) -> list[str]:
    """Prints what was changed and what is damaged; returns the latter."""
    problems = clip.problems + [f"{clip.name}: {problem}" for problem in sink.problems]
    notes = [f"{clip.name}: {note}" for note in [*clip.notes, *sink.notes]]
    if clip.tags and not request.keep_metadata:
        hint = "; --keep-metadata keeps them" if _holds_tags(request.suffix) else ""
        notes.append(f"{clip.name}: {', '.join(clip.tags)} left out{hint}")
    if background is not None:
        background.close()
        problems += background.problems
        notes += [f"{background.name}: {note}" for note in background.notes]
    for note in notes:
        complain(f"note: {note}")
    for problem in problems:
        complain(f"warning: {problem}")
    return problems


def _holds_tags(suffix: str) -> bool:
    return suffix in FORMATS and FORMATS[suffix].tags


# Arguments


def _parse(argv: Sequence[str] | None) -> Request:
    parser = make_parser(
        "video",
        "Predict the mattes of a video; write a cutout, a composite or the matte.",
        EPILOG,
    )
    add = parser.add_argument
    add(
        "input",
        metavar="INPUT",
        help="a video, an animated GIF, WebP, PNG or AVIF, a folder of images, a pattern such as "
        "frames/%%04d.png, or - for standard input",
    )
    add(
        "-o",
        "--output",
        metavar="PATH",
        help="file or folder to write, or - for standard output; default: beside the input",
    )
    add(
        "--format",
        choices=[suffix[1:] for suffix in FORMATS],
        help="for standard output and the default name (default: webm for cutouts, else mp4)",
    )
    add("--overwrite", action="store_true", help="replace a file that exists")
    add("--start", type=_seconds, default=Fraction(0), metavar="TIME", help="90, 1:30 or 0:01:30.5")
    add("--end", type=_seconds, metavar="TIME", help="likewise; times are those of the input")
    add(
        "--fps",
        type=_rate,
        metavar="N",
        help="frames a second of a folder of images, such as 25 or 30000/1001 (default: as its "
        "timestamps.txt says)",
    )
    add(
        "--keep-metadata",
        action="store_true",
        help="keep title, author, date, place and the like",
    )
    add_picture_options(
        parser,
        without=("panel", "formats", "bits", "crop", "keep_metadata"),
        helps={
            "composite": "the subject over a colour (white, '#00ff00'), an image, or a video or "
            "animation that is repeated where it is too short"
        },
        foreground="fast",
    )
    add("--crop", nargs="?", const="", help=argparse.SUPPRESS)
    add(
        "--no-steady",
        dest="steady",
        action="store_false",
        help="each frame's own matte, without the median over three frames that takes flicker out",
    )
    running = parser.add_argument_group("running")
    add_model(running)
    add_size(running)
    add_threads(running, "half of the processors")
    add_quality(running)

    args = parser.parse_args(argv)
    if args.crop is not None:
        parser.error(
            "--crop: a subject moves, and a video has one size; crop the result in an editor"
        )
    if args.end is not None and args.end <= args.start:
        parser.error("--end must be later than --start")
    if args.composite and len(args.composite) > 1:
        parser.error("--composite: a video has one background; run the command once for each")
    wanted = wanted_from(args)
    if len(wanted.kinds) > 1:
        parser.error(f"a video holds one of --{' and --'.join(wanted.kinds)}")
    output, suffix = _output(args.input, args.output, args.format, wanted.kinds[0])
    _check_output(args.input, output, suffix, wanted.kinds[0], args.overwrite)
    return Request(
        input=args.input,
        output=output,
        suffix=suffix,
        wanted=wanted,
        start=args.start,
        end=args.end,
        fps=args.fps,
        steady=args.steady,
        keep_metadata=args.keep_metadata,
        model=args.model,
        size=args.size,
        threads=args.threads,
        quality=args.quality,
    )


def _output(source: str, given: str | None, form: str | None, kind: str) -> tuple[Path | None, str]:
    """Returns the file or folder to write, None for standard output, and the suffix."""
    suffix = f".{form}" if form else KINDS[kind].video
    assert suffix is not None
    if given == "-" or (given is None and source == "-"):
        return None, suffix
    if given is None:
        path = Path(source)
        if path.is_fifo():
            raise UsageError(f"{source}: is a pipe; name the file to write with --output.")
        path = folder_of(path) if is_folder(path) else path
        stem = path.name if path.is_dir() else path.stem
        return path.absolute().with_name(f"{stem}.{kind}{suffix}"), suffix
    path = Path(given)
    if form and path.suffix.lower() != suffix:
        raise UsageError(
            f"--output {given} is no {suffix} file, as --format {form} asks for; leave out "
            f"--format, or name the file {path.with_suffix(suffix)}."
        )
    return path, path.suffix.lower()


def _check_output(
    source: str, output: Path | None, suffix: str, kind: str, overwrite: bool
) -> None:
    """Checks the output before any work is done."""
    form = FORMATS.get(suffix)
    if KINDS[kind].transparent and form is not None and form.transparent is None:
        raise UsageError(
            f"--output {output or '-'}: {form.container} files have no transparency; write .webm "
            "or .mov, or add --composite white."
        )
    if output is None:
        if sys.stdout.isatty():
            raise UsageError("standard output is a terminal; name a file: --output out.webm.")
        return
    if output.exists() and form is not None:
        if output.is_dir():
            raise UsageError(f"{output}: is a folder, expected a file.")
        if Path(source).exists() and output.samefile(source):
            raise UsageError(f"{output}: would replace the input; choose another --output.")
        if not overwrite:
            raise UsageError(f"{output} exists. Use --overwrite to replace it.")
    check_writable(output.parent)


def _seconds(text: str) -> Fraction:
    """Turns 90, 1:30 or 0:01:30.5 into seconds."""
    if not _TIME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"expected seconds, minutes:seconds or hours:minutes:seconds, received {text[:50]!r}"
        )
    seconds = Fraction(0)
    for part in text.split(":"):
        seconds = seconds * 60 + Fraction(part)
    return seconds


def _rate(text: str) -> Fraction:
    """Turns 25, 29.97 or 30000/1001 into frames a second."""
    if not _RATE.fullmatch(text) or not all(float(part) > 0 for part in text.split("/")):
        raise argparse.ArgumentTypeError(
            f"expected frames a second, such as 25 or 30000/1001, received {text[:50]!r}"
        )
    number, _, divisor = text.partition("/")
    return Fraction(number) / Fraction(divisor or 1)


if __name__ == "__main__":
    sys.exit(main())
