"""What Keras does not do itself when several replicas of a network train together.

A replica is the copy of the network on one device, of this machine or of another one.
"""

import contextlib
import functools
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from kmatting.errors import LostWorkerError, WorkersDifferError


def let_keras_fit(model: keras.Model) -> None:
    """Lets `fit` and `evaluate` of a network run under MultiWorkerMirroredStrategy.

    Keras 3.15 fails there in two places (keras issue 20585). To build the metrics it looks at a
    first batch, but cannot handle one that holds the values of several replicas; here it gets the
    values of one. And it averages each logged figure over the replicas and over a first axis, which
    a figure does not have; here it gets one of length 1.

    The methods of this one network are wrapped, not those of a subclass, so that checkpoints hold a
    plain `keras.Model`. A private name of Keras is used. A test says when Keras needs no help.

    Args:
        model: a network made in the scope of the strategy; changed in place.
    """
    _build_from_one_replica(model)
    _give_figures_an_axis(model)


def _build_from_one_replica(model: keras.Model) -> None:
    strategy, build = model.distribute_strategy, model._symbolic_build

    def build_for_one_replica(iterator: Any = None, data_batch: Any = None) -> None:
        if iterator is not None:
            _, _, batches = next(iter(iterator))
            data_batch = tuple(
                strategy.experimental_local_results(part)[0] for part in next(batches)
            )
        with strategy.scope():
            build(data_batch=data_batch)

    model._maybe_symbolic_build = build_for_one_replica


def _give_figures_an_axis(model: keras.Model) -> None:
    model.train_step = _with_axis(model.train_step)
    model.test_step = _with_axis(model.test_step)


def _with_axis(step: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    @functools.wraps(step)
    def wrapped(data: Any) -> dict[str, Any]:
        return {name: figure[None] for name, figure in step(data).items()}

    return wrapped


def distribute(strategy: tf.distribute.Strategy, dataset: tf.data.Dataset | None) -> Any:
    """Gives each replica of this worker its part of a batch.

    Args:
        strategy: the strategy.
        dataset: dataset of this worker's part of each batch, or None.

    Returns:
        A dataset for `fit`. Under MultiWorkerMirroredStrategy it has no end, or else the workers
        would ask one another before each step whether it has ended. Under other strategies it is
        `dataset`.
    """
    if dataset is None or not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return dataset
    part = dataset.element_spec[0].shape[0]
    replicas = len(strategy.extended.worker_devices)
    batches = dataset.rebatch(part // replicas, drop_remainder=True).repeat()
    return strategy.distribute_datasets_from_function(lambda _: batches)


def check_alike(strategy: tf.distribute.Strategy, **facts: str | bytes) -> None:
    """Checks that all workers agree.

    Args:
        strategy: a MultiWorkerMirroredStrategy.
        **facts: what they have to agree on, by its name in the message.

    Raises:
        WorkersDifferError: on every worker, with the names of what differs.
        LostWorkerError: if another worker ended.
    """
    sums = [zlib.crc32(fact.encode() if isinstance(fact, str) else fact) for fact in facts.values()]
    with name_lost_worker():
        rows = strategy.gather(tf.constant([sums], tf.int64), axis=0).numpy()
    differ = [name for name, sums in zip(facts, rows.T, strict=True) if len(set(sums)) > 1]
    if differ:
        raise WorkersDifferError(
            f"The workers do not agree on: {', '.join(differ)}. Start all of them with the same "
            "config, the same data and the same --output, a folder that all machines share."
        )


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Waits until all workers get here, so that the chief has written its files.

    Args:
        strategy: a MultiWorkerMirroredStrategy.

    Raises:
        LostWorkerError: if another worker ended.
    """
    with name_lost_worker():
        strategy.gather(tf.zeros([1]), axis=0)


@contextlib.contextmanager
def name_lost_worker() -> Iterator[None]:
    """Replaces TensorFlow's error about a lost connection by one that says what to do.

    Raises:
        LostWorkerError: if another worker ended.
    """
    try:
        yield
    except tf.errors.UnavailableError:
        raise LostWorkerError(
            "another worker ended or cannot be reached. See what it said, then start all again"
        ) from None


class MeanStatistics(keras.callbacks.Callback):
    """Sets the moving averages of batch norm on all replicas to their mean.

    Each replica averages what it sees. Keras would validate each replica with its own averages, and
    save those of the first. Averaging over time is linear, so taking the mean now and then gives
    what taking it in each step would.
    """

    def set_model(self, model: keras.Model) -> None:
        """Finds the moving averages."""
        super().set_model(model)
        self._statistics = [
            variable.value
            for variable in model.non_trainable_variables
            if variable.name in ("moving_mean", "moving_variance")
        ]
        run = model.distribute_strategy.run
        self._set_to_mean = tf.function(lambda: run(self._set_replica_to_mean), autograph=False)

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Takes the mean before the validation of an epoch."""
        self._set_to_mean()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Takes the mean before checkpoints are written, if there was no validation."""
        self._set_to_mean()

    def _set_replica_to_mean(self) -> None:
        if not self._statistics:
            return
        context = tf.distribute.get_replica_context()
        own = [tf.identity(variable) for variable in self._statistics]
        means = context.all_reduce(tf.distribute.ReduceOp.MEAN, own)
        for variable, mean in zip(self._statistics, means, strict=True):
            variable.assign(mean)
