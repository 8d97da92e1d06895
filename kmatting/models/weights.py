"""Loads weights into a network, and explains in one line why they do not fit."""

import io
import json
import re
import textwrap
import zipfile
from pathlib import Path
from typing import BinaryIO

import h5py
import keras

from kmatting.errors import ConfigError
from kmatting.models.blocks import FULL

# Parts of a network with two resolutions that one without does not have, or not of this width.
_NEW_PARTS = ("low_level_", "s_wise", "detail_", "estimate_", "fusion_", "logit")

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


def trained_high_level_size(path: Path) -> int | None:
    """Reads `high_level_size` from a `.keras` file of a whole network; None without it."""
    with zipfile.ZipFile(path) as archive:
        layers = json.loads(archive.read("config.json"))["config"]["layers"]
    sizes = [layer["config"]["size"] for layer in layers if layer["name"] == "reduced"]
    return sizes[0] if sizes else None


def load_high_level(model: keras.Model, path: Path) -> None:
    """Loads the weights of a network of one resolution into one of two.

    Encoder, attention and high-level branch get them. The copy of the encoder that sees the full
    image gets the encoder's. What is new keeps its own.

    Args:
        model: a network with `high_level_size`; changed in place.
        path: `.keras` file of a network without it.

    Raises:
        ValueError: if encoder or high-level branch differ.
        Exception: many other types, if the file is damaged.
    """
    found = {layer.name: layer for layer in keras.saving.load_model(path, compile=False).layers}
    for layer in model.layers:
        name = layer.name if layer.name in found else layer.name.removeprefix(FULL)
        if not layer.weights or layer.name.startswith(_NEW_PARTS):
            continue
        expected = [tuple(weight.shape) for weight in layer.weights]
        received = [tuple(weight.shape) for weight in found[name].weights] if name in found else []
        if received != expected:
            raise ValueError(f"layer {name}: expected shapes {expected}, received {received}")
        layer.set_weights(found[name].get_weights())


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
