"""Callbacks of training: checkpoints, logs, panels, and a stop when the loss is not a number."""

import contextlib
import csv
import io
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kmatting.config import Config
from kmatting.data.pipeline import Data
from kmatting.errors import CheckpointError, NaNLossError
from kmatting.files import whole_file
from kmatting.images import write_image
from kmatting.images.panel import draw_panel
from kmatting.training import replicas
from kmatting.training.run_folder import BEST, LAST, RunState, write_state

_PANEL_COLOUR = np.array([0.1, 0.7, 0.3], "float32")


def make_callbacks(
    config: Config,
    strategy: tf.distribute.Strategy,
    folder: Path,
    data: Data,
    model: keras.Model,
    state: RunState,
    is_chief: bool = True,
) -> list[keras.callbacks.Callback]:
    """Makes the callbacks of a run, in the order in which they are called.

    Args:
        config: the whole config.
        strategy: where the network is trained.
        folder: the run's folder.
        data: what the network is trained on.
        model: the network.
        state: where the run stands.
        is_chief: whether this process writes the files of the run.

    Returns:
        The callbacks.

    Raises:
        CheckpointError: if the log of a resumed run is damaged.
    """
    callbacks = [StopOnNaN(), Throughput(config.training.batch_size)]
    if strategy.num_replicas_in_sync > 1:
        callbacks.append(replicas.MeanStatistics())
    if config.training.average:
        callbacks.append(keras.callbacks.SwapEMAWeights())  # for validation
    if is_chief:
        for partial in folder.glob(".*.partial*"):  # of a run that was killed while it wrote
            partial.unlink()
        tensorboard = folder / "tensorboard"
        write_layer_graph(model, tensorboard / "train")
        callbacks += [
            CSVLog(folder / "log.csv", state.epoch),
            keras.callbacks.TensorBoard(str(tensorboard), write_graph=False),
            Panel(folder, *data.panel_samples(config.training.panel_samples)),
            # Last, so that an epoch with a checkpoint has all its other files.
            Checkpoint(folder, config.data.size, state.best),
        ]
    return callbacks


class StopOnNaN(keras.callbacks.Callback):
    """Stops training at the first loss that is NaN or infinite, by a NaNLossError."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Remembers the epoch for the message."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Checks the loss of a step."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise NaNLossError(
                f"The loss became {loss} in epoch {self._epoch + 1}, step {batch + 1}. "
                "The checkpoint of the last complete epoch is kept. Try a lower "
                "training.learning_rate, training.clip_norm=1, or training.precision=float32."
            )


class Throughput(keras.callbacks.Callback):
    """Adds `images_per_second` of training to the logs of each epoch.

    The first step of the first epoch is left out, since it traces the graph.

    Args:
        batch_size: images a step.
    """

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        self._traced = False

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Starts the clock."""
        self._start, self._steps = time.perf_counter(), 0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Counts a step."""
        if not self._traced:
            self._traced = True
            self._start = time.perf_counter()
            return
        self._steps += 1
        self._seconds = time.perf_counter() - self._start

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Adds the rate to the logs, which later callbacks write."""
        if self._steps and logs is not None:
            logs["images_per_second"] = self.batch_size * self._steps / self._seconds


