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
from kmatting.pictures.compose import Background
from kmatting.pictures.kinds import KINDS

_COMPOSITE = "composite-"  # begins the names of several composites of one photo
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
        kind: name of the picture, such as "cutout" or "composite-white".
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
    """Returns whether a file name, or a path, is one that `output_name` gives."""
    path = PurePath(name)
    kind = PurePath(path.stem).suffix.removeprefix(".")
    kind = "composite" if kind.startswith(_COMPOSITE) else kind
    return kind in KINDS and path.suffix in KINDS[kind].suffixes


def composite_names(backgrounds: Sequence[Background]) -> dict[str, Background]:
    """Names the composites over several backgrounds.

    Args:
        backgrounds: colours, and images or their paths.

    Returns:
        The background by the name of its composite. A single one is "composite", so that its file
        is `cat.composite.png`. Several are told apart: "composite-white", or "composite-beach" for
        the image `beach.jpg`; those without a name by number.

    Raises:
        UsageError: if two backgrounds give one name.
    """
    if len(backgrounds) == 1:
        return {"composite": backgrounds[0]}
    names: dict[str, Background] = {}
    for number, background in enumerate(backgrounds, 1):
        label = _label(background) if isinstance(background, str | os.PathLike) else str(number)
        name = _COMPOSITE + label
        if name in names:
            raise UsageError(
                f"backgrounds {names[name]!s} and {background!s} would both be written to one "
                "file; rename one, or run them one after the other."
            )
        names[name] = background
    return names


def _label(background: str | os.PathLike[str]) -> str:
    """Returns the part of a file's name that stands for a colour or a path."""
    text = os.fspath(background)
    path = PurePath(text)
    name = path.stem if path.suffix.lower() in image_suffixes() else text
    return (re.sub(r"\W+", "-", name.lower()).strip("-") or "image")[:_LABEL_LENGTH]


def matte_stem(path: PurePath) -> str:
    """Names the photo that a matte belongs to.

    Args:
        path: `cat.png` of any origin, or `cat.alpha.png` as `kmatting predict` writes it.

    Returns:
        The stem that photo and matte have in common: `cat`.
    """
    return path.stem.removesuffix(".alpha")


def check_names(jobs: Iterable[Job]) -> None:
    """Raises a UsageError if two photos would be written to one file, in any case of letters."""
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
    """Words the error of two photos that would be written to one file."""
    if PurePath(first).suffix.casefold() != PurePath(second).suffix.casefold():
        hint = "--keep-suffix names the files so that they differ"
    else:
        hint = "rename one, or write them to different folders"
    return f"{first} and {second} would both be written to {output}; {hint}."
