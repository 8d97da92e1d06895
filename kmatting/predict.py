"""Predicts the mattes of photos, and writes mattes, cutouts, composites or panels."""

import argparse
import contextlib
import errno
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from kmatting.bugs import BugCounter, attempt
from kmatting.cli import add_model, add_quality, add_size, add_threads, command, make_parser, say
from kmatting.errors import Error, ImageWarning, UsageError
from kmatting.files import check_folder
from kmatting.images import Source, read_photo
from kmatting.images.formats import format_written
from kmatting.inference.matter import Matter
from kmatting.pictures.jobs import STREAM, Output, find_photos, plan
from kmatting.pictures.kinds import KINDS, Scenes
from kmatting.pictures.maker import make_pictures, read_backgrounds
from kmatting.pictures.matte import Matte
from kmatting.pictures.names import Job
from kmatting.pictures.wanted import Wanted, add_picture_options, wanted_from
from kmatting.quiet import quiet
from kmatting.sizes import Quality, Size, size_text
from kmatting.terminal import complain, progress

# Errors that every later photo would meet too.
_FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EPIPE)
_SHREDS = "small parts lie apart from the subject; --only-largest removes them"
# Of pictures that neither Pillow nor the host's table of types knows.
_OTHER_PICTURES = (
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".raw", ".hdr"),
    *(".hif", ".jxl", ".psb", ".xcf", ".kra"),
)
_SAME = {".jpeg": ".jpg", ".tiff": ".tif"}

EPILOG = """\
what is written:
  The cutout of photo.jpg is photo.cutout.png; likewise photo.alpha.png, photo.composite.png and
  photo.panel.png. It goes beside the photo, or into DIR with --output DIR, where --recursive keeps
  the folders. --output FILE names the file of a single photo, and its suffix the format: .png,
  .tif, .webp or .avif for cutouts, also .jpg or .bmp for composites and panels; .png, .tif or .bmp
  for mattes. --output - is standard output.

exit status:
  0 all photos done, 1 some could not be read or written (one line each on standard error),
  2 the command cannot be run as given, 70 some met a bug of kmatting, 130 interrupted,
  143 terminated.

examples:
  cut out one photo:
    kmatting predict photo.jpg
    kmatting predict photo.jpg -o cutout.png
  the mattes of a folder, for kmatting evaluate --predictions:
    kmatting predict photos -o mattes --alpha
  a product photo for a shop, on a white square with a soft shadow:
    kmatting predict photo.jpg -o shop.jpg --composite white --crop 10% --canvas 2000 --shadow
  over several backgrounds, as JPEG:
    kmatting predict photos -o out --composite white --composite beach.jpg --composite-format jpg
  with a model of your own:
    kmatting predict photos -o out --model runs/mine/best.keras
  in a pipe:
    kmatting predict - < photo.jpg > cutout.png
"""


@dataclass(frozen=True)
class _Request:
    """What the command line asks for.

    Attributes:
        inputs: photos and folders; `STREAM` for standard input.
        recursive: whether to search the folders in folders too.
        wanted: what is made.
        output: where it goes.
        model: path of the model; the shipped one if None.
        size: as in `Matter`.
        threads: as in `Matter`.
        quality: as in `Matter`.
        verbose: whether to name the model and the terms of its weights.
    """

    inputs: tuple[str, ...]
    recursive: bool
    wanted: Wanted
    output: Output
    model: str | None
    size: Size | None
    threads: int | None
    quality: Quality
    verbose: bool


@dataclass
class _Tally:
    """What became of the photos."""

    done: int = 0
    failed: int = 0
    with_shreds: list[str] = field(default_factory=list)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    request = _parse(argv)
    wanted, output = request.wanted, request.output
    if request.inputs == (STREAM,):
        photos = [(Path(STREAM), Path())]
    else:
        photos = find_photos(request.inputs, request.recursive, output.folder)
    jobs = plan(photos, output, wanted)
    if not jobs:
        say("nothing to do: all outputs exist.")
        return 0
    scenes = read_backgrounds(wanted)
    matter = _load(request)
    if request.verbose:
        size = size_text(matter.fixed_size or matter.size or 0)
        terms = matter.licence or "the model does not state them"
        complain(f"model: {matter.path}, at {size} pixels. Terms: {terms}.")
    bugs, tally = BugCounter(), _Tally()
    try:
        with _own_remarks():
            for job, outcome in progress(_work(jobs, matter, wanted, scenes), len(jobs), "photo"):
                _report(job, outcome, bugs, tally)
    except (KeyboardInterrupt, Exception) as error:
        error.add_note(
            f"{tally.done} of {len(jobs)} photos are done; rerun with --skip-existing to continue"
        )
        raise
    _conclude(tally, jobs, output)
    return bugs.status(1 if tally.failed else 0)


