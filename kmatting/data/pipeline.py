"""The tf.data pipeline: from the sources of a config to batches.

The seed and the number of a sample, counted from the first step of the first epoch, decide which
sample it is and every random draw in it. So the order is the same each time, whatever runs in
parallel, and a resumed run starts at any epoch without replaying the others.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from kmatting.data.augment import augment, without_outline
from kmatting.data.checking import FileChecker
from kmatting.data.config import DataConfig
from kmatting.data.samples import SampleSet
from kmatting.data.sources import open_sources
from kmatting.errors import DataError, ImageError


def build(
    config: DataConfig, seed: int, batch_size: int, worker: int = 0, workers: int = 1
) -> "Data":
    """Opens the data of a run and checks its files, which may take a while the first time.

    Args:
        config: the data section of a config.
        seed: of all random draws, 0 or more.
        batch_size: samples a step, over all replicas together.
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
        batch_size: samples a step, over all replicas together.
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
    _failure: DataError | None = field(default=None, init=False)

    def description(self) -> str:
        """Describes everything that decides the samples, except the pixels of the files."""
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

    def train(self, first_epoch: int = 0) -> tf.data.Dataset:
        """Makes the training dataset, which is endless.

        Args:
            first_epoch: number of the epoch to start at, from 0.

        Returns:
            Dataset of batches (image, alpha): float32 (N, H, W, 3) and (N, H, W, 1) in [0, 1]; the
            alpha is -1 where it is unknown, along the outlines of coarse sources.
        """
        steps = tf.data.Dataset.range(first_epoch * self.steps_per_epoch, np.iinfo(np.int64).max)
        return self._batches(steps, self._train_sample)

    def validation(self) -> tf.data.Dataset | None:
        """Makes the validation dataset: every sample once, in fixed order, not augmented.

        All batches are full. The last is padded with samples of weight 0, and the other samples
        weigh more in turn, so that Keras's mean over the batches is the mean over the samples.

        Returns:
            Dataset of batches (image, alpha, weight): float32 (N, H, W, 3) and (N, H, W, 1) in
            [0, 1], and (N,). None where there is nothing to validate on.
        """
        if not self.validation_sets:
            return None
        padded = self.validation_steps * self.batch_size
        weight = np.float32(padded / self.validation_samples)

        def weighted_sample(number: Any) -> tuple[Any, Any, Any]:
            image, alpha = self._plain_sample(tf.minimum(number, self.validation_samples - 1))
            return image, alpha, tf.where(number < self.validation_samples, weight, 0.0)

        return self._batches(tf.data.Dataset.range(self.validation_steps), weighted_sample)

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
        images, alphas = zip(*samples, strict=True)
        return np.stack(images), np.stack(alphas)

    @contextlib.contextmanager
    def clear_errors(self) -> Iterator[None]:
        """Raises the original DataError where TensorFlow has wrapped it in an error of its own.

        Raises:
            DataError: if a file became unreadable since it was checked.
        """
        try:
            yield
        except tf.errors.OpError:
            if self._failure is None:
                raise
            raise self._failure from None

    def _batches(self, steps: tf.data.Dataset, sample: Callable[[Any], Any]) -> tf.data.Dataset:
        """Makes this worker's part of each batch from the numbers of the samples in it."""
        part = self.batch_size // self.workers
        places = np.arange(part) + self.worker * part
        numbers = steps.map(lambda step: step * self.batch_size + places).unbatch()
        samples = numbers.map(sample, tf.data.AUTOTUNE)
        return samples.batch(part, drop_remainder=True).prefetch(2)

    def _train_sample(self, number: Any) -> tuple[Any, Any]:
        """Loads and augments training sample `number`."""
        sample, coarse = self._load(self._load_to_train, number)
        augmentation = self.config.augmentation
        sample = augment(sample, self.config.size, augmentation, [self.seed, number])
        image, alpha = sample[..., :3], sample[..., 3:]
        return image, tf.cond(coarse, lambda: without_outline(alpha), lambda: alpha)

    def _plain_sample(self, number: Any) -> tuple[Any, Any]:
        """Loads sample `number` of those that are not augmented."""
        sample, _ = self._load(self._load_plain, number)
        sample = tf.image.resize(sample, self.config.size, antialias=True)
        sample = tf.clip_by_value(sample, 0.0, 1.0)
        return sample[..., :3], sample[..., 3:]

    def _load(self, load: Callable[[int], tuple[np.ndarray, bool]], number: Any) -> Any:
        """Calls a loader from the graph; returns the sample, and whether its outline is coarse."""

        @tf.autograph.experimental.do_not_convert  # it runs as plain Python
        def load_or_remember(number: np.ndarray) -> tuple[np.ndarray, bool]:
            try:
                return load(int(number))
            except ImageError as error:
                self._failure = DataError(f"A file changed since it was checked: {error}")
                raise self._failure from error

        sample, coarse = tf.numpy_function(load_or_remember, [number], (tf.float32, tf.bool))
        sample.set_shape([None, None, 4])
        coarse.set_shape([])
        return sample, coarse

    def _load_to_train(self, number: int) -> tuple[np.ndarray, bool]:
        count = self.steps_per_epoch * self.batch_size
        epoch, place = divmod(number, count)
        lengths, shown = tuple(map(len, self.training_sets)), tuple(_shown(self.training_sets))
        which, index = _order(self.seed, epoch, lengths, shown, count)[place].tolist()
        # Only a part is shown, so the whole has to be larger.
        augmentation = self.config.augmentation
        part = 1 if augmentation.fit == "resize" else augmentation.crop_scale[0]
        height, width = (math.ceil(side / part) for side in self.config.size)
        samples = self.training_sets[which]
        return samples.load(index, (height, width), (2 * self.seed, number)), samples.coarse

    def _load_plain(self, number: int) -> tuple[np.ndarray, bool]:
        # A stream of draws of its own: no sample that is validated on is ever trained on.
        index = number
        for samples in self.validation_sets or self.training_sets:
            if index < len(samples):
                sample = samples.load(index, self.config.size, (2 * self.seed + 1, number))
                return sample, samples.coarse
            index -= len(samples)
        raise IndexError(number)


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
