"""Predicts any number of photos with Apache Beam, on this machine or on many."""

import argparse
import contextlib
import dataclasses
import io
import logging
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from PIL import ImageColor
from tqdm import tqdm

from kmatting import terminal
from kmatting.bugs import MANY_BUGS, MOST_IN_A_ROW, STATUS, print_bug, request_report
from kmatting.cli import (
    TerminatedError,
    add_model,
    add_quality,
    add_size,
    add_threads,
    at_least,
    command,
    complain,
    leave,
    make_parser,
    say,
)
from kmatting.errors import UsageError
from kmatting.images import Listing
from kmatting.networks.shipped import is_shipped
from kmatting.pictures.wanted import Wanted, add_picture_options, wanted_from

if TYPE_CHECKING:
    from apache_beam import Pipeline
    from apache_beam.options.pipeline_options import PipelineOptions

    from kmatting.batch.pipeline import Settings, Summary
    from kmatting.batch.storage import Glob

_SILENT = logging.CRITICAL + 1
_INTERVAL = 0.5  # seconds between two looks at the progress
_CONTINUE = "files written so far are complete; run the same command to continue"

EPILOG = """\
input:
  A photo, a folder with all folders in it, or a glob in quotes: * stays in a folder, ** goes into
  folders too. Letters match in any case. A local folder that exists under the very name is taken
  literally, even if it has [, ], ? or * in its name. Hidden files are left out.

what is written:
  DIR/NAME.alpha.png, DIR/NAME.cutout.png and so on, as kmatting predict names them. NAME is the
  photo's path below the folder in which all inputs lie, without its suffix. Photos that would be
  written to one file (a.jpg, a.webp) fail; --keep-suffix names their files a.jpg.alpha.png and
  a.webp.alpha.png.
  A file appears once it is whole, and a file that exists is not made again: after a crash, or for
  new photos, give the same command again (for another model or other outputs, another DIR). Where
  it may have been made of another photo in the same folder, the photo fails.
  Photos that fail are listed in DIR/errors.jsonl, one line of JSON each with "photo" and "reason".
  Remarks, such as that only the first of several frames is cut out, stand in DIR/warnings.jsonl.
  Run one job at a time for a DIR.

runners:
  Options that are not listed here go to Beam: --runner FlinkRunner, SparkRunner, DataflowRunner
  ... and those of the runner. Without --runner, Beam's local runner works on this machine. Paths
  may be local, gs:// (pip install "apache-beam[gcp]") or s3:// ("apache-beam[aws]"); other machines
  need paths that all of them can reach, and kmatting installed. See docs/scale.md.

progress:
  A bar with --workers 1 (a line each minute where there is no terminal); else count the files in
  DIR. Other runners show the counters found, done, skipped and failed of "kmatting" on their own
  pages.

exit status:
  0 all photos done, 1 some failed, 2 the command cannot be run as given, 3 the job broke off (run
  the same command to continue), 70 a bug of kmatting, 130 interrupted, 143 terminated.

examples:
  the mattes of a tree of folders, with four processes:
    kmatting batch --input photos --output mattes --workers 4
  on Dataflow:
    kmatting batch --model gs://mine/model.tflite --input 'gs://mine/photos/**.jpg' \\
      --output gs://mine/mattes --runner DataflowRunner --project mine --region europe-west4 \\
      --temp_location gs://mine/temp --sdk_container_image IMAGE --threads 1
"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args, beam_arguments = _parse(argv)
    settings, globs, pipeline = _prepare(args, beam_arguments)
    from kmatting.batch import pipeline as beam
    from kmatting.batch.local import stopping_workers

    start = time.monotonic()
    with stopping_workers() as signals:
        try:
            shown = not args.runner and args.workers == 1
            with _progress(beam.here, shown), _without_tracebacks(not args.verbose):
                summary = beam.run(pipeline, globs, settings)
        # Whatever a runner raises, and workers on other machines.
        except (KeyboardInterrupt, Exception) as error:
            return _broken_off(error, signals, args.verbose)
    return _report(summary, time.monotonic() - start, args.output)


def _broken_off(error: BaseException, signals: Sequence[int], verbose: bool) -> int:
    """Prints why a job broke off; returns the exit status, or raises an interruption."""
    text = str(error).strip()
    reason = (text.splitlines() or [type(error).__name__])[-1]
    if stop := _interruption(error, reason, signals):
        stop.add_note(_CONTINUE)
        raise stop from error
    if MANY_BUGS in text:
        print_bug(error)
        complain(f"error: the job broke off after {MOST_IN_A_ROW} internal errors; {_CONTINUE}.")
        return STATUS
    if verbose:
        raise error
    complain(f"error: the job broke off: {reason.rstrip('.')}; {_CONTINUE}; --verbose shows more.")
    return 3


def _interruption(
    error: BaseException, reason: str, signals: Sequence[int]
) -> KeyboardInterrupt | None:
    """Returns the interruption that an error is, or that Beam wrapped in it or dropped for it."""
    if isinstance(error, KeyboardInterrupt):
        return error
    if TerminatedError.__name__ in reason or signal.SIGTERM in signals:
        return TerminatedError()
    return KeyboardInterrupt() if "KeyboardInterrupt" in reason or signals else None


def _prepare(
    args: argparse.Namespace, beam_arguments: Sequence[str]
) -> "tuple[Settings, list[Glob], Pipeline]":
    """Finds out before the job starts whether it can run."""
    if args.workers > 1 and args.runner:
        raise UsageError(f"--workers is for the local runner; {args.runner} has its own options.")
    logging.basicConfig(level=_SILENT)
    from apache_beam import Pipeline

    from kmatting.batch import pipeline as beam
    from kmatting.batch.local import local_runner
    from kmatting.batch.storage import absolute, check_scheme, read_glob

    # Other runners say in their messages where the job can be watched.
    level = logging.INFO if args.verbose or args.runner else _SILENT
    logging.getLogger().setLevel(level)
    threads = args.threads
    if threads is None and (args.workers > 1 or args.runner):
        threads = 1  # there is a process for each processor
    for path in [*args.input, args.output, *([args.model] if args.model else [])]:
        check_scheme(path)
    settings = beam.Settings(
        model=args.model if not args.model or is_shipped(args.model) else absolute(args.model),
        output=absolute(args.output),
        wanted=_for_all_workers(wanted_from(args, "alpha")),
        size=args.size,
        threads=threads,
        quality=args.quality,
        keep_suffix=args.keep_suffix,
    )
    globs = [read_glob(text) for text in args.input]
    options = _beam_options(args, beam_arguments, level)
    beam.check_files(settings, globs)
    # Last, as it makes a folder for temporary files, which stays if nothing runs.
    runner = args.runner or local_runner(options, args.verbose)
    try:
        pipeline = Pipeline(runner, options)
    except ValueError as error:  # no such runner
        raise UsageError(str(error)) from error
    return settings, globs, pipeline


def _for_all_workers(wanted: Wanted) -> Wanted:
    """Makes the paths of local backgrounds absolute."""
    from kmatting.batch.storage import absolute

    def place(background: Any) -> Any:
        try:
            ImageColor.getrgb(background)
        except ValueError:  # no colour
            return absolute(background)
        return background

    return dataclasses.replace(wanted, backgrounds=tuple(map(place, wanted.backgrounds)))


def _beam_options(
    args: argparse.Namespace, arguments: Sequence[str], level: int
) -> "PipelineOptions":
    """Makes Beam's options; refuses those that the local runner would ignore in silence."""
    from apache_beam.options.pipeline_options import PipelineOptions

    own = ("--direct_running_mode", "--direct_num_workers")
    for argument in arguments:
        if not args.runner and argument.startswith(own):
            raise UsageError(f"{argument}: use --workers N instead.")
    defaults = [f"--default_sdk_harness_log_level={level}"]
    if args.runner:
        defaults += [f"--runner={args.runner}"]
    else:
        defaults += [f"--direct_num_workers={args.workers}"]
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):  # a wrong value, after all options there are
            options = PipelineOptions([*defaults, *arguments])
            known = options.get_all_options()
    except SystemExit as error:
        raise UsageError(errors.getvalue().strip().rpartition("error: ")[2]) from error
    if not args.runner:
        unknown = set(options.get_all_options(retain_unknown_options=True)) - set(known)
        if unknown:
            names = ", ".join(f"--{name}" for name in sorted(unknown))
            raise UsageError(f"{names}: neither this command nor Beam has this option; see --help.")
    return options


