"""Writes a network as an ONNX file for photos of any size, and compares it with the Keras model."""

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx  # noqa: F401  Keras exports by it; a missing one shall be named at once

from kmatting import __version__
from kmatting.errors import Error, UsageError
from kmatting.exporting.parity import Parity, compare
from kmatting.files import whole_file
from kmatting.networks.metadata import METADATA
from kmatting.networks.onnx import INPUT, OUTPUT, open_session
from kmatting.sizes import STRIDE

LIMIT = 1e-5  # largest mean difference of the alphas that is accepted

# What rembg feeds to a custom model, as do many tools around U2-Net.
REMBG_INPUT = "normalised_image"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def export_onnx(
    model: keras.Model,
    path: str | os.PathLike[str],
    photos: Sequence[np.ndarray],
    metadata: dict[str, Any],
    rembg: bool = False,
) -> Parity:
    """Writes a network as an ONNX file of float32 numbers.

    The file takes `image`, float32 (N, H, W, 3) in [0, 1], RGB, where H and W are any multiples of
    16, and returns `alpha`, float32 (N, H, W, 1) in [0, 1]. Its metadata property `kmatting.json`
    holds the metadata.

    Args:
        model: a matting network, float32.
        path: the destination; written beside and renamed.
        photos: uint8 arrays (H, W, 3), sides multiples of 16, to compare the file with `model`.
        metadata: content of `kmatting.json`, see `describe`.
        rembg: whether the file takes what rembg feeds to a custom U2-Net instead:
            `normalised_image`, float32 (N, 3, H, W), by ImageNet's mean and deviation. Its `alpha`
            is (N, 1, H, W) then.

    Returns:
        How it compares with `model`.

    Raises:
        ValueError: if the alphas differ by more than `LIMIT`. Nothing is written then.
        OSError: if the file cannot be written.
    """
    content = _convert(_as_rembg_feeds(model) if rembg else model, metadata)
    expected = [
        keras.ops.convert_to_numpy(_alpha(model, photo[None] / np.float32(255))) for photo in photos
    ]
    with whole_file(path) as partial:
        try:
            partial.write_bytes(content)
        except OSError as error:
            raise Error(f"{path}: cannot be written: {error.strerror}.") from error
        parity = compare(_runner(partial, rembg), photos, expected)
        if not parity.mean <= LIMIT:
            raise UsageError(
                f"{path}: not written: its alphas differ from the Keras model's by "
                f"{parity.mean:.2g} in the mean, more than the limit of {LIMIT:g}."
            )
    return parity


def describe(
    name: str,
    version: int,
    size: int | None,
    max_size: int,
    licence: str | None = None,
    rembg: bool = False,
) -> dict[str, Any]:
    """Describes an ONNX file for those who run it.

    Args:
        name: name of the model.
        version: version of the model.
        size: side in pixels of the square that the network was trained at, if known.
        max_size: side in pixels; photos of a larger area than its square are best reduced to that.
        licence: terms of the weights, if known.
        rembg: as in `export_onnx`.

    Returns:
        The metadata, for `export_onnx`.
    """
    numbers = {"dtype": "float32", "layout": "NCHW" if rembg else "NHWC"}
    image: dict[str, Any] = {"name": INPUT, **numbers, "range": [0, 1], "normalisation": "none"}
    if rembg:
        image = {"name": REMBG_INPUT, **numbers, "normalisation": {"mean": _MEAN, "std": _STD}}
    return {
        "name": name,
        "version": version,
        "size": size,
        "max_size": max_size,
        "input": {**image, "colours": "RGB", "multiple_of": STRIDE},
        "output": {"name": OUTPUT, **numbers, "range": [0, 1]},
        "kmatting": __version__,
        "licence": licence,
    }


def _runner(path: Path, rembg: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from a uint8 batch (N, H, W, 3) to the alphas (N, H, W, 1) of a file."""
    session = open_session(path)

    def run(batch: np.ndarray) -> np.ndarray:
        image = batch / np.float32(255)
        if not rembg:
            return session.run([OUTPUT], {INPUT: image})[0]
        normalised = ((image - _MEAN) / _STD).astype(np.float32).transpose(0, 3, 1, 2)
        return session.run([OUTPUT], {REMBG_INPUT: normalised})[0].transpose(0, 2, 3, 1)

    return run


def _alpha(model: keras.Model, image: Any) -> Any:
    """Runs a network whose output may stand in a list, as that of `keras.Model(inputs, [x])`."""
    (alpha,) = keras.tree.flatten(model(image, training=False))
    return alpha


def _as_rembg_feeds(model: keras.Model) -> keras.Model:
    """Puts in front of a network what undoes rembg's changes to a photo; orders its alpha alike."""
    normalised = keras.Input((3, None, None), dtype="float32", name=REMBG_INPUT)
    image = keras.layers.Rescaling(_STD, _MEAN)(keras.layers.Permute((2, 3, 1))(normalised))
    return keras.Model(normalised, keras.layers.Permute((3, 1, 2))(_alpha(model, image)))


def _convert(model: keras.Model, metadata: dict[str, Any]) -> bytes:
    """Converts a network; names its input, output and sides, and adds the metadata."""
    (image,) = model.inputs
    signature = [tf.TensorSpec(image.shape, tf.float32, metadata["input"]["name"])]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        model.export(file, format="onnx", verbose=False, input_signature=signature)
        converted = onnx.load(file)
    graph = converted.graph
    _rename(graph, graph.output[0].name, OUTPUT)
    for tensor in (graph.input[0], graph.output[0]):
        sides = iter(("batch", "height", "width"))
        for side in tensor.type.tensor_type.shape.dim:
            if not side.HasField("dim_value"):
                side.dim_param = next(sides)
    graph.name = metadata["name"]
    converted.model_version = metadata["version"]
    converted.producer_name, converted.producer_version = "kmatting", __version__
    converted.doc_string = "Trimap-free image matting: photo in, alpha matte out."
    converted.metadata_props.add(key=METADATA, value=json.dumps(metadata))
    onnx.checker.check_model(converted, full_check=True)
    return converted.SerializeToString()


def _rename(graph: Any, old: str, new: str) -> None:
    """Renames a tensor wherever a graph uses it."""
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
    for tensor in graph.output:
        if tensor.name == old:
            tensor.name = new
