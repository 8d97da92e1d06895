"""What the page and the POST route have in common: pictures of a stranger's photo."""

import dataclasses
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import ImageColor

from kmatting.errors import ImageError, UsageError
from kmatting.images import Photo, Source, image_size, read_photo
from kmatting.inference.matter import Matter
from kmatting.pictures.compose import Colour
from kmatting.pictures.maker import Picture, make_pictures
from kmatting.pictures.wanted import Wanted

MAX_PIXELS = 50_000_000  # of a photo
SIZES = (128, 1024)  # smallest and largest size of the network's input that a visitor may choose

# The fields of `Wanted` that a stranger may set; the record of each says how it is read.
OPTIONS = {each.name: each for each in dataclasses.fields(Wanted) if "option" in each.metadata}
_UNEDITED: dict[str, Any] = {
    name: each.default for name, each in OPTIONS.items() if each.metadata["option"].edit
}
_SWITCHES = {"true": True, "1": True, "": True, "false": False, "0": False}


class TooLargeError(ImageError):
    """A photo of more pixels than a server takes."""


@dataclass(frozen=True)
class Made:
    """The pictures of a photo, the photo as it was edited, and what its owner should know."""

    pictures: list[Picture]
    photo: Photo
    remarks: list[str]


class Studio:
    """Makes the pictures of one photo at a time."""

    def __init__(self, matter: Matter) -> None:
        self.matter = matter
        self._turn = threading.Lock()

    def make(
        self,
        photo: Source,
        kinds: tuple[str, ...],
        options: Mapping[str, Any],
        *,
        formats: Mapping[str, str] | None = None,
        colour: Any = None,
        background: Source | None = None,
        size: Any = None,
    ) -> Made:
        """Makes the pictures of a photo that is a path or bytes.

        Nothing is believed: a colour is never taken for the name of a file, and options are values,
        or texts as in an address.
        """
        side = None if size is None else self._read_size(size)
        with self._turn:
            backgrounds: tuple[Any, ...] = ()
            if background is not None:
                backgrounds = (_read(background).flatten(),)
            elif colour is not None:
                backgrounds = (_read_colour(colour),)
            wanted = Wanted(kinds, backgrounds, formats or {}, **_read_options(options))
            source = _read(photo)
            _check_area(wanted, *source.rgb.shape[:2])
            matte = self.matter(source, side)
            edited = wanted.edited(matte)
            pictures = list(make_pictures(edited, dataclasses.replace(wanted, **_UNEDITED)))
            remarks = [*matte.remarks(), *(each for one in pictures for each in one.remarks)]
            return Made(pictures, edited.photo, remarks)

    def _read_size(self, size: Any) -> int:
        if self.matter.size is None:
            raise UsageError("size: the model runs at one size only; leave it out.")
        smallest, largest = SIZES
        try:
            number = 0 if isinstance(size, bool) else int(size)
        except (TypeError, ValueError, OverflowError):
            number = 0
        if not smallest <= number <= largest:
            raise UsageError(
                f"Expected a size from {smallest} to {largest}, received {str(size)[:80]}."
            )
        return number


def _check_area(wanted: Wanted, height: int, width: int) -> None:
    """Refuses a canvas that makes a small photo into a picture of too many pixels."""
    if isinstance(wanted.canvas, int):
        height, width = wanted.canvas, wanted.canvas
    elif wanted.canvas is not None:
        if isinstance(wanted.crop, str):
            margin = round(float(wanted.crop[:-1]) / 100 * max(height, width))
        else:
            margin = wanted.crop or 0
        across, down = map(float, wanted.canvas.split(":"))
        width = max(width + 2 * margin, round((height + 2 * margin) * across / down))
        height = round(width * down / across)
    if height * width > MAX_PIXELS:
        raise UsageError(f"canvas: expected at most {MAX_PIXELS / 1e6:.0f} megapixels.")


def _read_options(given: Mapping[str, Any]) -> dict[str, Any]:
    read: dict[str, Any] = {}
    for name, value in given.items():
        if name not in OPTIONS:
            raise UsageError(f"{name}: no such option. Expected some of {', '.join(OPTIONS)}.")
        option = OPTIONS[name].metadata["option"]
        try:
            if option.read is None:
                read[name] = value if isinstance(value, bool) else _SWITCHES[str(value).lower()]
            else:
                if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,9}", value):
                    value = int(value)
                read[name] = option.read(option.arguments["const"] if value == "" else value)
        except KeyError:
            raise UsageError(f"{name}: expected a value, received {str(value)[:80]!r}.") from None
        except (UsageError, TypeError) as error:
            raise UsageError(f"{name}: {str(error).removeprefix(f'{name}: ')}") from error
    return read


def _read_colour(text: Any) -> Colour:
    """Reads "#rrggbb" or a name, or "rgba(...)" with fractions, as Gradio's picker sends it."""
    try:
        if text.startswith("rgba("):
            red, green, blue, *_ = (round(float(each)) for each in text[5:-1].split(","))
        else:
            red, green, blue, *_ = ImageColor.getrgb(text)
        if not 0 <= min(red, green, blue) <= max(red, green, blue) <= 255:
            raise ValueError
    except (ValueError, OverflowError, AttributeError, TypeError) as error:
        raise UsageError(
            f"Expected a colour such as #2f855a, received {str(text)[:80]!r}."
        ) from error
    return red, green, blue


def _read(source: Source) -> Photo:
    height, width = image_size(source)
    if height * width > MAX_PIXELS:
        raise TooLargeError(
            f"{'image' if isinstance(source, bytes) else source}: {height * width / 1e6:.0f} "
            f"megapixels; this server takes up to {MAX_PIXELS / 1e6:.0f}."
        )
    return read_photo(source, warn=False)
