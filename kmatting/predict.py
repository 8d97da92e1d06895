"""Predicts the mattes of photos, and writes mattes, cutouts, composites or panels."""

import argparse
import contextlib
import errno
import io
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from kmatting.cli import (
    add_foreground,
    add_model,
    add_size,
    add_threads,
    at_least,
    command,
    make_parser,
    say,
)
from kmatting.errors import Error, ImageError, ImageWarning, UsageError
from kmatting.files import check_writable
from kmatting.images import Source, save_image, scan_folder, write_image
from kmatting.inference.compose import (
    LOSSY_QUALITY,
    Colour,
    composite,
    cutout,
    metadata_options,
    read_background,
    with_metadata,
)
from kmatting.inference.matte import Matte
from kmatting.inference.matter import Matter
from kmatting.pictures.names import (
    Job,
    check_names,
    composite_kinds,
    is_output,
    name_clash,
    output_name,
)
from kmatting.quiet import quiet

# Suffixes that `--output FILE` may have, by what is written.
_SUFFIXES = {
    "alpha": (".png",),
    "cutout": (".png", ".webp"),
    "composite": (".png", ".jpg", ".jpeg", ".webp"),
    "panel": (".png", ".jpg", ".jpeg", ".webp"),
}
Backgrounds = dict[str, Colour | np.ndarray]  # by the kind of the composite
T = TypeVar("T")
# Errors that every later photo would meet too.
_FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

EPILOG = """\
what is written:
  The cutout of photo.jpg is photo.cutout.png; likewise photo.alpha.png, photo.composite.png and
  photo.panel.png. It goes beside the photo, or into DIR with --output DIR, where --recursive keeps
  the folders. --output FILE names the file of a single photo: .png, or .webp for cutouts, or .jpg
  for composites and panels.

exit status:
  0 all photos done, 1 some could not be read or written (one line each on standard error),
  2 the command cannot be run as given, 130 interrupted, 143 terminated.

examples:
  cut out one photo:
    kmatting predict photo.jpg
    kmatting predict photo.jpg -o cutout.png
  the mattes of a folder, for kmatting evaluate --predictions:
    kmatting predict photos -o mattes --alpha
  a product photo over white:
    kmatting predict photo.jpg -o white.jpg --composite white --crop 20
  over several backgrounds, as JPEG:
    kmatting predict photos -o out --composite white --composite beach.jpg --composite-format jpg
  with a model of your own:
    kmatting predict photos -o out --model runs/mine/best.keras
  in a pipe:
    kmatting predict - < photo.jpg > cutout.png
"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parse(argv)
    return _predict_pipe(args) if args.inputs == ["-"] else _predict_files(args)


def find_photos(
    inputs: Iterable[str], recursive: bool, output: Path | None
) -> list[tuple[Path, Path]]:
    """Lists the photos to work on; says on standard error what folders hold beside them.

    Args:
        inputs: paths of files and folders. A file is taken whatever its suffix; of a folder, the
            photos without those that are named like outputs of this command.
        recursive: whether to search the folders in folders too.
        output: the output folder; what lies in it is left out of the folders.

    Returns:
        Each photo once, with the folder that it was found from.

    Raises:
        ImageError: if a folder holds no photos.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    for each in map(Path, inputs):
        photos = _photos_in(each, recursive, output) if each.is_dir() else [each]
        for path in photos:
            found.setdefault(_place(path), (path, each if each.is_dir() else each.parent))
    return list(found.values())


def _photos_in(folder: Path, recursive: bool, output: Path | None) -> list[Path]:
    listing = scan_folder(folder, recursive)
    photos = [path for path in listing.photos if not is_output(path.name)]
    notes = [listing.note()] if listing.note() else []
    if listing.subfolders:  # the last thing that the note says
        notes[-1] += " (--recursive does)"
    if len(photos) < len(listing.photos):
        notes.append(f"left out {len(listing.photos) - len(photos)} outputs of kmatting")
    note = "; ".join(notes)
    home = folder.resolve()
    if output is not None and home in output.resolve().parents:
        inner = folder / output.resolve().relative_to(home)
        photos = [path for path in photos if inner not in path.parents]
    if not photos:
        raise ImageError(f"{folder}: no photos in this folder" + (f"; {note}." if note else "."))
    if note:
        print(f"note: {folder}: {note}", file=sys.stderr)
    return photos


def _place(path: Path) -> Path:
    """Where a file lies, however its path is written; a link stays itself."""
    return _resolved(path.parent) / path.name


@cache
def _resolved(folder: Path) -> Path:
    return folder.resolve()


