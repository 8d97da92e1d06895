"""The result for one photo: alpha, foreground colours, cutout, composite."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from kmatting.images import Photo, Source
from kmatting.inference.cutout import (
    Colour,
    composite,
    cutout,
    estimate_foreground,
    read_background,
)
from kmatting.panel import draw_panel


@dataclass(frozen=True, eq=False)
class Matte:
    """A photo and what the network says of it.

    Attributes:
        photo: the photo, upright.
        prediction: float32 array (H, W) in [0, 1] of the photo's size.
    """

    photo: Photo
    prediction: np.ndarray

    @cached_property
    def alpha(self) -> np.ndarray:
        """The matte: float32 array (H, W) in [0, 1].

        The prediction, times the photo's own opacity where it has some: what was transparent stays
        so.
        """
        if self.photo.opacity is None:
            return self.prediction
        return self.prediction * (self.photo.opacity / np.float32(255))

    def foreground(self, method: str = "ml") -> np.ndarray:
        """Estimates the foreground's colours.

        Args:
            method: "ml" or "none", as in `kmatting.inference.cutout.estimate_foreground`.

        Returns:
            uint8 array (H, W, 3).

        Raises:
            ValueError: if pymatting is missing (extra `foreground`) or the method unknown.
        """
        # The photo's own colours and the prediction belong together; its opacity comes on top.
        image = self.photo.rgb
        if self.photo.opacity is not None:
            # Colours of fully transparent pixels are arbitrary; the network saw white there.
            image = np.where((self.photo.opacity > 0)[..., None], image, np.uint8(255))
        return estimate_foreground(image, self.prediction, method)

    def cutout(self, foreground: str = "ml") -> Image.Image:
        """Cuts the subject out.

        Args:
            foreground: as in `foreground`.

        Returns:
            PIL image in mode RGBA, of the photo's size.
        """
        return cutout(self.foreground(foreground), self.alpha)

    def composite(self, background: Source | Colour, foreground: str = "ml") -> Image.Image:
        """Lays the subject over a new background.

        Args:
            background: a colour or an image, as in
                `kmatting.inference.cutout.read_background`. An image is scaled until it covers
                the photo and cropped around its centre.
            foreground: as in `foreground`.

        Returns:
            PIL image in mode RGB, of the photo's size.
        """
        return composite(self.foreground(foreground), self.alpha, read_background(background))

    def panel(self, foreground: str = "ml", cell: int = 384) -> Image.Image:
        """Draws photo, matte and composites side by side, for a look.

        Args:
            foreground: as in `foreground`.
            cell: side in pixels of the square that each picture is fitted into.

        Returns:
            PIL image in mode RGB.
        """
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
