"""Synthetic samples as a data source; `kmatting.data.synthetic` draws them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from kmatting.data import synthetic
from kmatting.data.samples import Checker, Draw, Size, SourceSection


class SyntheticSource(SourceSection):
    """Procedural samples, made on the fly without any file; new ones in every epoch.

    Attributes:
        count: number of samples in an epoch.
    """

    kind: Literal["synthetic"] = "synthetic"
    count: int = Field(default=2000, ge=1, le=10**9)

    def open(self, checker: Checker) -> "SyntheticSet":
        """See `SourceSection`."""
        return SyntheticSet(self.count, self.weight)


@dataclass
class SyntheticSet:
    """Procedural samples, new ones each time; see `SampleSet`."""

    count: int
    weight: float = 1.0
    coarse: bool = False
    name: str = "synthetic"

    def __len__(self) -> int:
        return self.count

    def fractions(self) -> list[float]:
        """See `SampleSet`; the samples have no names."""
        return []

    def split(self, share: float) -> tuple["SyntheticSet", "SyntheticSet"]:
        """See `SampleSet`; the first part stays whole, as no sample is ever drawn for both."""
        return self, SyntheticSet(max(1, round(share * self.count)), self.weight)

    def load(self, index: int, size: Size, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
        """Draws a sample."""
        return synthetic.sample(*draw, size)