def plan(args: argparse.Namespace) -> list[Job]:
    """Decides what is written where, before any work is done.

    Args:
        args: the parsed command line.

    Returns:
        The photos with the outputs that are to be made of them.

    Raises:
        ValueError: if an output exists and neither --overwrite nor --skip-existing is given, if an
            output would replace a photo, or if two photos would be written to one file; with
            --skip-existing also if an output may have been made of another photo in the folder.
        OSError: if a folder cannot be written to.
    """
    photos = find_photos(args.inputs, args.recursive, args.folder)
    originals = {_place(path) for path, _ in photos}
    jobs = [_job(photo, folder, args) for photo, folder in photos]
    check_names(jobs)
    existing = []
    namesakes = cache(_photos_by_stem)
    for job in jobs:
        for kind, output in list(job.outputs.items()):
            path = Path(output)
            if _place(path) in originals:
                raise UsageError(f"{path}: would replace a photo; choose another --output.")
            if path.exists():
                existing.append(path)
                if args.skip_existing:
                    if args.file is None and not args.keep_suffix:
                        _check_origin(Path(job.photo), output, namesakes)
                    del job.outputs[kind]
    if existing and not (args.overwrite or args.skip_existing):
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise UsageError(
            f"{existing[0]}{more} exists. Use --overwrite to replace it, or --skip-existing to "
            "keep it."
        )
    jobs = [job for job in jobs if job.outputs]
    for folder in {Path(output).parent for job in jobs for output in job.outputs.values()}:
        check_writable(folder)
    return jobs


def _check_origin(
    photo: Path, output: str, photos_by_stem: Callable[[Path], dict[str, list[Path]]]
) -> None:
    """Checks that a file that exists cannot have been made of another photo in the folder."""
    for other in photos_by_stem(photo.parent)[photo.stem]:
        if other.name != photo.name:
            raise UsageError(name_clash(str(other), str(photo), output))


def _photos_by_stem(folder: Path) -> dict[str, list[Path]]:
    photos: dict[str, list[Path]] = defaultdict(list)
    for path in scan_folder(folder).photos:
        photos[path.stem].append(path)
    return photos


def _job(photo: Path, folder: Path, args: argparse.Namespace) -> Job:
    """Names the outputs of one photo."""
    if args.file is not None:
        return Job(str(photo), {kind: str(args.file) for kind in args.kinds})
    if args.folder is not None:
        target = args.folder / photo.parent.relative_to(folder)
    elif photo.is_fifo():
        raise UsageError(f"{photo}: is a pipe; name the file to write with --output FILE.")
    else:
        target = photo.parent
    names = {
        kind: output_name(photo.name, kind, _suffix(kind, args), args.keep_suffix)
        for kind in args.kinds
    }
    return Job(str(photo), {kind: str(target / name) for kind, name in names.items()})


def _predict_files(args: argparse.Namespace) -> int:
    jobs = plan(args)
    if not jobs:
        say("nothing to do: all outputs exist.")
        return 0
    backgrounds = _read_backgrounds(args)
    matter = _load(args)
    done = Counter(photos=0, failures=0)
    try:
        with _own_remarks():
            for problem, failed in _with_bar(_work(jobs, matter, backgrounds, args), len(jobs)):
                done["failures" if failed else "photos"] += 1
                if problem:
                    print(problem, file=sys.stderr)
    except (KeyboardInterrupt, OSError) as error:
        error.add_note(f"{done['photos']} of {len(jobs)} photos are done; --skip-existing goes on")
        raise
    where = f", written to {_destination(jobs, args)}" if done["photos"] else ""
    say(f"{done['photos']} of {len(jobs)} photos done{where}")
    return 1 if done["failures"] else 0


def _with_bar(results: Iterator[T], total: int) -> Iterator[T]:
    """Shows a progress bar for several photos, if standard error is a terminal."""
    if total == 1 or not sys.stderr.isatty():
        yield from results
        return
    from tqdm import tqdm  # here, as its import takes as long as reading three photos

    with tqdm(total=total, unit="photo") as bar:
        for result in results:
            bar.clear()  # what is printed now stands above it
            yield result
            bar.update()


def _destination(jobs: Sequence[Job], args: argparse.Namespace) -> str:
    outputs = [output for job in jobs for output in job.outputs.values()]
    if len(outputs) == 1:
        return outputs[0]
    return str(args.folder or "the folders of the photos")


