"""Takes mattes of photos from the command line: alphas, cutouts, composites, panels."""

import argparse
import io
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from PIL import Image
from tqdm import tqdm

from kmatting.cli import command, make_parser
from kmatting.images import ImageError, list_images, write_image
from kmatting.inference.cutout import (
    FOREGROUND_METHODS,
    PNG_LEVEL,
    Colour,
    check_foreground,
    composite,
    cutout,
    load_estimator,
    read_background,
)
from kmatting.inference.matte import Matte
from kmatting.inference.matter import LARGE, Matter
from kmatting.quiet import quiet
from kmatting.sizes import DEFAULT_SIZE

_WEBP_QUALITY = 90

EPILOG = """\
what is written:
  With one kind of output, OUTPUT/NAME.png; with several, a folder for each: OUTPUT/alpha/NAME.png,
  OUTPUT/cutout/NAME.png, ... NAME is the photo's name without its suffix, and --recursive keeps
  the folders. Photos that would get the same name keep their suffix (a.jpg.png, a.webp.png), or
  their folder's name (x/a.png, y/a.png).

exit status:
  0 all photos done, 1 some could not be read or written (one line each on standard error),
  2 the command cannot be run as given, 130 interrupted.

examples:
  cut out one photo:
    python -m kmatting.predict --model model.tflite photo.jpg --output out
  mattes of a folder, for kmatting.evaluate --predictions:
    python -m kmatting.predict --model model.tflite photos --output mattes --alpha
  over white, and a panel to look at:
    python -m kmatting.predict --model model.keras photos --output out --composite white --panel
  in a pipe:
    python -m kmatting.predict --model model.tflite - < photo.jpg > cutout.png
"""


@dataclass(frozen=True)
class Job:
    """One photo and the files to be made of it.

    Attributes:
        photo: path of the photo.
        outputs: path to write, by kind.
    """

    photo: Path
    outputs: dict[str, Path]


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parse(argv)
    return _predict_pipe(args) if args.inputs == ["-"] else _predict_files(args)


