"""Which photos there are, and which files are made of each: decided before any work is done."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kmatting.errors import ImageError, UsageError
from kmatting.files import check_writable
from kmatting.images import scan_folder
from kmatting.pictures.names import Job, check_names, is_output, name_clash, output_name
from kmatting.pictures.wanted import Wanted
from kmatting.terminal import complain

STREAM = "-"  # standard input as a photo, standard output as a file


@dataclass(frozen=True)
class Output:
    """Where the files go.

    Attributes:
        file: the file of a single photo, or `STREAM`; None if names follow from the photos.
        folder: the folder of all files; None for the folder of each photo.
        keep_suffix: as in `output_name`.
        skip_existing: whether files that exist are left as they are.
        overwrite: whether they are replaced.
    """

    file: str | None = None
    folder: Path | None = None
    keep_suffix: bool = False
    skip_existing: bool = False
    overwrite: bool = False


def find_photos(
    inputs: Iterable[str], recursive: bool, output: Path | None
) -> list[tuple[Path, Path]]:
    """Lists the photos to process and prints what was skipped to standard error.

    Args:
        inputs: paths of files and folders. A file is taken whatever its suffix; of a folder, the
            photos without those that are named like outputs of this command.
        recursive: whether to search the folders in folders too.
        output: the output folder; what lies in it is left out of the folders.

    Returns:
        Each photo once, with the folder that it was found from.

    Raises:
        UsageError: if an input is a URL.
        ImageError: if a folder holds no photos.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    for text in inputs:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
            raise UsageError(f"{text}: is a URL, expected a file; download it first.")
        each = Path(text)
        photos = _photos_in(each, recursive, output) if each.is_dir() else [each]
        for path in photos:
            found.setdefault(_place(path), (path, each if each.is_dir() else each.parent))
    return list(found.values())


def _photos_in(folder: Path, recursive: bool, output: Path | None) -> list[Path]:
    listing = scan_folder(folder, recursive)
    photos = [path for path in listing.photos if not is_output(path.name)]
    notes = [note] if (note := listing.note("--recursive")) else []
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
        complain(f"note: {folder}: {note}")
    return photos


def _place(path: Path) -> Path:
    """Where a file lies, however its path is written; a link stays itself."""
    return _resolved(path.parent) / path.name


@cache
def _resolved(folder: Path) -> Path:
    return folder.resolve()


def plan(photos: Sequence[tuple[Path, Path]], output: Output, wanted: Wanted) -> list[Job]:
    """Decides what is written where.

    Args:
        photos: as from `find_photos`; `STREAM` for standard input.
        output: where the files go.
        wanted: what is made.

    Returns:
        The photos with the files that are to be made of them.

    Raises:
        UsageError: if a file exists and is neither to be replaced nor to be skipped, if it would
            replace a photo, or if two photos would be written to one file; with `skip_existing`
            also if a file may have been made of another photo in the folder.
        OSError: if a folder cannot be written to.
    """
    originals = {_place(path) for path, _ in photos}
    jobs = [_job(photo, folder, output, wanted) for photo, folder in photos]
    check_names(jobs)
    if output.file == STREAM:
        return jobs
    existing = []
    namesakes = cache(_photos_by_stem)
    for job in jobs:
        for name, file in list(job.outputs.items()):
            path = Path(file)
            if _place(path) in originals:
                raise UsageError(f"{path}: would replace a photo; choose another --output.")
            if path.exists():
                existing.append(path)
                if output.skip_existing:
                    if output.file is None and not output.keep_suffix:
                        _check_origin(Path(job.photo), file, namesakes)
                    del job.outputs[name]
    if existing and not (output.overwrite or output.skip_existing):
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise UsageError(
            f"{existing[0]}{more} exists. Use --overwrite to replace it, or --skip-existing to "
            "keep it."
        )
    jobs = [job for job in jobs if job.outputs]
    for folder in {Path(file).parent for job in jobs for file in job.outputs.values()}:
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


def _job(photo: Path, folder: Path, output: Output, wanted: Wanted) -> Job:
    """Names the files of one photo."""
    if output.file is not None:
        return Job(str(photo), dict.fromkeys(wanted.outputs, output.file))
    if output.folder is not None:
        target = output.folder / photo.parent.relative_to(folder)
    elif photo.is_fifo():
        raise UsageError(f"{photo}: is a pipe; name the file to write with --output FILE.")
    else:
        target = photo.parent
    names = {
        name: output_name(photo.name, name, wanted.suffix(name), output.keep_suffix)
        for name in wanted.outputs
    }
    return Job(str(photo), {name: str(target / file) for name, file in names.items()})