def _predict_pipe(args: argparse.Namespace) -> int:
    if args.output is None and sys.__stdout__ is None:
        raise Error("standard output is closed; name a file with --output.")
    if args.file is not None:
        if args.file.exists() and not args.overwrite:
            raise UsageError(f"{args.file} exists. Use --overwrite to replace it.")
        check_writable(args.file.parent)
    backgrounds = _read_backgrounds(args)
    matter = _load(args)
    try:
        with _own_remarks():
            matte = matter(sys.stdin.buffer.read())
    except ImageError as error:
        print(f"error: standard input: {str(error).removeprefix('image: ')}", file=sys.stderr)
        return 1
    if warning := _warning("standard input", matte):
        print(warning, file=sys.stderr)
    ((kind, image),) = _make(matte, args.kinds, backgrounds, args)
    if args.file is not None:
        write_image(args.file, image, **_options(args.file.suffix, image))
        return 0
    encoded = io.BytesIO()
    suffix = _suffix(kind, args)
    save_image(encoded, image, suffix, **_options(suffix, image))
    sys.stdout.buffer.write(encoded.getvalue())
    sys.stdout.buffer.flush()
    return 0


def _work(
    jobs: Sequence[Job], matter: Matter, backgrounds: Backgrounds, args: argparse.Namespace
) -> Iterator[tuple[str | None, bool]]:
    """Makes the outputs, of several photos at a time.

    Yields:
        For each photo an error, a warning or None, and whether the photo failed.
    """
    by_photo = {job.photo: job for job in jobs}

    def write(photo: Source, matte: Matte) -> tuple[str | None, bool]:
        return _write(by_photo[str(photo)], matte, backgrounds, args)

    if len(jobs) == 1:  # with all processors
        try:
            yield write(jobs[0].photo, matter(jobs[0].photo))
        except ImageError as error:
            yield f"error: {error}", True
        return
    for _, result in matter.map(write, by_photo):
        yield (f"error: {result}", True) if isinstance(result, ImageError) else result


def _write(
    job: Job, matte: Matte, backgrounds: Backgrounds, args: argparse.Namespace
) -> tuple[str | None, bool]:
    """Writes the outputs of one photo; returns an error or a warning, and whether it failed."""
    try:
        for kind, image in _make(matte, list(job.outputs), backgrounds, args):
            path = Path(job.outputs[kind])
            write_image(path, image, **_options(path.suffix, image))
    except OSError as error:
        if error.errno in _FATAL:
            raise
        return f"error: {job.photo}: {error}", True
    except (ValueError, MemoryError) as error:
        return f"error: {job.photo}: {error or 'not enough memory'}", True
    return _warning(job.photo, matte), False


