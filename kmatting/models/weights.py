"""Loads weights into a network, and explains in one line why they do not fit."""

import io
import re
import textwrap
import zipfile
from pathlib import Path
from typing import BinaryIO

import h5py
import keras

from kmatting.errors import ConfigError

CHOICES = "Set model.encoder_weights to imagenet, to the path of a weights file, or to none."


def load_weights(model: keras.Model, path: Path) -> None:
    """Loads a file into a network that has the same weights, no fewer.

    Keras finds the weights of a layer by its class and its number, and does not mind if the file
    has layers that the network has not.

    Args:
        model: the network; changed in place.
        path: a `.keras` or `.weights.h5` file.

    Raises:
        ValueError: if the file has more weights than the network.
        Exception: many other types, if the file is missing, damaged or does not fit.
    """
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            stored = _count_arrays(io.BytesIO(archive.read("model.weights.h5")))
    else:
        with path.open("rb") as file:
            stored = _count_arrays(file)
    if stored > len(model.variables):
        raise ConfigError(f"expected {len(model.variables)} weights, received {stored}")
    model.load_weights(path)


def _count_arrays(file: BinaryIO) -> int:
    """Counts the arrays of the layers in a weights file of Keras."""
    count = 0

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        nonlocal count
        count += isinstance(item, h5py.Dataset)

    with h5py.File(file) as weights:
        weights["layers"].visititems(visit)
    return count


def explain(error: Exception) -> str:
    """Shortens an error from loading weights; Keras's holds the values of whole layers.

    Args:
        error: what Keras, h5py or a download raised.

    Returns:
        A layer with the shapes that differ, or else the first line of the message.
    """
    text = str(error).strip()
    layer = re.search(r"object <\w+ name=([^,>]+)", text)
    shapes = re.search(r"variable\.shape=(\(.*?\)), Received: value\.shape=(\(.*?\))", text)
    counts = re.search(r"expected (\d+) variables, but received (\d+)", text)
    if layer and shapes:
        return f"layer {layer[1]}: expected shape {shapes[1]}, received {shapes[2]}"
    if layer and counts:
        return f"layer {layer[1]}: expected {counts[1]} variables, received {counts[2]}"
    example = re.sub(r"\AA total of .*?:\n+", "", text, flags=re.DOTALL)
    first_line = (example or type(error).__name__).splitlines()[0]
    return textwrap.shorten(first_line, 200, placeholder=" ...")
