"""The result for one photo: alpha, foreground colours, cutout, composite."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kmatting.errors import UsageError
from kmatting.images import Photo, Source, write_image
from kmatting.images.regions import largest_component
from kmatting.inference.compose import (
    COMPOSITE_OPTIONS,
    CUTOUT_OPTIONS,
    Colour,
    composite,
    cutout,
    metadata_options,
    read_background,
    with_metadata,
)
from kmatting.inference.foreground import estimate_foreground
from kmatting.sizes import whole_number

_OPAQUE_SHARE = 0.001  # of the photo: a smaller subject counts as none
_VISIBLE = 0.05  # alpha below which a pixel does not count as a part of the subject
_MOST_PIXELS = 65536  # of a margin or a radius


@dataclass(frozen=True, eq=False, repr=False)
class Matte:
    """A photo and its predicted matte.

    The arrays are read-only; change a copy.

    Args:
        photo: the photo, upright.
        prediction: float32 array (H, W) in [0, 1], the network's matte at the photo's size.

    Examples:
        >>> matte = Matter()("photo.jpg")
        >>> matte.save("cutout.png")
        >>> matte.alpha_image().save("alpha.png")
        >>> matte.save("composite.jpg", background="white")
        >>> matte.keep_largest().crop(margin=20).save("subject.png")
    """

    photo: Photo
    prediction: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "prediction", _read_only(self.prediction))

    def __reduce__(self) -> tuple[Any, ...]:
        return Matte, (self.photo, self.prediction)

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
        return bool(np.count_nonzero(self.alpha >= 0.5) < _OPAQUE_SHARE * self.alpha.size)

    def remarks(self) -> list[str]:
        """Says what a user should know of the result, in a phrase each.

        Returns:
            Remarks that the file holds several frames or pages, and that no subject was found.
        """
        remarks = [self.photo.note(), "no subject found" if self.is_empty else ""]
        return [remark for remark in remarks if remark]

    def crop(self, margin: int = 0) -> "Matte":
        """Crops photo and matte to the subject.

        Args:
            margin: pixels kept around the subject, as far as the photo has them.

        Returns:
            The `Matte` of the smallest rectangle that holds every pixel of an alpha of at least
            0.05, and the margin.

        Raises:
            ValueError: if there is no such pixel, or the margin is negative.
            TypeError: if the margin is not a whole number.
        """
        margin = whole_number("margin", margin, 0, _MOST_PIXELS)
        visible = self.alpha >= _VISIBLE
        rows, columns = (np.flatnonzero(visible.any(axis)) for axis in (1, 0))
        if not rows.size:
            raise UsageError("The matte is empty: there is no subject to crop to.")
        part = (
            slice(max(0, rows[0] - margin), rows[-1] + 1 + margin),
            slice(max(0, columns[0] - margin), columns[-1] + 1 + margin),
        )
        # Copies, or the whole photo would stay in memory.
        opacity = None if self.photo.opacity is None else self.photo.opacity[part].copy()
        photo = replace(self.photo, rgb=self.photo.rgb[part].copy(), opacity=opacity)
        return Matte(photo, self.prediction[part].copy())

    def threshold(self, value: float = 0.5) -> "Matte":
        """Makes the prediction hard: 1 where it is at least `value`, 0 elsewhere.

        Args:
            value: number above 0, at most 1.

        Returns:
            The `Matte`. The photo's own opacity is not changed.

        Raises:
            ValueError: if the value is out of range.
        """
        if not 0 < value <= 1:
            raise UsageError(f"value: expected a number above 0 and at most 1, received {value}.")
        return Matte(self.photo, (self.prediction >= value).astype(np.float32))

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
        return Matte(self.photo, _over_squares(self.prediction, abs(pixels), choose))

    def keep_largest(self) -> "Matte":
        """Keeps the largest connected part of the subject and removes everything else.

        Returns:
            The `Matte` whose prediction is 0 outside the largest 4-connected component of the
            pixels of a prediction of at least 0.05.
        """
        largest = largest_component(self.prediction >= _VISIBLE)
        return Matte(self.photo, np.where(largest, self.prediction, np.float32(0)))

    def foreground(self, method: str = "ml") -> np.ndarray:
        """Estimates the colours of the foreground.

        Args:
            method: "ml", "fast" or "none", as in
                `kmatting.inference.foreground.estimate_foreground`.

        Returns:
            uint8 array (H, W, 3).

        Raises:
            ValueError: if the method is unknown.
        """
        # The photo's own colours and the prediction belong together; its opacity comes on top.
        image = self.photo.rgb
        if self.photo.opacity is not None:
            # Colours of fully transparent pixels are arbitrary; the network saw white there.
            image = np.where((self.photo.opacity > 0)[..., None], image, np.uint8(255))
        return estimate_foreground(image, self.prediction, method)

    def alpha_image(self, bits: int = 8) -> Image.Image:
        """Returns the alpha as a grey image.

        Args:
            bits: 8, or 16 for a finer PNG or TIFF.

        Returns:
            PIL image of the photo's size, in mode L or I;16.

        Raises:
            ValueError: if `bits` is neither 8 nor 16.
        """
        if bits not in (8, 16):
            raise UsageError(f"bits: expected 8 or 16, received {bits}.")
        dtype = np.uint8 if bits == 8 else np.uint16
        return Image.fromarray(np.rint(self.alpha * np.iinfo(dtype).max).astype(dtype))

    def cutout(self, foreground: str = "ml") -> Image.Image:
        """Cuts the subject out.

        Args:
            foreground: as in `foreground`.

        Returns:
            PIL image in mode RGBA, of the photo's size.
        """
        return cutout(self.foreground(foreground), self.alpha)

    def save(
        self,
        path: str | os.PathLike[str],
        foreground: str = "ml",
        background: Source | Colour | None = None,
        keep_metadata: bool = False,
    ) -> None:
        """Saves the cutout, or a composite.

        Args:
            path: a `.png`, `.webp`, `.tif` or `.tiff` file; with a background also a `.jpg` or
                `.jpeg` file. Its folder is made if needed.
            foreground: as in `foreground`.
            background: None for the cutout, else as in `composite`.
            keep_metadata: whether the file gets the photo's EXIF data and ICC profile, see
                `kmatting.inference.compose.with_metadata`.

        Raises:
            ValueError: if the format is another or has no transparency, or as in `foreground`.
            OSError: if the file cannot be written.
        """
        suffix = Path(path).suffix.lower()
        allowed = CUTOUT_OPTIONS if background is None else COMPOSITE_OPTIONS
        if suffix not in allowed:
            kind = "with transparency" if background is None else "for a composite"
            hint = ""
            if background is None:
                hint = (
                    " For others, choose a background: matte.save('photo.jpg', background='white')."
                )
            raise UsageError(f"{path}: expected a format {kind} ({', '.join(allowed)}).{hint}")
        if background is None:
            picture = self.cutout(foreground)
        else:
            picture = self.composite(background, foreground)
        options = allowed[suffix]
        if keep_metadata:
            picture = with_metadata(picture, self.photo)
            options = {**options, **metadata_options(picture, suffix)}
        write_image(path, picture, **options)

    def composite(self, background: Source | Colour, foreground: str = "ml") -> Image.Image:
        """Lays the subject over a new background.

        Args:
            background: a colour or an image, as in
                `kmatting.inference.compose.read_background`. An image is scaled to cover the photo
                and cropped around its centre.
            foreground: as in `foreground`.

        Returns:
            PIL image in mode RGB, of the photo's size.
        """
        return self.composites([background], foreground)[0]

    def composites(
        self, backgrounds: Iterable[Source | Colour], foreground: str = "ml"
    ) -> list[Image.Image]:
        """Lays the subject over several backgrounds; its colours are estimated once.

        Args:
            backgrounds: each as in `composite`.
            foreground: as in `foreground`.

        Returns:
            PIL images in mode RGB, of the photo's size.
        """
        behind = [read_background(each) for each in backgrounds]
        colours = self.foreground(foreground)
        return [composite(colours, self.alpha, each) for each in behind]

    def panel(self, foreground: str = "ml", cell: int = 384) -> Image.Image:
        """Draws photo, alpha and composites side by side.

        Args:
            foreground: as in `foreground`.
            cell: side in pixels of the square that holds each picture.

        Returns:
            PIL image in mode RGB.
        """
        from kmatting.images.panel import draw_panel  # here, as its fonts take time to load

        small = self._reduced(cell)
        colours = small.foreground(foreground)
        backgrounds = {"white": (255, 255, 255), "black": (0, 0, 0), "green": (0, 160, 0)}
        composites = [
            np.asarray(composite(colours, small.alpha, colour)) for colour in backgrounds.values()
        ]
        row = [small.photo.flatten(), small.alpha, *composites]
        captions = ["image", "alpha", *(f"over {name}" for name in backgrounds)]
        return Image.fromarray(draw_panel([row], captions, cell=cell))

    def _reduced(self, longest: int) -> "Matte":
        """Reduces photo and prediction so that no side is longer."""
        height, width = self.prediction.shape
        scale = min(1.0, longest / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))

        def reduced(array: np.ndarray) -> np.ndarray:
            return np.asarray(Image.fromarray(array).resize(size, Image.Resampling.BOX))

        opacity = None if self.photo.opacity is None else reduced(self.photo.opacity)
        return Matte(Photo(reduced(self.photo.rgb), opacity), reduced(self.prediction))


def _over_squares(values: np.ndarray, reach: int, choose: np.ufunc) -> np.ndarray:
    """Takes the least or the greatest value of the square around each pixel of an array (H, W)."""
    for _axis in range(2):
        done = 0
        while done < min(reach, len(values)):
            shift = min(done + 1, reach - done)  # leaves no gap between the copies
            chosen = values.copy()
            choose(chosen[shift:], values[:-shift], out=chosen[shift:])
            choose(chosen[:-shift], values[shift:], out=chosen[:-shift])
            values, done = chosen, done + shift
        values = values.T
    return values


def _read_only(array: np.ndarray) -> np.ndarray:
    array = array.view()
    array.flags.writeable = False
    return array
