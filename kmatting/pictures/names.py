"""Names of the files that predictions are written to.

A name follows from the photo's own path alone: `cat.jpg` gives `cat.alpha.png`, `cat.cutout.png`
and so on, whatever else lies in its folder.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from kmatting.errors import UsageError
from kmatting.images import image_suffixes

KINDS = ("alpha", "cutout", "composite", "panel")
_OUTPUT_SUFFIXES = (".png", ".webp")
_COMPOSITE = "composite-"  # begins the kinds of several composites of one photo
_LABEL_LENGTH = 40  # characters
_LONGEST = 255  # bytes of a file name, on nearly all file systems


@dataclass(frozen=True)
class Job:
    """One photo and the files to be made of it.

    Attributes:
        photo: path or URL of the photo.
        outputs: path or URL of the file to write, by kind.
    """

    photo: str
    outputs: dict[str, str]


def output_name(photo: str, kind: str, suffix: str = ".png", keep_suffix: bool = False) -> str:
    """Names a file that is made of a photo.

    Args:
        photo: file name of the photo, without its folder.
        kind: one of `KINDS`, or of `composite_kinds`.
        suffix: suffix of the file to write.
        keep_suffix: whether the photo's own suffix stays in the name, which tells `cat.jpg` from
            `cat.png`.

    Returns:
        A file name: `cat.cutout.png`, or `cat.jpg.cutout.png` with `keep_suffix`. Names that would
        be too long for the file system are shortened, and end in a hash of the whole name.
    """
    path = PurePath(photo)
    drop_suffix = not keep_suffix and path.suffix.lower() in image_suffixes()
    stem = path.stem if drop_suffix else photo
    end = f".{kind}{suffix}"
    whole = os.fsencode(stem)
    room = _LONGEST - len(end)
    if len(whole) > room:
        import hashlib  # here, as hardly any name is too long

        mark = "-" + hashlib.blake2s(whole, digest_size=4).hexdigest()
        stem = whole[: room - len(mark)].decode("utf-8", "ignore") + mark
    return stem + end


def is_output(name: str) -> bool:
    """Tells whether a file name is one that `output_name` gives.

    Args:
        name: file name or path.
    """
    path = PurePath(name)
    kind = PurePath(path.stem).suffix.removeprefix(".")
    if kind == "composite" or kind.startswith(_COMPOSITE):
        return path.suffix in (*_OUTPUT_SUFFIXES, ".jpg")
    return kind in KINDS and path.suffix in _OUTPUT_SUFFIXES


def composite_kinds(backgrounds: Sequence[str]) -> dict[str, str]:
    """Names the composites over several backgrounds.

    Args:
        backgrounds: colours and paths of images.

    Returns:
        The background by kind. A single one is "composite", so that its file is
        `cat.composite.png`. Several are told apart: "composite-white", or "composite-beach" for the
        image `beach.jpg`.

    Raises:
        ValueError: if two backgrounds give one name.
    """
    if len(backgrounds) == 1:
        return {"composite": backgrounds[0]}
    kinds: dict[str, str] = {}
    for background in backgrounds:
        path = PurePath(background)
        name = path.stem if path.suffix.lower() in image_suffixes() else background
        label = re.sub(r"\W+", "-", name.lower()).strip("-") or "image"
        kind = _COMPOSITE + label[:_LABEL_LENGTH]
        if kind in kinds:
            raise UsageError(
                f"backgrounds {kinds[kind]} and {background} would both be written to one file; "
                "rename one, or run them one after the other."
            )
        kinds[kind] = background
    return kinds


def matte_stem(path: PurePath) -> str:
    """Names the photo that a matte belongs to.

    Args:
        path: `cat.png` of any origin, or `cat.alpha.png` as `kmatting predict` writes it.

    Returns:
        The stem that photo and matte have in common: `cat`.
    """
    return path.stem.removesuffix(".alpha")


def check_names(jobs: Iterable[Job]) -> None:
    """Checks that no two photos are to be written to one file, in any case of letters.

    Args:
        jobs: what is to be written.

    Raises:
        ValueError: if two photos are.
    """
    photos: dict[str, str] = {}
    clashes = []
    for job in jobs:
        output = next(iter(job.outputs.values()))
        other = photos.setdefault(output.casefold(), job.photo)
        if other != job.photo:
            clashes.append((other, job.photo, output))
    if clashes:
        first, second, output = clashes[0]
        more = f" ({len(clashes) - 1} more photos clash.)" if len(clashes) > 1 else ""
        raise UsageError(name_clash(first, second, output) + more)


def name_clash(first: str, second: str, output: str) -> str:
    """Says that two photos would be written to one file, and what to do.

    Args:
        first: path of a photo.
        second: path of another one.
        output: path of the file.
    """
    if PurePath(first).suffix.casefold() != PurePath(second).suffix.casefold():
        hint = "--keep-suffix names the files so that they differ"
    else:
        hint = "rename one, or write them to different folders"
    return f"{first} and {second} would both be written to {output}; {hint}."
