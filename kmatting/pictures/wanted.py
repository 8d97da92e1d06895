"""What is wanted of a photo: one dataclass for Python and for the options of every command.

To add an option, add a field to `Wanted` with its record: help, how its value is read, and what it
does to a matte. `predict`, `video`, `batch`, `Matte.save` and `remove` then have it.
"""

import argparse
import dataclasses
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kmatting.errors import UsageError
from kmatting.images.formats import format_written
from kmatting.pictures.compose import Background
from kmatting.pictures.foreground import FOREGROUND_METHODS
from kmatting.pictures.kinds import KINDS
from kmatting.pictures.names import composite_names
from kmatting.sizes import whole_number

if TYPE_CHECKING:
    from kmatting.pictures.matte import Matte

_MOST_PIXELS = 65536  # of a margin or a radius
_LARGEST_SIDE = 13_000  # pixels, of a square canvas
_MOST_PER_CENT = 1000
_MOST_RATIO = 20  # of the sides of a canvas
_NONE: Mapping[str, Any] = {}


@dataclass(frozen=True)
class _Option:
    """How a field of `Wanted` is asked for on the command line, and what it does.

    Attributes:
        help: of the option.
        read: checks a value, or the text of one; raises `UsageError`.
        edit: changes a matte, for options that do.
        group: of the options, where the help shows it.
        alias: a second name of the option.
        arguments: further arguments of argparse.
    """

    help: str
    read: Callable[[Any], Any] | None = None
    edit: "Callable[[Matte, Wanted], Matte] | None" = None
    group: str = "editing"
    alias: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


def _option(default: Any, help: str, *, arguments: Mapping[str, Any] = _NONE, **record: Any) -> Any:
    """Makes a field of `Wanted` that is an option of the commands."""
    return field(default=default, metadata={"option": _Option(help, arguments=arguments, **record)})


# Values


def _read_share(value: Any) -> float:
    try:
        share = float(value)
    except (TypeError, ValueError):
        share = 0
    if not 0 < share <= 1:
        raise UsageError(f"expected a number above 0 and at most 1, received {value!r}.")
    return share


def _read_pixels(value: Any) -> int:
    return whole_number("pixels", value, -_MOST_PIXELS, _MOST_PIXELS)


def read_margin(value: Any) -> int | str:
    """Reads a margin: pixels, or per cent of the subject's longer side as a text such as "10%"."""
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            share = float(value.strip()[:-1])
        except ValueError:
            share = -1
        if not 0 <= share <= _MOST_PER_CENT:
            raise UsageError(
                f"margin: expected pixels such as 20, or per cent such as 10%, received {value!r}."
            )
        return value.strip()
    return whole_number("margin", value, 0, _MOST_PIXELS)


def read_canvas(value: Any) -> int | str:
    """Reads a canvas: a shape, "square" or "4:5" (width to height), or pixels a side."""
    text = str(value).strip().lower()
    if text == "square":
        return "1:1"
    if ratio := re.fullmatch(r"(\d{1,5}(?:\.\d+)?):(\d{1,5}(?:\.\d+)?)", text):
        width, height = map(float, ratio.groups())
        if min(width, height) > 0 and max(width, height) <= _MOST_RATIO * min(width, height):
            return text
    try:
        return whole_number("canvas", value, 1, _LARGEST_SIDE)
    except (TypeError, ValueError):
        raise UsageError(
            "canvas: expected square, a shape such as 4:5 (width to height, up to "
            f"{_MOST_RATIO}:1), or the pixels of each side of a square such as 2000, at most "
            f"{_LARGEST_SIDE}; received {value!r}."
        ) from None


def _read_foreground(value: Any) -> str:
    if value not in FOREGROUND_METHODS:
        raise UsageError(f"Expected foreground 'ml', 'fast' or 'none', received {value!r}.")
    return value


def _read_bits(value: Any) -> int:
    if value not in (8, 16):
        raise UsageError(f"bits: expected 8 or 16, received {value!r}.")
    return value


