"""Predicts the mattes of a video, and writes a cutout, a composite or the matte."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kmatting.cli import (
    add_foreground,
    add_model,
    add_size,
    add_threads,
    command,
    make_parser,
    say,
)
from kmatting.errors import UsageError
from kmatting.files import check_writable
from kmatting.inference.compose import Colour, composite, cutout
from kmatting.inference.matter import Matter
from kmatting.networks.runtime import processors
from kmatting.quiet import quiet
from kmatting.video.ahead import map_ahead
from kmatting.video.background import Background
from kmatting.video.formats import FORMATS
from kmatting.video.frame import Frame
from kmatting.video.mattes import coarse_mattes, refined
from kmatting.video.read import open_video
from kmatting.video.write import VideoSink

_DEFAULT_SUFFIX = {"cutout": ".webm", "composite": ".mp4", "alpha": ".mp4"}

EPILOG = """\
what is written:
  The suffix of --output decides: .webm (VP9), .mov (ProRes 4444), .mp4 (H.264), .webp, .apng or
  .gif; a name without a suffix is a folder of PNG files. All but .mp4 hold a cutout. Without
  --output it is in.cutout.webm, in.composite.mp4 or in.alpha.mp4, beside in.mp4.
  Number, times and duration of the frames are those of the input, and its sound is kept.

exit status:
  0 done, 1 done but for what is damaged in an input, 2 the command cannot be run as given,
  130 interrupted, 143 terminated; then nothing is written.

examples:
  a cutout for the web, or for an editor:
    kmatting video in.mp4 -o out.webm
    kmatting video in.mp4 -o out.mov
  over a colour, an image or another video:
    kmatting video in.mp4 -o out.mp4 --composite white
    kmatting video in.mp4 -o out.mp4 --composite beach.mp4
  the matte of ten seconds:
    kmatting video in.mp4 -o matte.mp4 --alpha --start 1:20 --end 1:30