def _load(request: _Request) -> Matter:
    """Loads the model."""
    with quiet():
        return Matter(request.model, request.size, request.threads, request.quality)


@dataclass(frozen=True)
class _Made:
    """A photo that is done.

    Attributes:
        remarks: what the user should know of it, in a phrase each.
        has_shreds: whether to suggest `--only-largest`.
    """

    remarks: list[str]
    has_shreds: bool


def _work(
    jobs: Sequence[Job], matter: Matter, wanted: Wanted, scenes: Scenes
) -> Iterator[tuple[Job, _Made | Exception]]:
    """Makes the files, of several photos at a time; yields what became of each."""
    if len(jobs) == 1:  # with all processors
        (job,) = jobs
        yield job, attempt(lambda: _make(job, _matte(job, matter), wanted, scenes))
        return
    by_photo = {job.photo: job for job in jobs}

    def made(photo: Source, matte: Matte) -> _Made:
        return _make(by_photo[str(photo)], matte, wanted, scenes)

    for photo, outcome in matter.map(made, by_photo, catch=Exception):
        yield by_photo[str(photo)], outcome


def _matte(job: Job, matter: Matter) -> Matte:
    if job.photo == STREAM:
        return matter(read_photo(sys.stdin.buffer.read(), warn=False))
    return matter(job.photo)


def _make(job: Job, matte: Matte, wanted: Wanted, scenes: Scenes) -> _Made:
    """Makes and writes the files of one photo."""
    remarks = matte.remarks()
    for picture in make_pictures(matte, wanted, scenes, job.outputs):
        file = job.outputs[picture.name]
        if file == STREAM:
            sys.stdout.buffer.write(picture.encode())
            sys.stdout.buffer.flush()
        else:
            picture.write(file)
        remarks += [remark for remark in picture.remarks if remark not in remarks]
    return _Made(remarks, not wanted.only_largest and matte.has_shreds)


def _report(job: Job, outcome: _Made | Exception, bugs: BugCounter, tally: _Tally) -> None:
    """Counts what became of a photo; prints an error or a warning.

    Raises:
        Exception: the outcome, if every later photo would fail by it, too.
    """
    name = "standard input" if job.photo == STREAM else job.photo
    if isinstance(outcome, OSError) and outcome.errno in _FATAL:
        raise outcome
    if problem := bugs.problem(outcome):
        tally.failed += 1
        text = problem.removeprefix("image: ").removeprefix(f"{name}: ")
        complain(f"error: {name}: {text}")
        return
    assert isinstance(outcome, _Made)
    tally.done += 1
    if outcome.remarks:
        complain(f"warning: {name}: {'; '.join(outcome.remarks)}.")
    if outcome.has_shreds:
        tally.with_shreds.append(name)


def _conclude(tally: _Tally, jobs: Sequence[Job], output: Output) -> None:
    """Prints what was done."""
    if len(tally.with_shreds) == 1:
        complain(f"note: {tally.with_shreds[0]}: {_SHREDS}.")
    elif tally.with_shreds:
        complain(
            f"note: in {len(tally.with_shreds)} photos, such as {tally.with_shreds[0]}, {_SHREDS}."
        )
    if output.file == STREAM:
        return
    files = [file for job in jobs for file in job.outputs.values()]
    if len(files) > 1:
        files = [str(output.folder or "the folders of the photos")]
    where = f", written to {files[0]}" if tally.done else ""
    say(f"{tally.done} of {len(jobs)} photos done{where}")


