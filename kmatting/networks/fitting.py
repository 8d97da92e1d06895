"""The way of a photo into a network and of its alpha back: size, resize, pad, crop.

This is the one rule for prediction, calibration and the checks of exports. Two copies follow it:
`kmatting.exporting.graph.fitting` in TensorFlow and `web/matter.js` in the browser.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from kmatting.sizes import fitted_size, network_size, padded

_LEAST_SHARE = 0.8  # of the input, which a photo of 5:2 fills in a square one


@dataclass(frozen=True)
class Fitting:
    """How a photo fills the input of a network.

    Attributes:
        photo: height and width of the photo in pixels.
        seen: height and width at which the network sees it.
        size: height and width of the network's input; beyond `seen`, the photo's border is
            repeated.
    """

    photo: tuple[int, int]
    seen: tuple[int, int]
    size: tuple[int, int]

    def note(self) -> str:
        """Returns a remark if the photo fills so little of the input that its matte is coarse."""
        share = math.prod(self.seen) / math.prod(self.size)
        if share >= _LEAST_SHARE:
            return ""
        return (
            f"the network saw this long photo at {self.seen[1]}x{self.seen[0]} pixels; a .keras or "
            ".onnx model sees more of it"
        )

    def batch(self, image: np.ndarray) -> np.ndarray:
        """Resizes and pads a uint8 photo (H, W, 3); returns a batch (1, *size, 3)."""
        # Bilinear with averaging, as in training; it would blur a photo that is enlarged.
        enlarged = self.seen[0] * self.seen[1] > self.photo[0] * self.photo[1]
        method = Image.Resampling.LANCZOS if enlarged else Image.Resampling.BILINEAR
        small = np.asarray(Image.fromarray(image).resize(self.seen[::-1], method))
        margins = [(0, side - seen) for side, seen in zip(self.size, self.seen, strict=True)]
        return np.pad(small, (*margins, (0, 0)), mode="edge")[None]

    def crop(self, alpha: np.ndarray) -> np.ndarray:
        """Takes the photo's part of a network's output (1, *size, 1); returns it as (h, w)."""
        return alpha[0, : self.seen[0], : self.seen[1], 0]


def fit_any_size(height: int, width: int, size: int) -> Fitting:
    """Fits a photo to a network that takes any size, at the area of `size` x `size` pixels."""
    seen = network_size(height, width, size)
    return Fitting((height, width), seen, (padded(seen[0]), padded(seen[1])))


def fit_fixed_size(height: int, width: int, size: tuple[int, int]) -> Fitting:
    """Fits a photo to a network whose input has one height and width."""
    return Fitting((height, width), fitted_size(height, width, size), size)
