"""Takes mattes of any number of photos with Apache Beam, on this machine or on many."""

import argparse
import contextlib
import importlib.util
import io
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from kmatting.inference.foreground import FOREGROUND_METHODS

if TYPE_CHECKING:
    from apache_beam import Pipeline
    from apache_beam.options.pipeline_options import PipelineOptions

    from kmatting.batch.pipeline import Settings, Summary

_SILENT = logging.CRITICAL + 1

EPILOG = """\
what is written:
  With one kind of output, DIR/NAME.png; with both, DIR/alpha/NAME.png and DIR/cutout/NAME.png. NAME
  is the photo's path below the folder in which all globs begin, without its suffix; photos that
  would get the same name keep their suffix (a.jpg.png, a.webp.png).
  A file appears when all of it is there, and what is there is not made again: after a crash, or for
  new photos, give the same command once more (for another model or other outputs, another DIR).
  Photos that cannot be read go to DIR/errors.jsonl, one line of JSON each with "photo" and
  "reason". One job at a time for a DIR.

runners:
  Options that are not listed here go to Beam: --runner FlinkRunner, SparkRunner, DataflowRunner
  ... with those of the runner. Without --runner, Beam's local one works on this machine, by
  default in this process. Paths may be local, gs:// (pip install 'apache-beam[gcp]') or s3://
  ('apache-beam[aws]'); other machines see only such as all of them can reach, and need kmatting
  installed. docs/scale.md has more.

progress:
  A bar with --workers 1; else count the files in DIR. Other runners show the counters found,
  done, skipped and failed of "kmatting" on their own pages.

exit status:
  0 all photos done, 1 some failed, 2 the command cannot be run as given, 3 the job broke off (the
  same command goes on), 130 interrupted.

examples:
  mattes of a tree of folders, four processes:
    python -m kmatting.batch --input 'photos/**.jpg' 'photos/**.png' --output mattes --workers 4
  on Dataflow:
    python -m kmatting.batch --model gs://mine/model.tflite --input 'gs://mine/photos/**.jpg' \\
      --output gs://mine/mattes --runner DataflowRunner --project mine --region europe-west4 \\
      --temp_location gs://mine/temp --sdk_container_image IMAGE --threads 1
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args, beam_arguments = _parse(argv)
    try:
        settings, patterns, pipeline = _prepare(args, beam_arguments)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    from kmatting.batch import pipeline as beam

    start = time.monotonic()
    try:
        in_terminal = sys.stderr.isatty() and not args.runner and args.workers == 1
        with _bar(in_terminal), _without_tracebacks(not args.verbose):
            summary = beam.run(pipeline, patterns, settings)
    # Whatever a runner raises, and workers on other machines.
    except (KeyboardInterrupt, Exception) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        if "KeyboardInterrupt" in reason:  # Beam may have wrapped it
            print(
                "interrupted; what is written is whole, the same command goes on.", file=sys.stderr
            )
            return 130
        if args.verbose:
            raise
        print(
            f"error: the job broke off: {reason} What is written is whole, the same command goes "
            "on; --verbose shows more.",
            file=sys.stderr,
        )
        return 3
    _report(summary, time.monotonic() - start, args.output)
    return 1 if summary.counts["failed"] else 0


def _prepare(
    args: argparse.Namespace, beam_arguments: Sequence[str]
) -> "tuple[Settings, list[str], Pipeline]":
    """Finds out before the job starts whether it can run."""
    if importlib.util.find_spec("apache_beam") is None:
        raise ValueError("Apache Beam is missing: pip install 'kmatting[beam]'.")
    if args.workers < 1:
        raise ValueError(f"Expected at least 1 worker, received {args.workers}.")
    if args.workers > 1 and args.runner:
        raise ValueError(f"--workers is for the local runner; {args.runner} has its own options.")
    logging.basicConfig(level=_SILENT)
    from apache_beam import Pipeline

    from kmatting.batch import pipeline as beam

    # Other runners say in their messages where the job can be watched.
    level = logging.INFO if args.verbose or args.runner else _SILENT
    logging.getLogger().setLevel(level)
    threads = args.threads
    if threads is None and (args.workers > 1 or args.runner):
        threads = 1  # there is a process for each processor
    settings = beam.Settings(
        model=args.model and beam.absolute(args.model),
        output=beam.absolute(args.output),
        kinds=tuple(kind for kind in beam.KINDS if getattr(args, kind)) or ("alpha",),
        foreground=args.foreground,
        size=args.size,
        threads=threads,
    )
    patterns = [beam.absolute(pattern) for pattern in args.input]
    options = _beam_options(args, beam_arguments, level)
    if args.runner:
        pipeline = Pipeline(args.runner, options)
    else:
        pipeline = Pipeline(beam.local_runner(options, args.verbose), options)
    beam.check_files(settings, patterns)
    return settings, patterns, pipeline


def _beam_options(
    args: argparse.Namespace, arguments: Sequence[str], level: int
) -> "PipelineOptions":
    """Makes Beam's options; refuses what the local runner would pass over in silence."""
    from apache_beam.options.pipeline_options import PipelineOptions

    own = ("--direct_running_mode", "--direct_num_workers")
    for argument in arguments:
        if not args.runner and argument.startswith(own):
            raise ValueError(f"{argument}: say --workers N instead.")
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
        raise ValueError(errors.getvalue().strip().rpartition("error: ")[2]) from error
    if not args.runner:
        unknown = set(options.get_all_options(retain_unknown_options=True)) - set(known)
        if unknown:
            names = ", ".join(f"--{name}" for name in sorted(unknown))
            raise ValueError(f"{names}: neither this command nor Beam has this option; see --help.")
    return options