@contextlib.contextmanager
def _without_tracebacks(hidden: bool) -> Iterator[None]:
    """Hides what Beam prints of an error besides raising it."""
    if not hidden:
        yield
        return
    former = threading.excepthook
    threading.excepthook = lambda _: None  # of a thread that waited for a worker that was killed
    try:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
            yield
    finally:
        threading.excepthook = former


@contextlib.contextmanager
def _progress(counts: Counter[str], shown: bool) -> Iterator[None]:
    """Shows what the steps in this process have counted: a bar, or a line now and then."""
    if not shown:
        yield
        return
    counts.clear()
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(counts, ended, sys.stderr), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _watch(counts: Counter[str], ended: threading.Event, stream: IO[str]) -> None:
    """Draws progress on a stream until the job has ended; standard error itself is redirected."""

    def done() -> int:
        return sum(counts[outcome] for outcome in ("done", "skipped", "failed"))

    start = time.monotonic()
    if stream.isatty():
        with tqdm(total=0, unit="photo", file=stream) as bar:
            while not ended.wait(_INTERVAL):
                bar.total, bar.n = counts["matched"], done()
                bar.refresh()
            bar.total, bar.n = counts["matched"], done()
        return
    due = terminal.FIRST_LINE
    while not ended.wait(_INTERVAL):
        seconds = time.monotonic() - start
        if seconds >= due and done():
            line = terminal.progress_line(done(), counts["matched"], "photo", "", seconds)
            print(line, file=stream, flush=True)
            due = seconds + terminal.EACH_LINE


