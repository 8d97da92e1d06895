"""From the sources of a config to batches, in NumPy.

The seed and the number of a sample, counted from the first step of the first epoch, decide which
sample it is and every random draw in it. So the order is the same each time, whatever runs in
parallel, and a resumed run starts at any step without replaying the others.
"""

import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from kmatting.data.augment import augment, fit, without_outline
from kmatting.data.checking import FileChecker
from kmatting.data.config import DataConfig
from kmatting.data.samples import SampleSet
from kmatting.data.sources import open_sources
from kmatting.errors import DataError, ImageError

_AHEAD = 2  # batches that are made before they are asked for

# image: uint8 (N, H, W, 3); alpha: int16 (N, H, W, 1), 0 to 255, or -1 where it is unknown.
Batch = tuple[np.ndarray, np.ndarray]
WeightedBatch = tuple[np.ndarray, np.ndarray, np.ndarray]  # and a float32 weight per sample (N,)


def build(
    config: DataConfig, seed: int, batch_size: int, worker: int = 0, workers: int = 1
) -> "Data":
    """Opens the data of a run and checks its files, which may take a while the first time.

    Args:
        config: the data section of a config.
        seed: of all random draws, 0 or more.
        batch_size: samples per step, over all replicas together.
        worker: index of this process among those that train together.
        workers: their number, a divisor of the batch size.

    Returns:
        The `Data`.

    Raises:
        DataError: with everything that is wrong with the data.
    """
    checker = FileChecker(config.on_bad_data, worker, workers)
    training, validation = open_sources(config.train, config.validation, checker)
    return Data(training, validation, config, seed, batch_size, worker, workers)


