"""The result for one photo: its matte, the colours of its subject, and the pictures of both."""

import math
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kmatting.errors import UsageError
from kmatting.images import MAX_PIXELS, Photo
from kmatting.images.panel import CELLS
from kmatting.images.regions import largest_component, over_squares
from kmatting.pictures.compose import Background
from kmatting.pictures.foreground import estimate_foreground
from kmatting.pictures.kinds import KINDS, draw_panel
from kmatting.pictures.maker import Picture, make_pictures, read_backgrounds
from kmatting.pictures.wanted import Wanted, read_canvas, read_margin
from kmatting.sizes import whole_number

OPAQUE_SHARE = 0.001  # of the photo: a smaller subject counts as none
_VISIBLE = 0.05  # alpha below which a pixel does not count as a part of the subject
_MOST_PIXELS = 65536  # of a radius
_ROUNDING = 1e-4  # by which numbers may leave their range
# Small parts apart from the subject: at least this share of the photo, at most this one of the
# subject, on a matte of so many pixels on the longer side.
_SHREDS, _SECOND_SUBJECT, _SHREDS_SIDE = 0.0005, 0.1, 512


@dataclass(frozen=True, eq=False, repr=False)
class Matte:
    """A photo and its predicted matte.

    The arrays are read-only; change a copy. The colours of the foreground are estimated once for
    each method and kept.

    Args:
        photo: the photo, upright, as from `kmatting.images.read_photo`.
        prediction: float array (H, W) in [0, 1], the network's matte at the photo's size.
        notes: what else a user should know of the prediction, for `remarks`.

    Raises:
        UsageError: if the prediction is no such array.

    Examples:
        >>> matte = Matter()("photo.jpg")
        >>> matte.save("cutout.png")
        >>> matte.alpha_image().save("alpha.png")
        >>> matte.save("composite.jpg", background="white")
        >>> matte.keep_largest().crop(margin=20).save("subject.png")
        >>> matte.save("shop.jpg", background="white", crop="10%", canvas=2000, shadow=0.5)
    """

    photo: Photo
    prediction: np.ndarray
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        prediction = _checked(self.photo, self.prediction)
        object.__setattr__(self, "prediction", _read_only(prediction))
        object.__setattr__(self, "_colours", {})

    def __reduce__(self) -> tuple[Any, ...]:
        return Matte, (self.photo, self.prediction, self.notes)

    def __repr__(self) -> str:
        height, width = self.prediction.shape
        return f"<Matte of {width}x{height} pixels, mean alpha {self.alpha.mean():.3f}>"

    @cached_property
    def alpha(self) -> np.ndarray:
        """The matte: float32 array (H, W) in [0, 1].

        It is the prediction, times the photo's own opacity where the file had transparency.
        """
        if self.photo.opacity is None:
            return self.prediction
        return _read_only(self.prediction * (self.photo.opacity / np.float32(255)))

    @property
    def is_empty(self) -> bool:
        """Whether no subject was found: less than 0.1 % of the photo is at least half opaque."""
        return bool(np.count_nonzero(self.alpha >= 0.5) < OPAQUE_SHARE * self.alpha.size)

    def remarks(self) -> list[str]:
        """Returns what a user should know of the result, in a phrase each.

        These are that the file holds several frames or pages, that a model of fixed size saw little
        of a long photo, and that no subject was found.
        """
        remarks = [self.photo.note(), *self.notes, "no subject found" if self.is_empty else ""]
        return [remark for remark in remarks if remark]

    @cached_property
    def has_shreds(self) -> bool:
        """Whether small parts lie apart from the subject, which `keep_largest` removes."""
        scale = min(1, _SHREDS_SIDE / max(self.prediction.shape))
        size = [max(1, round(side * scale)) for side in self.prediction.shape[::-1]]
        small = Image.fromarray(self.prediction).resize((size[0], size[1]), Image.Resampling.BOX)
        visible = np.asarray(small) >= _VISIBLE
        largest = largest_component(visible)
        apart = np.count_nonzero(visible) - (subject := np.count_nonzero(largest))
        return bool(_SHREDS * visible.size <= apart <= _SECOND_SUBJECT * subject)

    def crop(self, margin: int | str = 0, beyond: bool = False) -> "Matte":
        """Crops photo and matte to the subject.

        Args:
            margin: kept around the subject: pixels, or a text such as "10%", which is of the longer
                side of the subject.
            beyond: whether the margin is kept in full, with transparency where the photo ends; else
                as far as the photo has it.

        Returns:
            The `Matte` of the smallest rectangle that holds every pixel of an alpha of at least
            0.05, and the margin.

        Raises:
            UsageError: if there is no such pixel, or the margin is out of range.
            TypeError: if the margin is neither a whole number nor such a text.
        """
        margin = read_margin(margin)
        visible = self.alpha >= _VISIBLE
        rows, columns = (np.flatnonzero(visible.any(axis)) for axis in (1, 0))
        if not rows.size:
            raise UsageError("The matte is empty: there is no subject to crop to.")
        top, bottom = int(rows[0]), int(rows[-1]) + 1
        left, right = int(columns[0]), int(columns[-1]) + 1
        if isinstance(margin, str):
            margin = round(float(margin[:-1]) / 100 * max(bottom - top, right - left))
        box = top - margin, bottom + margin, left - margin, right + margin
        height, width = visible.shape
        if not beyond:
            box = max(0, box[0]), min(height, box[1]), max(0, box[2]), min(width, box[3])
        return self._boxed(*box)

    def on_canvas(self, canvas: int | str) -> "Matte":
        """Pads photo and matte to a shape, or fits them into a square; the subject stays centred.

        Args:
            canvas: "square", or a shape such as "4:5", width to height; or the pixels of each side
                of a square into which the picture is enlarged or reduced. What is added is
                transparent.

        Returns:
            The `Matte`.

        Raises:
            UsageError: if the canvas is none of these, or has too many pixels.
        """
        canvas = read_canvas(canvas)
        if isinstance(canvas, int):
            scaled = self._scaled(canvas / max(self.prediction.shape))
            target = canvas, canvas
        else:
            scaled = self
            across, down = map(float, canvas.split(":"))
            height, width = self.prediction.shape
            target = (
                max(height, round(width * down / across)),
                max(width, round(height * across / down)),
            )
        height, width = scaled.prediction.shape
        top, left = (target[0] - height) // 2, (target[1] - width) // 2
        return scaled._boxed(-top, target[0] - top, -left, target[1] - left)

    def _boxed(self, top: int, bottom: int, left: int, right: int) -> "Matte":
        """Takes a box of photo and matte; where it leaves the photo, it is transparent."""
        if (bottom - top) * (right - left) > MAX_PIXELS:
            raise UsageError(
                f"A picture of {right - left}x{bottom - top} is more than {MAX_PIXELS:,} pixels; "
                "choose a smaller margin or canvas."
            )
        height, width = self.prediction.shape
        part = slice(max(0, top), min(height, bottom)), slice(max(0, left), min(width, right))
        margins = (
            (part[0].start - top, bottom - part[0].stop),
            (part[1].start - left, right - part[1].stop),
        )
        opacity = self.photo.opacity
        if opacity is None and any(map(any, margins)):
            opacity = np.full((height, width), 255, np.uint8)

        def boxed(array: np.ndarray, outside: int) -> np.ndarray:
            # A copy in any case, or the whole photo would stay in memory.
            edges = margins if array.ndim == 2 else (*margins, (0, 0))
            return np.pad(array[part], edges, constant_values=outside)

        photo = replace(
            self.photo,
            rgb=boxed(self.photo.rgb, 255),
            opacity=None if opacity is None else boxed(opacity, 0),
        )
        return Matte(photo, boxed(self.prediction, 0), self.notes)

    def _scaled(self, scale: float) -> "Matte":
        """Enlarges or reduces photo and matte."""
        height, width = self.prediction.shape
        size = max(1, round(width * scale)), max(1, round(height * scale))

        def scaled(array: np.ndarray, method: Image.Resampling) -> np.ndarray:
            return np.asarray(Image.fromarray(array).resize(size, method))

        opacity = self.photo.opacity
        # Lanczos would overshoot at the edges of a matte.
        photo = replace(
            self.photo,
            rgb=scaled(self.photo.rgb, Image.Resampling.LANCZOS),
            opacity=None if opacity is None else scaled(opacity, Image.Resampling.BILINEAR),
        )
        prediction = scaled(self.prediction, Image.Resampling.BILINEAR).clip(0, 1)
        return Matte(photo, prediction, self.notes)

    def threshold(self, value: float = 0.5) -> "Matte":
        """Makes the prediction hard: 1 where it is at least `value`, 0 elsewhere.

        Args:
            value: number above 0, at most 1.

        Returns:
            The `Matte`. The photo's own opacity is not changed.

        Raises:
            UsageError: if the value is out of range.
        """
        if not 0 < value <= 1:
            raise UsageError(f"value: expected a number above 0 and at most 1, received {value}.")
        hard = (self.prediction >= value).astype(np.float32)
        return Matte(self.photo, hard, self.notes)

    def erode(self, pixels: int) -> "Matte":
        """Shrinks the subject, or grows it.

        Args:
            pixels: each pixel gets the least prediction of the square that reaches this many
                pixels to each side. A negative number grows the subject: the greatest prediction.
                Where the subject touches the border of the photo, it keeps touching it.

        Returns:
            The `Matte`. The photo's own opacity is not changed.

        Raises:
            TypeError: if `pixels` is not a whole number.
        """
        pixels = whole_number("pixels", pixels, -_MOST_PIXELS, _MOST_PIXELS)
        choose = np.minimum if pixels > 0 else np.maximum
        moved = over_squares(self.prediction, abs(pixels), choose)
        return Matte(self.photo, moved, self.notes)

    def keep_largest(self) -> "Matte":
        """Keeps the largest connected part of the subject and removes everything else.

        Returns:
            The `Matte` whose prediction is 0 outside the largest 4-connected component of the
            pixels of a prediction of at least 0.05.
        """
        largest = largest_component(self.prediction >= _VISIBLE)
        kept = np.where(largest, self.prediction, np.float32(0))
        return Matte(self.photo, kept, self.notes)

    def foreground(self, method: str = "ml") -> np.ndarray:
        """Estimates the colours of the foreground, once for each method.

        Args:
            method: "ml", "fast" or "none", as in
                `kmatting.pictures.foreground.estimate_foreground`.

        Returns:
            uint8 array (H, W, 3), read-only.

        Raises:
            UsageError: if the method is unknown.
        """
        known: dict[str, np.ndarray] = self.__dict__["_colours"]
        if method not in known:
            # The photo's own colours and the prediction belong together; opacity comes on top.
            image = self.photo.rgb
            if self.photo.opacity is not None:
                # Colours of fully transparent pixels are arbitrary; the network saw white there.
                image = np.where((self.photo.opacity > 0)[..., None], image, np.uint8(255))
            known[method] = _read_only(estimate_foreground(image, self.prediction, method))
        return known[method]

    def alpha_image(self, bits: int = 8) -> Image.Image:
        """Returns the alpha as a grey image.

        Args:
            bits: 8, or 16 for a finer PNG or TIFF.

        Returns:
            PIL image of the photo's size, in mode L or I;16.

        Raises:
            UsageError: if `bits` is neither 8 nor 16.
        """
        if bits not in (8, 16):
            raise UsageError(f"bits: expected 8 or 16, received {bits}.")
        dtype = np.uint8 if bits == 8 else np.uint16
        return Image.fromarray(np.rint(self.alpha * np.iinfo(dtype).max).astype(dtype))

    def cutout(self, foreground: str = "ml", **options: Any) -> Image.Image:
        """Cuts the subject out.

        Args:
            foreground: as in `foreground`.
            **options: edits and `shadow` as in `save`.

        Returns:
            PIL image in mode RGBA, of the photo's size unless an option changes it.
        """
        return self.picture(foreground=foreground, **options).pil_image()

    def composite(
        self, background: Background, foreground: str = "ml", **options: Any
    ) -> Image.Image:
        """Lays the subject over a new background.

        Args:
            background: a colour or an image, as in
                `kmatting.pictures.compose.read_background`. An image is scaled to cover the photo
                and cropped around its centre.
            foreground: as in `foreground`.
            **options: edits and `shadow` as in `save`.

        Returns:
            PIL image in mode RGB, of the photo's size unless an option changes it.
        """
        return self.picture(background, foreground=foreground, **options).pil_image()

    def panel(
        self, foreground: str = "ml", cell: int = 384, backgrounds: tuple[Background, ...] = ()
    ) -> Image.Image:
        """Draws photo, matte, cutout and composites side by side.

        Args:
            foreground: as in `foreground`.
            cell: side in pixels of the square that holds each picture, from 16 to 4096.
            backgrounds: of the composites, as in `composite`.

        Returns:
            PIL image in mode RGB.

        Raises:
            UsageError: if the cell is out of range.
            TypeError: if it is not a whole number.
        """
        cell = whole_number("cell", cell, *CELLS)
        kinds = ("panel", "composite") if backgrounds else ("panel",)
        wanted = Wanted(kinds, tuple(backgrounds), foreground=foreground)
        return draw_panel(self, "panel", wanted, read_backgrounds(wanted), cell)

    def save(
        self,
        path: str | os.PathLike[str],
        foreground: str = "ml",
        background: Background | None = None,
        keep_metadata: bool = False,
        **options: Any,
    ) -> None:
        """Saves the cutout, or a composite, as `kmatting predict` does.

        Args:
            path: a `.png`, `.tif`, `.webp` or `.avif` file; with a background also `.jpg` or
                `.bmp`. Its folder is made if needed.
            foreground: as in `foreground`.
            background: None for the cutout, else as in `composite`.
            keep_metadata: whether the file gets the photo's EXIF data and ICC profile.
            **options: further fields of `kmatting.Wanted`, such as `shadow=0.5`, `crop="10%"`,
                `canvas=2000` or `bits=16`.

        Raises:
            UsageError: if the format is another or has no transparency, or an option is wrong.
            ImageError: if the background cannot be read, or the format cannot hold the picture.
            OSError: if the file cannot be written.
        """
        suffix = Path(path).suffix.lower()
        kind = "cutout" if background is None else "composite"
        allowed = KINDS[kind].suffixes
        if suffix not in allowed:
            what = "with transparency" if background is None else "for a composite"
            hint = ""
            if background is None:
                hint = (
                    " For others, choose a background: matte.save('photo.jpg', background='white')."
                )
            raise UsageError(f"{path}: expected a format {what} ({', '.join(allowed)}).{hint}")
        picture = self.picture(
            background, suffix, foreground=foreground, keep_metadata=keep_metadata, **options
        )
        picture.write(path)

    def picture(
        self, background: Background | None = None, suffix: str = ".png", **options: Any
    ) -> Picture:
        """Makes the cutout, or a composite, with the options of its writer.

        Args:
            background: None for the cutout, else as in `composite`.
            suffix: of the file that it is for.
            **options: fields of `kmatting.Wanted`.

        Returns:
            The `Picture`, which can be written to a file or encoded to bytes.

        Raises:
            UsageError: if the format does not hold such a picture, or an option is wrong.
        """
        kind = "cutout" if background is None else "composite"
        backgrounds = () if background is None else (background,)
        wanted = Wanted((kind,), backgrounds, {kind: suffix}, **options)
        return next(make_pictures(self, wanted))

    def _repr_png_(self) -> bytes:
        """Shows the matte in a notebook."""
        wanted = Wanted(("panel",))
        return next(make_pictures(self, wanted)).encode()

    def reduced(self, longest: int) -> "Matte":
        """Reduces photo and prediction so that no side is longer."""
        height, width = self.prediction.shape
        scale = min(1.0, longest / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))

        def reduced(array: np.ndarray) -> np.ndarray:
            return np.asarray(Image.fromarray(array).resize(size, Image.Resampling.BOX))

        opacity = None if self.photo.opacity is None else reduced(self.photo.opacity)
        return Matte(Photo(reduced(self.photo.rgb), opacity), reduced(self.prediction))