def _report(summary: "Summary", seconds: float, output: str) -> int:
    """Prints what a job did; returns the exit status."""
    from kmatting.batch.pipeline import first_traceback

    counts = summary.counts
    lines = [
        f"photos: {counts['found']} found, {counts['done']} done, {counts['skipped']} skipped, "
        f"{counts['failed']} failed; written to {output}"
    ]
    if counts["done"]:
        steps = ", ".join(f"{step} {value:.3f}" for step, value in summary.seconds.items())
        lines.append(
            f"{sum(summary.seconds.values()):.3f} seconds per image in a worker ({steps}), "
            f"{counts['done'] / seconds:.2f} images per second in all"
        )
    say("\n".join(lines))
    left_out = dict(summary.left_out)
    outputs = left_out.pop("outputs", 0)
    if outputs:
        complain(f"note: left out {outputs} outputs of kmatting")
    if left_out:
        complain(f"note: {Listing([], left_out).note()}")
    if counts["warned"]:
        complain(
            f"note: there is a remark on {counts['warned']} photos, such as that only the first of "
            f"several frames is cut out: {output}/warnings.jsonl"
        )
    if counts["internal_errors"]:
        complain(first_traceback(output) + request_report())
    if counts["failed"]:
        complain(f"the photos that failed, and why: {output}/errors.jsonl")
    if counts["internal_errors"]:
        return STATUS
    return 1 if counts["failed"] else 0


def _parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = make_parser(
        "batch", "Predict any number of photos with Apache Beam, on one machine or many.", EPILOG
    )
    parser.usage = "%(prog)s --input INPUT [INPUT ...] --output DIR [options]"
    parser.allow_abbrev = False
    add = parser.add_argument
    add_model(parser)
    add(
        "--input",
        required=True,
        nargs="+",
        metavar="INPUT",
        help="photos, folders, or globs in quotes",
    )
    add("--output", required=True, metavar="DIR", help="folder to write to; made if needed")
    add("--keep-suffix", action="store_true", help="photo.jpg gives photo.jpg.alpha.png")
    add_picture_options(parser, default="alpha")
    add_size(parser)
    add_threads(parser)
    add_quality(parser)
    add("--runner", help="where Beam runs the job (default: on this machine)")
    add(
        "--workers",
        type=at_least(1),
        default=1,
        metavar="N",
        help="worker processes of the local runner (default: %(default)s); with more than one, "
        "--threads is 1 by default",
    )
    add("--verbose", action="store_true", help="show Beam's messages, and tracebacks of errors")
    return parser.parse_known_args(argv)


if __name__ == "__main__":
    leave(main())  # at once after an error, or Beam's threads would first finish all photos