class Checkpoint(keras.callbacks.Callback):
    """Saves the network after each epoch: `last.keras` to resume from, `best.keras` to use.

    `last.keras` also holds the state of the optimizer. `best.keras` is the network of the epoch
    with the lowest validation MAD, or of the last epoch if there is no validation; with
    `training.average` its weights are the averaged ones. Each file is written beside the former one
    and renamed, so that a kill at any moment leaves a complete one.

    Args:
        folder: the run's folder.
        size: height and width that the network is trained at; the files remember it.
        best: lowest validation MAD so far, None without any.
    """

    def __init__(self, folder: Path, size: tuple[int, int], best: float | None = None) -> None:
        super().__init__()
        self.folder = folder
        self.size = size
        self.best = math.inf if best is None else best

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Writes the checkpoints of a complete epoch."""
        mad = (logs or {}).get("val_mad")
        if mad is None or mad < self.best:
            self.best = math.inf if mad is None else mad
            with whole_file(self.folder / BEST) as partial, averaged_weights(self.model):
                # A model of the same layers without the optimizer.
                keras.Model(self.model.inputs, self.model.outputs, name=self.model.name).save(
                    partial
                )
                write_state(partial, epoch + 1, self.best, self.size)
        with whole_file(self.folder / LAST) as partial:
            self.model.save(partial)
            write_state(partial, epoch + 1, self.best, self.size)


class CSVLog(keras.callbacks.Callback):
    """Writes a row for each epoch to a CSV file, with the learning rate.

    Args:
        path: the file. Its rows for complete epochs are kept, later ones are dropped.
        first_epoch: number of complete epochs.

    Raises:
        CheckpointError: if the file is damaged.
    """

    def __init__(self, path: Path, first_epoch: int = 0) -> None:
        super().__init__()
        self.path = path
        self._rows: list[dict[str, Any]] = []
        if first_epoch and path.is_file():
            try:
                with path.open(newline="", encoding="utf-8") as file:
                    rows = csv.DictReader(file, strict=True)
                    if "epoch" not in (rows.fieldnames or ()):
                        raise ValueError("it has no column `epoch`")
                    self._rows = [row for row in rows if int(row["epoch"]) <= first_epoch]
            except (csv.Error, ValueError, TypeError) as error:
                raise CheckpointError(
                    f"{path}: not the log of a run ({error}). Move it away to resume with a new "
                    "one."
                ) from error

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Writes the file again with the row of this epoch."""
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self._rows.append({"epoch": epoch + 1, "learning_rate": rate, **(logs or {})})
        names = dict.fromkeys(name for row in self._rows for name in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(names))
        writer.writeheader()
        writer.writerows(self._rows)
        with whole_file(self.path) as partial:
            partial.write_text(text.getvalue(), encoding="utf-8")


class Panel(keras.callbacks.Callback):
    """Shows fixed samples after each epoch: image, true alpha, predicted alpha, composite.

    Writes `panels/epoch_0001.png` and so on, `panel.png` (the latest one), and the same picture to
    TensorBoard.

    Args:
        folder: the run's folder.
        images: float32 (N, H, W, 3) in [0, 1].
        alphas: float32 (N, H, W, 1) in [0, 1].
    """

    def __init__(self, folder: Path, images: np.ndarray, alphas: np.ndarray) -> None:
        super().__init__()
        self.folder = folder
        self.images = images
        self.alphas = alphas
        # A folder of its own: TensorBoard reads the latest file in a folder only.
        self._writer = tf.summary.create_file_writer(str(folder / "tensorboard" / "panel"))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Predicts the samples and draws them."""
        with averaged_weights(self.model):
            # Called eagerly, since `predict` would trace a graph first.
            predicted = keras.ops.convert_to_numpy(self.model(self.images, training=False))
        composites = self.images * predicted + _PANEL_COLOUR * (1 - predicted)
        panel = draw_panel(
            list(zip(self.images, self.alphas, predicted, composites, strict=True)),
            captions=("image", "true alpha", f"epoch {epoch + 1}", "composite"),
            cell=192,
        )
        write_image(self.folder / "panels" / f"epoch_{epoch + 1:04d}.png", panel)
        write_image(self.folder / "panel.png", panel)
        with self._writer.as_default():
            tf.summary.image("panel", panel[None], step=epoch)
        self._writer.flush()


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Puts the averaged weights into a network for a while, if its optimizer averages them.

    Args:
        model: a compiled network.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # of a loss scaler
    if not optimizer.use_ema:
        yield
        return
    swap = keras.callbacks.SwapEMAWeights()
    swap.set_model(model)
    swap.on_test_begin()
    try:
        yield
    finally:
        swap.on_test_end()


def write_layer_graph(model: keras.Model, folder: Path) -> None:
    """Writes the graph of a network's layers for TensorBoard.

    `keras.callbacks.TensorBoard` would add the graph of a whole training step, whose thousands of
    operations tell a reader less.

    Args:
        model: the network.
        folder: folder of the log.
    """
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "graph_keras_model"
    metadata.plugin_data.content = b"1"  # the version of this format
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        tf.summary.write("keras", model.to_json(), step=0, metadata=metadata)
    writer.close()
