"""Hands batches to Keras: in 8 bits to the device, which casts and scales them there."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from kmatting.data.pipeline import Batches, Data


def feed(batches: Batches, data: Data) -> Any:
    """Makes of batches what `fit` and `evaluate` take.

    With TensorFlow that is a `tf.data.Dataset`, which its strategies can distribute; with other
    backends a `keras.utils.PyDataset`.

    Args:
        batches: `data.train()` or `data.validation()`.
        data: what they belong to.

    Returns:
        The dataset, or None for batches of which there are none. The network needs
        `scale_on_device`.
    """
    if batches.steps == 0:
        return None
    if keras.backend.backend() != "tensorflow":
        return _Feed(batches)
    import tensorflow as tf  # here, as the other backends do without it

    samples, size = data.batch_size // data.workers, data.config.size
    specs = [
        tf.TensorSpec((samples, *size, 3), tf.uint8),
        tf.TensorSpec((samples, *size, 1), tf.int16),
        tf.TensorSpec((samples,), tf.float32),  # the weight of samples that are validated on
    ]
    signature = tuple(specs[:2] if batches.steps is None else specs)
    dataset = tf.data.Dataset.from_generator(lambda: batches, output_signature=signature)
    if batches.steps is not None:  # `evaluate` counts a step too much if it does not know
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(batches.steps))
    options = tf.data.Options()
    # There is nothing to tune, and the thread that would do it can keep the end waiting.
    options.autotune.enabled = False
    return dataset.prefetch(1).with_options(options)


@contextlib.contextmanager
def own_errors(*sources: Batches) -> Iterator[None]:
    """Raises the original error where a backend has wrapped what happened in a thread of ours.

    Args:
        *sources: the batches that are read.

    Raises:
        DataError: if a file became unreadable since it was checked.
    """
    try:
        yield
    except Exception:
        for batches in sources:
            if batches.failure is not None:
                raise batches.failure from None
        raise


class _Feed(keras.utils.PyDataset):
    """Batches by number. Keras asks for them in order, and now and then starts anew."""

    def __init__(self, batches: Batches) -> None:
        super().__init__()
        self._batches = batches
        self._next = -1

    @property
    def num_batches(self) -> int | None:
        """Number of batches; None for no end."""
        return self._batches.steps

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        if index != self._next:
            self._iterator = self._batches.iterate(index)
        self._next = index + 1
        return next(self._iterator)


def scale_on_device(model: keras.Model) -> None:
    """Lets a network be trained and evaluated on batches of integers.

    The steps of this one network are wrapped, not those of a subclass, so that checkpoints hold a
    plain `keras.Model`.

    Args:
        model: the network; changed in place. Batches of floats pass as they are.
    """
    model.train_step = _with_floats(model.train_step)
    model.test_step = _with_floats(model.test_step)


def _with_floats(step: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*arguments: Any) -> Any:
        *state, data = arguments  # JAX passes its state, too
        return step(*state, to_floats(data))

    return wrapped


def to_floats(data: tuple[Any, ...]) -> tuple[Any, ...]:
    """Casts and scales a batch.

    Args:
        data: image, uint8 (N, H, W, 3); alpha, int16 (N, H, W, 1) from 0 to 255, negative where it
            is unknown; and possibly a weight (N,).

    Returns:
        The same, image and alpha as float32 in [0, 1], or -1 where the alpha is unknown. A batch
        that holds floats is returned as it is.
    """
    image, alpha, *weight = data
    if keras.backend.standardize_dtype(image.dtype) != "uint8":
        return data
    image = ops.cast(image, "float32") / 255
    alpha = ops.cast(alpha, "float32")
    return image, ops.where(alpha < 0, -1.0, alpha / 255), *weight