@dataclass(frozen=True)
class Wanted:
    """The pictures that are to be made of a photo.

    Args:
        kinds: of `kmatting.pictures.kinds.KINDS`: "alpha", "cutout", "composite", "panel". By
            default "composite" if there are backgrounds, else "cutout".
        backgrounds: of the composites: colours or images, as in
            `kmatting.pictures.compose.read_background`.
        formats: suffix of the files by kind, such as `{"cutout": ".webp"}`; ".png" by default.
        bits: bits per channel of mattes and cutouts, 8 or 16. Colours keep the photo's 8 bits.
        foreground: method of `kmatting.pictures.foreground.estimate_foreground`.
        keep_metadata: whether cutouts and composites keep the photo's EXIF data and ICC profile.
        only_largest: whether to keep only the largest connected part of the subject.
        threshold: alpha from which on the matte is opaque, else transparent; None for a soft matte.
        erode: pixels by which the subject is shrunk; negative to grow it.
        crop: margin around the subject to which photo and matte are cropped: pixels, or a text such
            as "10%" of the subject's longer side; None to crop nothing.
        canvas: shape that the picture is padded to, "square" or "4:5" (width to height), or pixels
            of each side of a square into which it is fitted; None for the picture's own. With
            `crop` the margin is then kept in full, also beyond the photo.
        shadow: strength of a soft shadow in cutouts and composites, above 0 and at most 1.

    Raises:
        UsageError: if a value is none of these, or values contradict each other.
        TypeError: if a number is not a whole one.

    Examples:
        >>> Wanted(crop="10%", canvas=2000, backgrounds=["white"], formats={"composite": ".jpg"})
    """

    kinds: tuple[str, ...] = ()
    backgrounds: tuple[Background, ...] = ()
    formats: Mapping[str, str] = field(default_factory=dict)
    bits: int = _option(
        8,
        "bits per channel of mattes and cutouts: 8, or 16 for PNG and TIFF (default: 8)",
        read=_read_bits,
        group="outputs",
        alias="--alpha-bits",
        arguments={"metavar": "BITS"},
    )
    foreground: str = _option(
        "ml",
        "colours of cutouts and composites: estimated, so that no halo of the old background "
        "remains (ml, or fast, which is coarser), or none for the photo's own "
        "(default: %(default)s)",
        read=_read_foreground,
        group="outputs",
        arguments={"metavar": "METHOD"},
    )
    keep_metadata: bool = _option(
        False,
        "cutouts and composites keep the photo's EXIF data and ICC profile",
        group="outputs",
    )
    only_largest: bool = _option(
        False,
        "keep the largest connected part of the subject",
        edit=lambda matte, _: matte.keep_largest(),
    )
    threshold: float | None = _option(
        None,
        "make the matte hard: opaque from ALPHA (above 0, at most 1) on, else transparent",
        read=_read_share,
        edit=lambda matte, wanted: matte.threshold(wanted.threshold),
        arguments={"metavar": "ALPHA"},
    )
    erode: int = _option(
        0,
        "shrink the subject by PIXELS; a negative number grows it",
        read=_read_pixels,
        edit=lambda matte, wanted: matte.erode(wanted.erode),
        arguments={"metavar": "PIXELS"},
    )
    crop: int | str | None = _option(
        None,
        "crop to the subject and MARGIN around it: pixels, or per cent of the subject's longer "
        "side such as 10%%; none if MARGIN is left out",
        read=read_margin,
        edit=lambda matte, wanted: matte.crop(wanted.crop, beyond=wanted.canvas is not None),
        arguments={"nargs": "?", "const": 0, "metavar": "MARGIN"},
    )
    canvas: int | str | None = _option(
        None,
        "pad the picture to a shape, square or 4:5 (width to height), or fit it into a square of "
        "so many pixels a side, such as 2000; square if SHAPE is left out. With --crop the margin "
        "is kept in full, also beyond the photo",
        read=read_canvas,
        edit=lambda matte, wanted: matte.on_canvas(wanted.canvas),
        arguments={"nargs": "?", "const": "square", "metavar": "SHAPE"},
    )
    shadow: float | None = _option(
        None,
        "lay a soft shadow behind the subject in cutouts and composites: above 0, 1 is black; 0.5 "
        "if STRENGTH is left out",
        read=_read_share,
        arguments={"nargs": "?", "const": 0.5, "metavar": "STRENGTH"},
    )

    def __post_init__(self) -> None:
        set_field = object.__setattr__
        set_field(self, "backgrounds", tuple(self.backgrounds))
        set_field(
            self,
            "kinds",
            tuple(self.kinds) or (("composite",) if self.backgrounds else ("cutout",)),
        )
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            read = each.metadata["option"].read if "option" in each.metadata else None
            if read is not None and value != each.default:
                set_field(self, each.name, read(value))
        self._check_kinds()
        self._check_formats()

    def _check_kinds(self) -> None:
        for kind in self.kinds:
            if kind not in KINDS:
                raise UsageError(f"kinds: expected some of {', '.join(KINDS)}, received {kind!r}.")
        if ("composite" in self.kinds) != bool(self.backgrounds):
            raise UsageError("Expected backgrounds with the kind 'composite', and only with it.")
        composite_names(self.backgrounds)  # refuses two of one name

    def _check_formats(self) -> None:
        for kind in self.kinds:
            suffix = self.suffix(kind)
            if suffix not in KINDS[kind].suffixes:
                raise UsageError(
                    f"{suffix}: expected {' or '.join(KINDS[kind].suffixes)} for the {kind}."
                )
            form = format_written(suffix)
            takes = self.bits in KINDS[kind].bits
            if takes and form is not None and self.bits > form.bits:
                raise UsageError(
                    f"{suffix}: holds no {self.bits} bits per channel; use .png or .tif."
                )
        if not any(self.bits in KINDS[kind].bits for kind in self.kinds):
            raise UsageError(f"bits: {' and '.join(self.kinds)} cannot have {self.bits}.")

    def suffix(self, name: str) -> str:
        """Returns the suffix of the file of a picture, such as ".png" for "composite-white"."""
        return self.formats.get(name.partition("-")[0], ".png").lower()

    @property
    def outputs(self) -> dict[str, Background | None]:
        """The names of the pictures, such as "cutout" or "composite-white", with the background."""
        found: dict[str, Background | None] = {}
        for kind in KINDS:
            if kind == "composite" and kind in self.kinds:
                found.update(composite_names(self.backgrounds))
            elif kind in self.kinds:
                found[kind] = None
        return found

    def edited(self, matte: "Matte") -> "Matte":
        """Changes a matte as these options say."""
        for each in dataclasses.fields(self):
            option = each.metadata.get("option")
            if option and option.edit and getattr(self, each.name) != each.default:
                matte = option.edit(matte, self)
        return matte


