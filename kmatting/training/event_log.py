"""Writes TensorBoard's event files by the package `tensorboard` alone, whatever Keras runs on."""

import io
import time
from pathlib import Path

import keras
import numpy as np
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.event_file_writer import EventFileWriter

_RGB = 3  # the colour space of an image, as TensorBoard counts them


class EventLog:
    """An event file in a folder; TensorBoard reads the latest file of a folder only.

    Args:
        folder: the folder; made if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._writer = EventFileWriter(str(folder))

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Writes one point of each curve."""
        entries = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(Summary(value=entries), step)

    def picture(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """Writes a picture, uint8 (H, W, 3)."""
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        height, width = pixels.shape[:2]
        image = Summary.Image(
            height=height, width=width, colorspace=_RGB, encoded_image_string=file.getvalue()
        )
        self._write(Summary(value=[Summary.Value(tag=tag, image=image)]), step)

    def layers(self, model: keras.Model) -> None:
        """Writes the graph of a network's layers.

        That of a whole training step has thousands of operations, which tell a reader less.
        """
        metadata = SummaryMetadata()
        metadata.plugin_data.plugin_name = "graph_keras_model"
        metadata.plugin_data.content = b"1"  # the version of this format
        content = TensorProto(dtype=DT_STRING, string_val=[model.to_json().encode()])
        value = Summary.Value(tag="keras", metadata=metadata, tensor=content)
        self._write(Summary(value=[value]), 0)

    def _write(self, summary: Summary, step: int) -> None:
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()