@contextlib.contextmanager
def _own_remarks() -> Iterator[None]:
    """Leaves it to `_report` to say that a file holds several frames."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImageWarning)
        yield


# The command line


def _parse(argv: Sequence[str] | None) -> _Request:
    parser = make_parser(
        "predict",
        "Predict the mattes of photos; write cutouts, mattes, composites or panels.",
        EPILOG,
    )
    parser.usage = "%(prog)s INPUT [INPUT ...] [--output PATH] [options]"
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="photos, folders, or - for standard input")
    add(
        "-o",
        "--output",
        metavar="PATH",
        help="file to write, folder (made if needed), or - for standard output; default: beside "
        "each photo",
    )
    add("--recursive", action="store_true", help="search the folders in folders too")
    add(
        "--keep-suffix",
        action="store_true",
        help="photo.jpg gives photo.jpg.cutout.png, so that photo.jpg and photo.png do not clash",
    )
    add_picture_options(parser)
    running = parser.add_argument_group("running")
    add_model(running)
    add_size(running)
    add_threads(running)
    add_quality(running)
    running.add_argument(
        "--verbose", action="store_true", help="name the model and the terms of its weights"
    )
    existing = running.add_mutually_exclusive_group()
    add = existing.add_argument
    add("--skip-existing", action="store_true", help="make only the files that do not exist yet")
    add("--overwrite", action="store_true", help="replace files that exist")
    args = parser.parse_args(argv)
    try:
        return _request(args)
    except UsageError as error:
        parser.error(str(error))


def _request(args: argparse.Namespace) -> _Request:
    wanted = wanted_from(args)
    inputs = tuple(args.inputs)
    if STREAM in inputs and len(inputs) > 1:
        raise UsageError("standard input (-) cannot be combined with other inputs.")
    path = STREAM if args.output is None and inputs == (STREAM,) else args.output
    file = folder = None
    if path is None or path == STREAM:
        file = path
    elif Path(path).is_dir() or format_written(Path(path).suffix) is None:
        folder = Path(path)
        _check_folder(folder, wanted)
    else:
        file = path
    if file is not None:
        wanted = _for_one_file(file, inputs, wanted)
    if folder is not None and inputs == (STREAM,):
        raise UsageError("standard input (-) is written to standard output, or to --output FILE.")
    output = Output(file, folder, args.keep_suffix, args.skip_existing, args.overwrite)
    running = args.model, args.size, args.threads, args.quality, args.verbose
    return _Request(inputs, args.recursive, wanted, output, *running)


def _check_folder(folder: Path, wanted: Wanted) -> None:
    """Refuses a folder whose name is that of a file which cannot be written."""
    if folder.is_dir() or not folder.suffix:
        return
    try:
        check_folder(folder, "--output")
        is_file = folder.suffix.lower() in (*_OTHER_PICTURES, *Image.registered_extensions())
    except UsageError:
        is_file = True
    if is_file:
        suffixes = [suffix for kind in wanted.kinds for suffix in KINDS[kind].suffixes]
        raise UsageError(
            f"--output {folder}: {folder.suffix.lower()} files cannot be written; expected "
            f"{', '.join(dict.fromkeys(suffixes))}, or a folder."
        )


def _for_one_file(file: str, inputs: Sequence[str], wanted: Wanted) -> Wanted:
    """Checks that one file is wanted of one photo; takes its format from its suffix."""
    names = list(wanted.outputs)
    if len(inputs) > 1 or Path(inputs[0]).is_dir():
        raise UsageError(f"--output {file} is one file; for several photos, name a folder.")
    if len(names) > 1:
        raise UsageError(f"--output {file} is one file, but {' and '.join(names)} were chosen.")
    (kind,) = wanted.kinds
    if file == STREAM:
        if sys.__stdout__ is None:
            raise Error("standard output is closed; name a file with --output.")
        if sys.stdout.isatty():
            raise UsageError("standard output is a terminal; name a file: --output cutout.png")
        return wanted
    suffix = Path(file).suffix.lower()
    chosen = wanted.formats.get(kind, suffix)
    if _SAME.get(suffix, suffix) != _SAME.get(chosen, chosen):
        raise UsageError(f"--output {file} and --{kind}-format {chosen[1:]} contradict each other.")
    if suffix not in KINDS[kind].suffixes:
        hint = " (or add --composite white)" if kind == "cutout" else ""
        allowed = ", ".join(KINDS[kind].suffixes)
        raise UsageError(f"--output {file}: expected {allowed} for the {kind}{hint}.")
    return replace(wanted, formats={kind: suffix})


if __name__ == "__main__":
    sys.exit(main())