@dataclass
class Data:
    """The training and validation data of a run.

    Attributes:
        training_sets: sets to train on.
        validation_sets: sets to validate on; may be none.
        config: the data section of a config.
        seed: of all random draws.
        batch_size: samples per step, over all replicas together.
        worker: index of this process among those that train together; it gets its part of each
            batch.
        workers: their number.
    """

    training_sets: Sequence[SampleSet]
    validation_sets: Sequence[SampleSet]
    config: DataConfig
    seed: int
    batch_size: int
    worker: int = 0
    workers: int = 1

    def description(self) -> str:
        """Returns everything that decides the samples, except the pixels of the files."""
        sets = [
            [
                (type(samples).__name__, len(samples), samples.weight, samples.fractions())
                for samples in part
            ]
            for part in (self.training_sets, self.validation_sets)
        ]
        return repr((sets, self.config.size, self.config.augmentation, self.seed, self.batch_size))

    @property
    def train_samples(self) -> int:
        """Samples of one epoch of training, weights applied."""
        return sum(_shown(self.training_sets))

    @property
    def validation_samples(self) -> int:
        """Samples to validate on."""
        return sum(map(len, self.validation_sets))

    @property
    def steps_per_epoch(self) -> int:
        """Training steps of an epoch; its last batch is filled up with samples of the same sets."""
        return math.ceil(self.train_samples / self.batch_size)

    @property
    def validation_steps(self) -> int:
        """Batches of a validation; 0 where there is none."""
        return math.ceil(self.validation_samples / self.batch_size)

    def train(self, first_step: int = 0) -> "Batches":
        """Returns the batches to train on, which have no end.

        Args:
            first_step: number of the step to start at, from 0, counted over all epochs.

        Returns:
            An iterable of (image, alpha): uint8 (N, H, W, 3), and int16 (N, H, W, 1) from 0 to 255;
            -1 where the alpha is unknown, along the outlines of coarse sources.
        """
        return Batches(self._train_sample, None, self._numbers, first_step)

    def validation(self) -> "Batches":
        """Returns the batches to validate on: every sample once, in fixed order, not augmented.

        All batches are full. The last is padded with samples of weight 0, and the other samples
        weigh more in turn, so that Keras's mean over the batches is the mean over the samples.

        Returns:
            An iterable of (image, alpha, weight): the first two as in `train`, and float32 (N,). It
            is empty where there is nothing to validate on.
        """
        return Batches(self._weighted_sample, self.validation_steps, self._numbers)

    def panel_samples(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Loads a few fixed samples to look at, from the validation data if there is some.

        Args:
            count: number of samples; fewer are returned if there are fewer.

        Returns:
            images: float32 array (N, H, W, 3) in [0, 1].
            alphas: float32 array (N, H, W, 1) in [0, 1].
        """
        total = self.validation_samples or sum(map(len, self.training_sets))
        count = min(count, total)
        samples = [self._plain_sample(index * total // count) for index in range(count)]
        images, alphas = (np.stack(part) / np.float32(255) for part in zip(*samples, strict=True))
        return images, alphas

    def _numbers(self, step: int) -> range:
        """Returns the numbers of this worker's samples in a step."""
        part = self.batch_size // self.workers
        first = step * self.batch_size + self.worker * part
        return range(first, first + part)

    def _train_sample(self, number: int) -> tuple[np.ndarray, ...]:
        """Loads and augments training sample `number`."""
        count = self.steps_per_epoch * self.batch_size
        epoch, place = divmod(number, count)
        lengths, shown = tuple(map(len, self.training_sets)), tuple(_shown(self.training_sets))
        which, index = _order(self.seed, epoch, lengths, shown, count)[place].tolist()
        samples, size, augmentation = (
            self.training_sets[which],
            self.config.size,
            self.config.augmentation,
        )
        # Only a part is shown, so the whole has to be larger.
        part = 1 if augmentation.fit == "resize" else augmentation.crop_scale[0]
        least = math.ceil(size[0] / part), math.ceil(size[1] / part)
        if augmentation.turned:
            least = max(least), max(least)  # either side may become the height
        image, alpha = _loaded(samples, index, least, (2 * self.seed, number))
        random = np.random.default_rng((self.seed, number, 1))
        image, alpha = augment(image, alpha, size, augmentation, random)
        return image, (without_outline(alpha) if samples.coarse else alpha)[..., None]

    def _weighted_sample(self, number: int) -> tuple[Any, ...]:
        """Loads validation sample `number` with its weight."""
        padded = self.validation_steps * self.batch_size
        weight = padded / self.validation_samples if number < self.validation_samples else 0
        image, alpha = self._plain_sample(min(number, self.validation_samples - 1))
        return image, alpha, np.float32(weight)

    def _plain_sample(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Loads sample `number` of those that are not augmented."""
        index = number
        for samples in self.validation_sets or self.training_sets:
            if index < len(samples):
                # A stream of draws of its own: no sample that is validated on is ever trained on.
                draw = 2 * self.seed + 1, number
                image, alpha = fit(
                    *_loaded(samples, index, self.config.size, draw), self.config.size
                )
                return image, alpha[..., None]
            index -= len(samples)
        raise IndexError(number)


@dataclass
class Batches:
    """Batches that threads make ahead of their use, in order; each iteration starts anew.

    At most `_AHEAD` batches are held besides the one that is in use. The threads end with the
    iteration or with the process, whichever is first: a script may leave it at any place.

    Attributes:
        sample: makes the sample of a number: a tuple of arrays.
        steps: number of batches; None for no end.
        numbers: returns the numbers of the samples in a step.
        first_step: number of the first step.
        failure: the error that ended an iteration, or None.
    """

    sample: Callable[[int], tuple[np.ndarray, ...]]
    steps: int | None
    numbers: Callable[[int], range]
    first_step: int = 0
    failure: Exception | None = field(default=None, init=False)

    def __iter__(self) -> Iterator[Any]:
        return self.iterate()

    def iterate(self, skipped: int = 0) -> Iterator[Any]:
        """Makes the batches, after a number of them that are not made.

        Args:
            skipped: their number.

        Yields:
            The parts of each batch.
        """
        cv2.setNumThreads(1)  # one sample per thread is faster than one sample by all threads
        step = self.first_step + skipped
        last = None if self.steps is None else self.first_step + self.steps
        waiting: list[list[Future[tuple[np.ndarray, ...]]]] = []
        pool = ThreadPoolExecutor(os.cpu_count(), "kmatting-data")
        try:
            while True:
                while len(waiting) <= _AHEAD and (last is None or step < last):
                    waiting.append([pool.submit(self.sample, each) for each in self.numbers(step)])
                    step += 1
                if not waiting:
                    return
                samples = [future.result() for future in waiting.pop(0)]
                parts = zip(*samples, strict=True)
                yield tuple(np.stack(part, dtype=_dtype(index)) for index, part in enumerate(parts))
        except Exception as error:
            self.failure = error
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _dtype(part: int) -> type[np.generic]:
    """Returns the type of image, alpha and weight in a batch."""
    return (np.uint8, np.int16, np.float32)[part]


def _loaded(
    samples: SampleSet, index: int, size: tuple[int, int], draw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    try:
        return samples.load(index, size, draw)
    except ImageError as error:
        raise DataError(f"A file changed since it was checked: {error}") from error


def _shown(sets: Sequence[SampleSet]) -> list[int]:
    """Returns how many samples each set gives to an epoch."""
    return [max(1, round(samples.weight * len(samples))) for samples in sets]


@functools.lru_cache(maxsize=4)
def _order(
    seed: int, epoch: int, lengths: tuple[int, ...], shown: tuple[int, ...], count: int
) -> np.ndarray:
    """Draws the order of an epoch.

    Args:
        seed: of the run.
        epoch: number of the epoch.
        lengths: samples of each set.
        shown: samples of each set in an epoch. If there are fewer than the set has, they are a
            random choice; if there are more, samples are repeated.
        count: length of the order; the samples of the epoch are repeated to fill it.

    Returns:
        int64 array (count, 2) of set and index.
    """
    random = np.random.default_rng([seed, epoch])

    def shuffled(length: int, count: int) -> np.ndarray:
        laps = [random.permutation(length) for _ in range(math.ceil(count / length))]
        return np.concatenate(laps)[:count]

    indices = np.concatenate(list(map(shuffled, lengths, shown)))
    which = np.repeat(np.arange(len(shown)), shown)
    return np.stack([which, indices], axis=1)[shuffled(len(indices), count)]
