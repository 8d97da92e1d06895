"""What happens beside training: checkpoints, logs, panels, and a stop when the loss is NaN."""

import csv
import io
import math
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kmatting.images import whole_file, write_image
from kmatting.panel import draw_panel
from kmatting.training.run_folder import BEST, LAST, write_state

_PANEL_COLOUR = np.array([0.1, 0.7, 0.3], "float32")


class NaNLossError(RuntimeError):
    """The loss is no longer a number; the message says when, and what can be done."""


class StopOnNaN(keras.callbacks.Callback):
    """Stops training at the first loss that is NaN or infinite.

    Raises:
        NaNLossError: then; the checkpoint of the last whole epoch stays as it is.
    """

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Remembers the epoch for the message."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Checks the loss of a step."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise NaNLossError(
                f"The loss became {loss} in epoch {self._epoch + 1}, step {batch + 1}. "
                "The checkpoint of the last whole epoch is kept. Try a lower "
                "training.learning_rate, training.clip_norm=1, or training.precision=float32."
            )


class Throughput(keras.callbacks.Callback):
    """Adds `images_per_second` of training to the logs of each epoch.

    The first step of the first epoch, which traces the graph, is left out.

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
    """Keeps the last and the best model of a run as `last.keras` and `best.keras`.

    Both hold the optimizer, so that `last.keras` is all that a resumed run needs. Each is written
    beside and renamed: a kill at any moment leaves the former one whole.

    Args:
        folder: the run's folder.
        size: height and width that the network is trained at; the files remember it.
        best: lowest validation MAD so far, infinite for a new run.
    """

    def __init__(self, folder: Path, size: tuple[int, int], best: float = math.inf) -> None:
        super().__init__()
        self.folder = folder
        self.size = size
        self.best = best

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Writes the checkpoints of a whole epoch."""
        mad = (logs or {}).get("val_mad", math.nan)
        improved = mad < self.best
        self.best = min(self.best, mad) if math.isfinite(mad) else self.best
        with whole_file(self.folder / LAST) as partial:
            self.model.save(partial)
            write_state(partial, epoch + 1, self.best, self.size)
            if improved:
                with whole_file(self.folder / BEST) as best:
                    best.write_bytes(partial.read_bytes())


class CSVLog(keras.callbacks.Callback):
    """Writes one row an epoch to a CSV file, with the learning rate.

    Args:
        path: the file. Rows of earlier epochs are kept, those of epochs that are trained anew are
            not.
        first_epoch: epoch that the run starts with, from 0.
    """

    def __init__(self, path: Path, first_epoch: int = 0) -> None:
        super().__init__()
        self.path = path
        self._rows: list[dict[str, Any]] = []
        if first_epoch and path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                self._rows = [
                    row for row in csv.DictReader(file) if int(row["epoch"]) <= first_epoch
                ]

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Writes the file anew with the epoch's row."""
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self._rows.append({"epoch": epoch + 1, "learning_rate": rate, **(logs or {})})
        names = dict.fromkeys(name for row in self._rows for name in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(names))
        writer.writeheader()
        writer.writerows(self._rows)
        with whole_file(self.path) as partial:
            partial.write_text(text.getvalue(), encoding="utf-8")


class TensorBoard(keras.callbacks.TensorBoard):
    """Keras's TensorBoard log: figures of each epoch, learning rate, and the graph of the layers.

    The graph of a training step's single operations is left out: thousands of nodes tell a reader
    less than the layers.

    Args:
        folder: the log's folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), write_graph=True, profile_batch=0)

    def _write_keras_model_train_graph(self) -> None:
        pass


class Panel(keras.callbacks.Callback):
    """Shows fixed samples after each epoch: image, true alpha, predicted alpha, composite.

    Writes `panels/epoch_0001.png` and so on, `panel.png` (the newest), and the same picture to
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
        self._writer = tf.summary.create_file_writer(str(folder / "tensorboard" / "validation"))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Predicts the samples and draws them."""
        # Called eagerly: `predict` would first trace a graph of its own.
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