def _checked(photo: Photo, prediction: Any) -> np.ndarray:
    """Checks a prediction; returns it as float32."""
    if not isinstance(photo, Photo):
        raise UsageError(
            f"photo: expected a Photo, received {type(photo).__name__}. Read one with "
            "kmatting.images.read_photo, which takes arrays, too."
        )
    hint, shape = "", photo.rgb.shape[:2]
    if isinstance(prediction, np.ma.MaskedArray):
        hint = " Fill a masked array first: prediction.filled(0)."
    elif not isinstance(prediction, np.ndarray):
        hint = f" It is of type {type(prediction).__name__}."
    elif prediction.dtype.kind != "f":
        hint = " Divide levels of 8 bits by 255: prediction / np.float32(255)."
    elif prediction.shape == (*shape, 1):
        hint = " Drop the last axis: prediction[..., 0]."
    elif prediction.shape == shape and prediction.size:
        lowest, highest = prediction.min(), prediction.max()
        if lowest >= 0 and highest <= 1:
            return prediction.astype(np.float32, copy=False)
        if lowest >= -_ROUNDING and highest <= 1 + _ROUNDING:
            return prediction.astype(np.float32).clip(0, 1)
        if math.isfinite(lowest) and math.isfinite(highest):
            hint = f" Its values lie in [{lowest:.4g}, {highest:.4g}]."
        else:
            hint = " It holds NaN or infinity."
    received = f"{getattr(prediction, 'dtype', '')} {getattr(prediction, 'shape', '')}".strip()
    raise UsageError(
        f"prediction: expected a float array {shape} in [0, 1], of the photo's size, received "
        f"{received or 'something else'}.{hint}"
    )


def _read_only(array: np.ndarray) -> np.ndarray:
    array = array.view()
    array.flags.writeable = False
    return array
