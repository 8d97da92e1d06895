"""Callbacks of training: checkpoints, logs, panels, and a stop when the loss is not a number."""

import contextlib
import csv
import io
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kmatting.config import Config
from kmatting.data.pipeline import Data
from kmatting.errors import CheckpointError, NaNLossError
from kmatting.files import whole_file
from kmatting.images import write_image
from kmatting.images.panel import draw_panel
from kmatting.terminal import say
from kmatting.training import replicas
from kmatting.training.event_log import EventLog
from kmatting.training.run_folder import BEST, LAST, RunState, write_state

_SECONDS_PER_LINE = 60
_PANEL_COLOUR = np.array([0.1, 0.7, 0.3], "float32")


def make_callbacks(
    config: Config,
    strategy: Any,
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
    if strategy.num_replicas_in_sync > 1 and keras.backend.backend() == "tensorflow":
        callbacks.append(replicas.MeanStatistics())
    if config.training.average:
        callbacks.append(keras.callbacks.SwapEMAWeights())  # for validation
    if is_chief:
        for partial in folder.glob(".*.partial*"):  # of a run that was killed while it wrote
            partial.unlink()
        callbacks += [
            CSVLog(folder / "log.csv", state.epoch),
            Curves(folder / "tensorboard"),
            Report(config.training.epochs, data.steps_per_epoch, state.best),
            Panel(folder, *data.panel_samples(config.training.panel_samples)),
            # Last, so that an epoch with a checkpoint has all its other files.
            Checkpoint(folder, config.data.size, state.best, state.licence),
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


class Report(keras.callbacks.Callback):
    """Prints a line for each epoch, with the figure that chooses the best one.

    Where standard output is no terminal, it also prints how far an epoch is, once a minute.

    Args:
        epochs: epochs of the run.
        steps: training steps of an epoch.
        best: lowest validation MAD so far, None without any.
    """

    def __init__(self, epochs: int, steps: int, best: float | None = None) -> None:
        super().__init__()
        self.epochs = epochs
        self.steps = steps
        self._best = math.inf if best is None else best
        self._in_lines = not sys.stdout.isatty()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Remembers the epoch."""
        self._name, self._said = f"Epoch {epoch + 1}/{self.epochs}", time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Prints how far the epoch is, now and then."""
        if self._in_lines and time.monotonic() - self._said >= _SECONDS_PER_LINE:
            self._said = time.monotonic()
            loss = (logs or {}).get("loss", math.nan)
            say(f"{self._name}: step {batch + 1} of {self.steps}, loss {loss:.4f}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Prints the figures of the epoch."""
        logs = logs or {}
        parts = [f"loss {logs['loss']:.4f}"] if "loss" in logs else []
        if "val_mad" in logs:
            is_best = logs["val_mad"] < self._best
            self._best = min(self._best, logs["val_mad"])
            parts.append(f"validation loss {logs['val_loss']:.4f}")
            parts.append(f"validation MAD {logs['val_mad']:.4f}" + (" (best)" if is_best else ""))
        if "images_per_second" in logs:
            parts.append(f"{logs['images_per_second']:.1f} images per second")
        say(f"{self._name}: {', '.join(parts)}")


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
        licence: terms of the weights that the run started from; the files state them, too.
    """

    def __init__(
        self,
        folder: Path,
        size: tuple[int, int],
        best: float | None = None,
        licence: str | None = None,
    ) -> None:
        super().__init__()
        self.licence = licence
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
                write_state(partial, epoch + 1, self.best, self.size, self.licence)
        with whole_file(self.folder / LAST) as partial:
            self.model.save(partial)
            write_state(partial, epoch + 1, self.best, self.size, self.licence)


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


class Curves(keras.callbacks.Callback):
    """Writes the figures of each epoch, and the network's layers, for TensorBoard.

    The curves are called as by `keras.callbacks.TensorBoard`, which needs TensorFlow.

    Args:
        folder: folder of the logs; `train` and `validation` are made in it.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._train, self._validation = EventLog(folder / "train"), EventLog(folder / "validation")

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Writes the layers."""
        self._train.layers(self.model)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Writes a point of each curve."""
        logs = logs or {}
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        train = {f"epoch_{name}": logs[name] for name in logs if not name.startswith("val_")}
        self._train.scalars({**train, "epoch_learning_rate": rate}, epoch)
        self._validation.scalars(
            {f"epoch_{name[4:]}": logs[name] for name in logs if name.startswith("val_")}, epoch
        )


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
        self._log = EventLog(folder / "tensorboard" / "panel")

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
        self._log.picture("panel", panel, epoch)


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