"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parse(argv)
    video = open_video(args.input)
    background = None if args.composite is None else Background(args.composite)
    sound = args.input if video.has_sound else None
    sink = VideoSink(args.output, sound, args.start, args.end, video.time_base, video.rate)
    with quiet():
        # The other steps, which run at the same time, take as long as the network.
        threads = args.threads or max(1, processors() // 2)
        matter = Matter(args.model, args.size, threads)
    mattes = coarse_mattes(video.frames(args.start, args.end), matter, args.steady)
    pictures = _pictures(mattes, args.kind, background, args.foreground)
    part = args.start or args.end is not None
    bar = tqdm(total=None if part else video.count, unit="frame", disable=not sys.stderr.isatty())
    count, empty, began = 0, 0, time.monotonic()
    with sink, bar:
        for frame, picture, is_empty in pictures:
            sink.write(picture, frame.time, frame.duration)
            count, empty = count + 1, empty + is_empty
            bar.update()
    problems = video.problems + [f"{args.input}: {problem}" for problem in sink.problems]
    notes = [f"{args.input}: {note}" for note in [*video.notes, *sink.notes]]
    if background is not None:
        background.close()
        problems += background.problems
        notes += [f"{args.composite}: {note}" for note in background.notes]
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
    if empty == count:
        print(f"warning: {args.input}: no subject found in any frame.", file=sys.stderr)
    seconds = time.monotonic() - began
    say(
        f"{count} frames done in {seconds:.1f} s ({count / seconds:.1f} frames/s), "
        f"written to {args.output}"
    )
    return 1 if problems else 0


def _pictures(
    mattes: Iterator[tuple[Frame, np.ndarray]],
    kind: str,
    background: Background | None,
    foreground: str,
) -> Iterator[tuple[Frame, np.ndarray, bool]]:
    """Makes what is written of each frame; says whether a frame has no subject."""
    Work = tuple[Frame, np.ndarray, Colour | np.ndarray | None]

    def with_scenes() -> Iterator[Work]:
        for frame, alpha in mattes:
            size = frame.photo.rgb.shape[0], frame.photo.rgb.shape[1]
            yield frame, alpha, None if background is None else background.at(frame.time, size)

    def picture(work: Work) -> tuple[Frame, np.ndarray, bool]:
        frame, alpha, scene = work
        matte = refined(frame, alpha)
        if kind == "alpha":
            image = matte.alpha_image()
        elif scene is None:
            image = cutout(matte.foreground(foreground), matte.alpha)
        else:
            image = composite(matte.foreground(foreground), matte.alpha, scene)
        return frame, np.asarray(image), matte.is_empty

    return map_ahead(picture, with_scenes())


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(
        "video",
        "Predict the mattes of a video; write a cutout, a composite or the matte.",
        EPILOG,
    )
    add = parser.add_argument
    add("input", type=Path, metavar="INPUT", help="a video, or an animated GIF, WebP, PNG or AVIF")
    add(
        "-o",
        "--output",
        type=Path,
        metavar="PATH",
        help="file or folder to write; default: beside the input",
    )
    add("--overwrite", action="store_true", help="replace a file that exists")
    add("--start", type=_seconds, default=Fraction(0), metavar="TIME", help="90, 1:30 or 0:01:30.5")
    add("--end", type=_seconds, metavar="TIME", help="likewise; times are those of the input")

    kinds = parser.add_argument_group("output", "the cutout, if none is chosen")
    add = kinds.add_mutually_exclusive_group().add_argument
    add("--alpha", action="store_true", help="the matte, in grey")
    add(
        "--composite",
        metavar="COLOUR|IMAGE|VIDEO",
        help="the subject over a colour (white, '#00ff00'), an image, or a video or animation that "
        "is repeated where it is too short",
    )
    add_foreground(kinds, default="fast")
    kinds.add_argument(
        "--no-steady",
        dest="steady",
        action="store_false",
        help="each frame's own matte, without the median over three frames that takes flicker out",
    )

    running = parser.add_argument_group("running")
    add_model(running)
    add_size(running)
    add_threads(running, "half of the processors")

    args = parser.parse_args(argv)
    args.kind = "alpha" if args.alpha else "cutout" if args.composite is None else "composite"
    if args.end is not None and args.end <= args.start:
        parser.error("--end must be later than --start")
    _check_output(parser, args)
    return args


def _check_output(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Completes `output`, and checks it before any work is done."""
    if args.output is None:
        suffix = _DEFAULT_SUFFIX[args.kind]
        args.output = args.input.with_name(f"{args.input.stem}.{args.kind}{suffix}")
    form = FORMATS.get(args.output.suffix.lower())
    if args.kind == "cutout" and form is not None and form.transparent is None:
        parser.error(
            f"--output {args.output}: {form.container} files have no transparency; write .webm or "
            ".mov, or add --composite white"
        )
    if args.output.exists() and form is not None:
        if args.output.is_dir():
            raise UsageError(f"{args.output}: is a folder, expected a file.")
        if args.input.exists() and args.output.samefile(args.input):
            raise UsageError(f"{args.output}: would replace the input; choose another --output.")
        if not args.overwrite:
            raise UsageError(f"{args.output} exists. Use --overwrite to replace it.")
    check_writable(args.output.parent)


def _seconds(text: str) -> Fraction:
    """Turns 90, 1:30 or 0:01:30.5 into seconds."""
    try:
        parts = [Fraction(part) for part in text.split(":")]
    except (ValueError, ZeroDivisionError):
        parts = []
    if not 1 <= len(parts) <= 3 or any(part < 0 for part in parts):
        raise argparse.ArgumentTypeError(
            f"expected seconds, minutes:seconds or hours:minutes:seconds, received {text!r}"
        )
    seconds = Fraction(0)
    for part in parts:
        seconds = seconds * 60 + part
    return seconds


if __name__ == "__main__":
    sys.exit(main())