def find_photos(inputs: Iterable[str], recursive: bool, output: Path) -> list[tuple[Path, Path]]:
    """Lists the photos to work on.

    Args:
        inputs: paths of files and folders. A file is taken whatever its suffix.
        recursive: whether to descend into the folders' folders.
        output: the output folder; what lies in it is left out of the folders.

    Returns:
        Each photo once, with the folder that it was found from.

    Raises:
        ImageError: if a folder holds no photos.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    for each in map(Path, inputs):
        if each.is_dir():
            photos = [(path, each) for path in list_images(each, recursive) if not path.is_dir()]
            if output.resolve() != each.resolve():
                photos = [p for p in photos if output.resolve() not in p[0].resolve().parents]
            if not photos:
                hint = "" if recursive else "; --recursive looks into its folders too"
                raise ImageError(f"{each}: no photos in this folder{hint}.")
        else:
            photos = [(each, each.parent)]
        for path, folder in photos:
            found.setdefault(_place(path), (path, folder))
    return list(found.values())


def _place(path: Path) -> Path:
    """Where a file lies, however its path is written; a link stays itself."""
    return path.parent.resolve() / path.name


def name_outputs(photos: Sequence[tuple[Path, Path]]) -> list[PurePath]:
    """Names what is made of each photo so that no two names are equal.

    A photo's name is its path under the folder that it was found from, without the suffix. Those
    that would be equal (in any case of letters) keep the suffix; where that does not tell them
    apart, they are put under their folder's name, then numbered.

    Args:
        photos: as `find_photos` returns them.

    Returns:
        A relative path without suffix for each photo.
    """
    names: dict[int, PurePath] = {}
    taken: set[str] = set()

    def settle(candidates: dict[int, PurePath]) -> None:
        keys = [str(name).casefold() for name in candidates.values()]
        for (index, name), key in zip(candidates.items(), keys, strict=True):
            if keys.count(key) == 1 and key not in taken:
                names[index] = name
        taken.update(str(name).casefold() for name in names.values())

    paths = [path.relative_to(folder) for path, folder in photos]
    homes = [PurePath(folder.absolute().name) for _, folder in photos]
    forms = (
        [path.with_name(path.stem) for path in paths],
        paths,
        [home / path.with_name(path.stem) for home, path in zip(homes, paths, strict=True)],
        [home / path for home, path in zip(homes, paths, strict=True)],
    )
    for form in forms:
        settle({index: name for index, name in enumerate(form) if index not in names})
    for index, path in enumerate(paths):
        number = 2
        while index not in names:
            settle({index: path.with_name(f"{path.stem}-{number}")})
            number += 1
    return [names[index] for index in range(len(photos))]


def plan(args: argparse.Namespace) -> list[Job]:
    """Decides what is written where, before any work is done.

    Args:
        args: the parsed command line.

    Returns:
        The photos with the outputs that are to be made of them.

    Raises:
        ValueError: if an output exists and neither --overwrite nor --skip-existing is given, or if
            an output would replace a photo.
    """
    if args.output.exists() and not args.output.is_dir():
        raise ValueError(f"{args.output}: expected a folder to write to, but it is a file.")
    photos = find_photos(args.inputs, args.recursive, args.output)
    originals = {_place(path) for path, _ in photos}
    jobs, existing = [], []
    for (photo, _), name in zip(photos, name_outputs(photos), strict=True):
        outputs = {}
        for kind in args.kinds:
            folder = args.output / kind if len(args.kinds) > 1 else args.output
            path = folder / f"{name}{_suffix(kind, args)}"
            if _place(path) in originals:
                raise ValueError(f"{path}: would replace a photo; choose another --output.")
            if path.exists():
                existing.append(path)
                if args.skip_existing:
                    continue
            outputs[kind] = path
        if outputs:
            jobs.append(Job(photo, outputs))
    if existing and not (args.overwrite or args.skip_existing):
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise ValueError(f"{existing[0]}: exists already{more}; --overwrite or --skip-existing?")
    return jobs


def _predict_files(args: argparse.Namespace) -> int:
    jobs = plan(args)
    if not jobs:
        print("nothing to do: all outputs are there already.")
        return 0
    background = _read_background(args)
    matter = _load(args)
    failures = 0
    bar = tqdm(total=len(jobs), unit="photo", disable=not sys.stderr.isatty())
    with bar, ThreadPoolExecutor(1, "kmatting-write") as writer:
        if _needs_colours(args):
            writer.submit(load_estimator)  # takes a second: meanwhile the first photo is read
        for error in _work(jobs, matter, background, args, writer):
            if error:
                failures += 1
                tqdm.write(f"error: {error}", file=sys.stderr)
            bar.update()
    print(f"{len(jobs) - failures} of {len(jobs)} photos done, written to {args.output}")
    return 1 if failures else 0


def _predict_pipe(args: argparse.Namespace) -> int:
    background = _read_background(args)
    matter = _load(args)
    try:
        matte = matter(sys.stdin.buffer.read())
    except ImageError as error:
        print(f"error: standard input: {str(error).removeprefix('image: ')}", file=sys.stderr)
        return 1
    (_, image), *_ = _make(matte, args.kinds, background, args)
    kind = args.kinds[0]
    encoded = io.BytesIO()
    image.save(encoded, _suffix(kind, args)[1:], **_options(kind, args))
    sys.stdout.buffer.write(encoded.getvalue())
    sys.stdout.buffer.flush()
    return 0


def _work(
    jobs: Sequence[Job],
    matter: Matter,
    background: Colour | np.ndarray | None,
    args: argparse.Namespace,
    writer: ThreadPoolExecutor,
) -> Iterator[str | None]:
    """Makes the outputs, while the next photo is read and run; yields an error or None for each.

    At most one finished matte waits for the writer, so that large photos do not pile up.
    """
    writing: deque[Future[str | None]] = deque()
    results = matter.stream(job.photo for job in jobs)
    for job, (_, matte) in zip(jobs, results, strict=True):
        if writing:
            yield writing.popleft().result()
        if isinstance(matte, Matte):
            writing.append(writer.submit(_write, job, matte, background, args))
            if matte.prediction.size > LARGE:  # 24-megapixel photos stay under 1.5 GB
                yield writing.popleft().result()
        else:
            yield str(matte)
        del matte  # or it would be held while the next one is made
    while writing:
        yield writing.popleft().result()


def _write(
    job: Job, matte: Matte, background: Colour | np.ndarray | None, args: argparse.Namespace
) -> str | None:
    """Writes the outputs of one photo; returns an error in words, or None."""
    try:
        for kind, image in _make(matte, list(job.outputs), background, args):
            write_image(job.outputs[kind], image, **_options(kind, args))
    except (ImageError, OSError) as error:
        return f"{job.photo}: {error}"
    return None


def _make(
    matte: Matte,
    kinds: Sequence[str],
    background: Colour | np.ndarray | None,
    args: argparse.Namespace,
) -> Iterator[tuple[str, Image.Image]]:
    """Makes the pictures of one photo, one after the other; the colours are estimated once."""
    if "alpha" in kinds:
        levels = 255 if args.alpha_bits == 8 else 65535
        dtype = np.uint8 if args.alpha_bits == 8 else np.uint16
        yield "alpha", Image.fromarray(np.rint(matte.alpha * levels).astype(dtype))
    if "panel" in kinds:
        yield "panel", matte.panel(args.foreground)
    if "cutout" in kinds or "composite" in kinds:
        colours = matte.foreground(args.foreground)
    if "cutout" in kinds:
        yield "cutout", cutout(colours, matte.alpha)
    if background is not None and "composite" in kinds:
        yield "composite", composite(colours, matte.alpha, background)


def _suffix(kind: str, args: argparse.Namespace) -> str:
    return f".{args.cutout_format}" if kind == "cutout" else ".png"


def _options(kind: str, args: argparse.Namespace) -> dict[str, int]:
    """What Pillow's writer is told."""
    if kind == "cutout" and args.cutout_format == "webp":
        return {"quality": _WEBP_QUALITY}
    return {"compress_level": PNG_LEVEL} if kind in ("cutout", "composite") else {}