@contextlib.contextmanager
def _own_remarks() -> Iterator[None]:
    """Leaves it to `_warning` to say that a file holds several frames."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImageWarning)
        yield


def _warning(photo: str, matte: Matte) -> str | None:
    """Says in one line what a user should know of a photo that was cut out."""
    remarks = matte.remarks()
    return f"warning: {photo}: {'; '.join(remarks)}." if remarks else None


def _make(
    matte: Matte,
    kinds: Sequence[str],
    backgrounds: Backgrounds,
    args: argparse.Namespace,
) -> Iterator[tuple[str, Image.Image]]:
    """Makes the pictures of one photo, one after the other; the colours are estimated once."""
    matte = _edited(matte, args)
    if "alpha" in kinds:
        yield "alpha", matte.alpha_image(args.alpha_bits)
    if "panel" in kinds:
        yield "panel", matte.panel(args.foreground)
    coloured = [kind for kind in kinds if kind == "cutout" or kind in backgrounds]
    if coloured:
        colours = matte.foreground(args.foreground)
    for kind in coloured:
        if kind == "cutout":
            picture = cutout(colours, matte.alpha)
        else:
            picture = composite(colours, matte.alpha, backgrounds[kind])
        yield kind, with_metadata(picture, matte.photo) if args.keep_metadata else picture


def _edited(matte: Matte, args: argparse.Namespace) -> Matte:
    """Changes the matte as the options say."""
    if args.only_largest:
        matte = matte.keep_largest()
    if args.threshold is not None:
        matte = matte.threshold(args.threshold)
    if args.erode:
        matte = matte.erode(args.erode)
    return matte if args.crop is None else matte.crop(args.crop)


def _suffix(kind: str, args: argparse.Namespace) -> str:
    if kind == "cutout":
        return f".{args.cutout_format}"
    return f".{args.composite_format}" if kind in args.composites else ".png"


def _options(suffix: str, image: Image.Image) -> dict[str, Any]:
    """What the writer is told."""
    options = metadata_options(image, suffix.lower())
    return options if suffix.lower() == ".png" else {**options, "quality": LOSSY_QUALITY}


def _read_backgrounds(args: argparse.Namespace) -> Backgrounds:
    return {kind: read_background(each) for kind, each in args.composites.items()}


def _load(args: argparse.Namespace) -> Matter:
    with quiet():
        return Matter(args.model, args.size, args.threads)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(
        "predict",
        "Predict the mattes of photos; write cutouts, mattes, composites or panels.",
        EPILOG,
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="photos, folders, or - for standard input")
    add(
        "-o",
        "--output",
        type=Path,
        metavar="PATH",
        help="file to write, or folder (made if needed); default: beside each photo",
    )
    add("--recursive", action="store_true", help="search the folders in folders too")
    add(
        "--keep-suffix",
        action="store_true",
        help="photo.jpg gives photo.jpg.cutout.png, so that photo.jpg and photo.png do not clash",
    )

    kinds = parser.add_argument_group("outputs", "--cutout if none is chosen")
    add = kinds.add_argument
    add("--alpha", action="store_true", help="the matte, as a grey PNG")
    add("--alpha-bits", type=int, choices=(8, 16), default=8, help="default: %(default)s")
    add("--cutout", action="store_true", help="the subject on transparency")
    add("--cutout-format", choices=("png", "webp"), default="png", help="default: %(default)s")
    add(
        "--composite",
        action="append",
        metavar="COLOUR|IMAGE",
        help="the subject over a colour (white, '#00ff00') or an image; may be repeated: "
        "photo.composite-white.png, photo.composite-beach.png and so on",
    )
    add(
        "--composite-format",
        choices=("png", "jpg", "webp"),
        default="png",
        help="default: %(default)s",
    )
    add(
        "--keep-metadata",
        action="store_true",
        help="cutouts and composites keep the photo's EXIF data and ICC profile",
    )
    add("--panel", action="store_true", help="photo, matte and composites side by side, small")
    add_foreground(kinds)

    editing = parser.add_argument_group("editing", "changes to the matte, made in this order")
    add = editing.add_argument
    add(
        "--only-largest",
        action="store_true",
        help="keep the largest connected part of the subject",
    )
    add(
        "--threshold",
        type=_share,
        metavar="ALPHA",
        help="make the matte hard: opaque from ALPHA (above 0, at most 1) on, else transparent",
    )
    add(
        "--erode",
        type=int,
        metavar="PIXELS",
        help="shrink the subject by PIXELS; a negative number grows it",
    )
    add(
        "--crop",
        type=at_least(0),
        nargs="?",
        const=0,
        metavar="MARGIN",
        help="crop to the subject and MARGIN pixels around it (default: 0)",
    )

    running = parser.add_argument_group("running")
    add_model(running)
    add_size(running)
    add_threads(running)
    existing = running.add_mutually_exclusive_group()
    add = existing.add_argument
    add("--skip-existing", action="store_true", help="make only the files that do not exist yet")
    add("--overwrite", action="store_true", help="replace files that exist")

    args = parser.parse_args(argv)
    try:
        args.composites = composite_kinds(args.composite or [])
    except ValueError as error:
        parser.error(f"--composite: {error}")
    chosen = {
        "alpha": args.alpha,
        "cutout": args.cutout,
        **dict.fromkeys(args.composites, True),
        "panel": args.panel,
    }
    args.kinds = [kind for kind, wanted in chosen.items() if wanted] or ["cutout"]
    _check_output(parser, args)
    return args


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(
            f"expected a number above 0 and at most 1, received {text!r}"
        )
    return value


def _check_output(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Sets `file` and `folder`, of which at most one is not None."""
    args.file, args.folder = None, args.output
    known = {suffix for suffixes in _SUFFIXES.values() for suffix in suffixes}
    output = args.output
    if output is not None and output.suffix.lower() in known and not output.is_dir():
        args.file, args.folder = output, None
        if len(args.inputs) > 1 or Path(args.inputs[0]).is_dir():
            parser.error(f"--output {output} names one file; for several photos, name a folder")
        if len(args.kinds) > 1:
            kinds = " and ".join(args.kinds)
            parser.error(f"--output {output} names one file, but {kinds} were chosen")
        allowed = _SUFFIXES[args.kinds[0]]  # a single composite is "composite"
        if output.suffix.lower() not in allowed:
            hint = " (or add --composite white)" if args.kinds == ["cutout"] else ""
            parser.error(
                f"--output {output}: expected {' or '.join(allowed)} for the {args.kinds[0]}{hint}"
            )
    if "-" in args.inputs:
        if len(args.inputs) > 1:
            parser.error("INPUT - stands alone")
        if args.folder is not None:
            parser.error("INPUT - is written to standard output, or to --output FILE")
        if len(args.kinds) > 1:
            parser.error(f"INPUT - gives one output, but {' and '.join(args.kinds)} were chosen")
        if args.file is None and sys.stdout.isatty():
            parser.error("standard output is a terminal; name a file: --output cutout.png")


if __name__ == "__main__":
    sys.exit(main())
