"""The data sources that a config can name, and how they are opened.

To add one, write a module with its `SourceSection` and its `SampleSet`, and add it to `Source`.
"""

import warnings
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from kmatting.data.backgrounds import BackgroundsSource
from kmatting.data.checking import FileChecker
from kmatting.data.composites import CompositeSource
from kmatting.data.packing import ShardsSource
from kmatting.data.pairs import PairsSource
from kmatting.data.procedural import SyntheticSource
from kmatting.data.samples import SampleSet
from kmatting.errors import DataError

Source = Annotated[
    PairsSource | ShardsSource | CompositeSource | BackgroundsSource | SyntheticSource,
    Field(discriminator="kind"),
]


def open_sources(
    training: Sequence[Source], validation: Sequence[Source] | float, checker: FileChecker
) -> tuple[list[SampleSet], list[SampleSet]]:
    """Finds and checks all samples.

    Args:
        training: sources to train on.
        validation: sources to validate on, or the share of the training samples to hold out.
        checker: checks the files.

    Returns:
        The sets for training and those for validation, none of them empty.

    Raises:
        DataError: with everything that is wrong with the files; if nothing is left of a source; or
            if there are too few samples to hold some out.
    """
    own_validation = [] if isinstance(validation, float) else validation
    opened: list[SampleSet] = [source.open(checker) for source in [*training, *own_validation]]
    checker.report()
    for samples in opened:
        if len(samples) == 0:
            raise DataError(f"{samples.name}: no usable file is left without the bad ones.")
    if not isinstance(validation, float):
        return opened[: len(training)], opened[len(training) :]
    if validation == 0:
        return opened, []
    return _held_out(opened, validation)


def _held_out(opened: Sequence[SampleSet], share: float) -> tuple[list[SampleSet], list[SampleSet]]:
    """Splits a share of all sets off."""
    fractions = [fraction for samples in opened for fraction in samples.fractions()]
    if fractions and len(fractions) == sum(map(len, opened)):
        # Of very few files a small share may be none: then the first one is held out.
        share = max(share, np.nextafter(min(fractions), 1))
    halves = [(samples, *samples.split(share)) for samples in opened]
    lost = [samples for samples, kept, _ in halves if not len(kept)]
    if lost:
        listed = ", ".join(f"{samples.name} ({len(samples)} samples)" for samples in lost)
        raise DataError(
            f"validation: {share:.3g} by the hash of the names holds out every sample of {listed}, "
            "and nothing is left to train on. Add samples, lower `validation`, or set it to 0 or "
            "to sources of its own."
        )
    unseen = [samples.name for samples, _, held_out in halves if not len(held_out)]
    if unseen:
        warnings.warn(f"Held out for validation: no sample of {', '.join(unseen)}.", stacklevel=2)
    return [kept for _, kept, _ in halves], [held_out for *_, held_out in halves if len(held_out)]