# Commands


def add_picture_options(
    parser: argparse.ArgumentParser,
    without: Collection[str] = (),
    default: str = "cutout",
    helps: Mapping[str, str] = _NONE,
    **defaults: Any,
) -> None:
    """Adds the options of `Wanted`: what is made, and how the matte is edited.

    Args:
        parser: the parser of a command.
        without: kinds, and names of fields, that the command does not have; "formats" for the
            options that choose a format.
        default: the kind that is made if none is chosen.
        helps: help that differs, by kind.
        **defaults: defaults of options that differ, by name of the field.
    """
    outputs = parser.add_argument_group("outputs", f"--{default} if none is chosen")
    editing = parser.add_argument_group("editing", "changes, made in this order")
    for name, kind in KINDS.items():
        if name in without:
            continue
        text = helps.get(name, kind.help)
        if name == "composite":
            outputs.add_argument("--composite", action="append", metavar="BACKGROUND", help=text)
        else:
            outputs.add_argument(f"--{name}", action="store_true", help=text)
        if "formats" not in without:
            outputs.add_argument(
                f"--{name}-format",
                choices=[
                    suffix[1:] for suffix in kind.suffixes if suffix not in (".jpeg", ".tiff")
                ],
                help="default: png",
            )
    groups = {"outputs": outputs, "editing": editing}
    for each in dataclasses.fields(Wanted):
        option = each.metadata.get("option")
        if option is None or each.name in without:
            continue
        flags = [f"--{each.name.replace('_', '-')}", *([option.alias] if option.alias else [])]
        how = {"type": _argument(option.read)} if option.read else {"action": "store_true"}
        groups[option.group].add_argument(
            *flags,
            dest=each.name,
            default=defaults.get(each.name, each.default),
            help=option.help,
            **how,
            **option.arguments,
        )


def _argument(read: Callable[[Any], Any]) -> Callable[[str], Any]:
    """Makes an argument type of what reads a value."""

    def argument(text: str) -> Any:
        try:
            return read(int(text) if re.fullmatch(r"[+-]?\d{1,18}", text) else text)
        except TypeError as error:
            raise argparse.ArgumentTypeError(
                f"expected a whole number, received {text!r}"
            ) from error
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error).rstrip(".")) from error

    return argument


def wanted_from(args: argparse.Namespace, default: str = "cutout") -> Wanted:
    """Returns what the options of a command ask for.

    Args:
        args: the parsed options of `add_picture_options`.
        default: the kind that is made if none is chosen.

    Raises:
        UsageError: if the options contradict each other.
    """
    given = vars(args)
    kinds = tuple(kind for kind in KINDS if given.get(kind))
    formats = {kind: f".{given[f'{kind}_format']}" for kind in KINDS if given.get(f"{kind}_format")}
    for kind in formats:
        if kind not in (kinds or (default,)):
            raise UsageError(f"--{kind}-format: no {kind} is made; add --{kind}.")
    options = {
        each.name: given[each.name]
        for each in dataclasses.fields(Wanted)
        if "option" in each.metadata and each.name in given
    }
    return Wanted(kinds or (default,), tuple(given.get("composite") or ()), formats, **options)