def _needs_colours(args: argparse.Namespace) -> bool:
    return args.foreground != "none" and set(args.kinds) != {"alpha"}


def _read_background(args: argparse.Namespace) -> Colour | np.ndarray | None:
    return None if args.composite is None else read_background(args.composite)


def _load(args: argparse.Namespace) -> Matter:
    """Loads the model; checks first what can be checked without it."""
    if _needs_colours(args):
        check_foreground(args.foreground)
    with quiet():
        return Matter(args.model, args.size, args.threads)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(
        "predict", "Cut out the subject of photos: cutouts, mattes, composites, panels.", EPILOG
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="photos, folders, or - for standard input")
    add(
        "--model",
        help="a .keras file, a SavedModel folder or a .tflite file (default: the shipped model)",
    )
    add("--output", type=Path, metavar="DIR", help="folder to write to; made if it does not exist")
    add("--recursive", action="store_true", help="descend into the folders' folders")

    kinds = parser.add_argument_group("outputs", "--cutout if none is chosen")
    add = kinds.add_argument
    add("--alpha", action="store_true", help="the matte as a grey PNG")
    add("--alpha-bits", type=int, choices=(8, 16), default=8, help="default: %(default)s")
    add("--cutout", action="store_true", help="the subject on transparency")
    add("--cutout-format", choices=("png", "webp"), default="png", help="default: %(default)s")
    add(
        "--foreground",
        choices=FOREGROUND_METHODS,
        default="ml",
        help="colours of cutouts and composites: ml estimates them, so that no halo of the old "
        "background stays (needs kmatting[foreground]); none keeps the photo's "
        "(default: %(default)s)",
    )
    add(
        "--composite",
        metavar="COLOUR|IMAGE",
        help="the subject over a colour (white, '#00ff00') or an image, as a PNG",
    )
    add("--panel", action="store_true", help="photo, matte and composites side by side, small")

    running = parser.add_argument_group("running")
    add = running.add_argument
    add(
        "--size",
        type=int,
        help="the network sees a photo reduced to about SIZE x SIZE pixels "
        f"(default: what a .keras model was trained at, or {DEFAULT_SIZE}; a .tflite model has a "
        "size of its own)",
    )
    add("--threads", type=int, help="processor threads of the network (default: all)")
    existing = running.add_mutually_exclusive_group()
    add = existing.add_argument
    add("--skip-existing", action="store_true", help="make only what is not there yet")
    add("--overwrite", action="store_true", help="replace what is there (else: an error)")

    args = parser.parse_args(argv)
    chosen = {
        "alpha": args.alpha,
        "cutout": args.cutout,
        "composite": args.composite is not None,
        "panel": args.panel,
    }
    args.kinds = [kind for kind, wanted in chosen.items() if wanted] or ["cutout"]
    if "-" in args.inputs:
        if len(args.inputs) > 1 or args.output:
            parser.error("INPUT - stands alone and writes to standard output, without --output")
        if len(args.kinds) > 1:
            parser.error(f"INPUT - makes one output, {' and '.join(args.kinds)} are chosen")
        if sys.stdout.isatty():
            parser.error("standard output is a terminal; send the picture to a file: > cutout.png")
    elif args.output is None:
        parser.error("the following arguments are required: --output")
    return args


if __name__ == "__main__":
    sys.exit(main())