@contextlib.contextmanager
def _without_tracebacks(hidden: bool) -> Iterator[None]:
    """Hides what Beam prints of an error beside raising it."""
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
def _bar(shown: bool) -> Iterator[None]:
    """Shows a progress bar of what the workers in this process log."""
    if not shown:
        yield
        return
    logger = logging.getLogger("kmatting.batch.pipeline")
    with tqdm(total=0, unit="photo") as bar:
        handler = _Count(bar)
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        try:
            yield
        finally:
            logger.removeHandler(handler)


class _Count(logging.Handler):
    """Moves a progress bar."""

    def __init__(self, bar: tqdm) -> None:
        super().__init__()
        self._bar = bar
        self._matched = 0

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg == "matched":
            self._matched += 1
            self._bar.total = self._matched
        elif record.msg != "found":
            self._bar.update()


def _report(summary: "Summary", seconds: float, output: str) -> None:
    counts = summary.counts
    print(
        f"photos: {counts['found']} found, {counts['done']} done, {counts['skipped']} skipped, "
        f"{counts['failed']} failed; written to {output}"
    )
    if counts["done"]:
        steps = ", ".join(f"{step} {value:.3f}" for step, value in summary.seconds.items())
        print(
            f"{sum(summary.seconds.values()):.3f} seconds per image in a worker ({steps}), "
            f"{counts['done'] / seconds:.2f} images per second in all"
        )
    if counts["failed"]:
        print(f"the photos that failed, and why: {output}/errors.jsonl", file=sys.stderr)


def _parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m kmatting.batch",
        usage="%(prog)s --input GLOB [GLOB ...] --output DIR [options]",
        description="Takes mattes of any number of photos by Apache Beam, on one machine or many.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--model",
        help="a .keras file, a SavedModel folder or a .tflite file (default: the shipped model)",
    )
    add(
        "--input",
        required=True,
        nargs="+",
        metavar="GLOB",
        help="photos, in quotes; * stays in a folder, ** goes into its folders too",
    )
    add(
        "--output", required=True, metavar="DIR", help="folder to write to; made if it is not there"
    )
    add("--alpha", action="store_true", help="the matte as a grey PNG (default, without --cutout)")
    add("--cutout", action="store_true", help="the subject on transparency, as a PNG")
    add(
        "--foreground",
        choices=FOREGROUND_METHODS,
        default="ml",
        help="colours of cutouts, as in kmatting.predict (default: %(default)s)",
    )
    add("--size", type=int, help="the network sees a photo at about SIZE x SIZE pixels")
    add(
        "--threads",
        type=int,
        help="processor threads of the network in each worker process (default: all; 1 where "
        "there are several workers)",
    )
    add("--runner", help="where Beam runs the job (default: here, on its local runner)")
    add(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="worker processes of the local runner (default: %(default)s)",
    )
    add("--verbose", action="store_true", help="Beam's messages, and tracebacks of errors")
    return parser.parse_known_args(argv)


if __name__ == "__main__":
    status = main()
    if status in (3, 130):  # else Beam's threads would first finish all photos
        os._exit(status)
    sys.exit(status)
