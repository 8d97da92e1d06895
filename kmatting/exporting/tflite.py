"""Converts a network to TFLite files of fixed sizes, and compares them with the Keras model."""

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kmatting.errors import Error
from kmatting.exporting import parity
from kmatting.exporting.frames import signature_name
from kmatting.exporting.int8 import quantize
from kmatting.exporting.parity import Parity
from kmatting.files import whole_file
from kmatting.networks.metadata import METADATA
from kmatting.networks.tflite import load_tflite

if TYPE_CHECKING:
    import keras

# The variants, with the largest mean difference from the Keras model's alphas that is accepted.
LIMITS = {"float32": 1e-5, "float16": 0.002, "dynamic": 0.01, "int8": 0.01, "integer": 0.02}


def convert(
    model: "keras.Model",
    size: tuple[int, int],
    variant: str = "float32",
    calibration: Iterable[np.ndarray] = (),
) -> bytes:
    """Converts a network to TFLite, with built-in operations only.

    Args:
        model: a matting network in float32.
        size: height and width in pixels, multiples of 16.
        variant: "float32"; "float16", weights in 16 bits; "dynamic", weights in 8 bits, and
            activations quantized at run time; "int8", weights and activations in 8 bits but for
            some layers, see `kmatting.exporting.int8`; or "integer", all in 8 bits.
        calibration: for "int8" and "integer", uint8 arrays (H, W, 3) of that size, from which the
            scales of activations are taken.

    Returns:
        The flat buffer. Its signature `serving_default` takes `image`, float32 (1, H, W, 3) in
        [0, 1], and returns `alpha`, float32 (1, H, W, 1) in [0, 1]. With "integer" both are uint8
        from 0 to 255.

    Raises:
        ModuleNotFoundError: for "int8" without the extra `quantize`.
        OSError: if there is no room for temporary files.
        ValueError: for "int8" without photos.
    """
    if variant == "int8":
        return quantize(convert(model, size), list(calibration))
    import keras
    import tensorflow as tf

    values = [
        [keras.ops.convert_to_numpy(variable) for variable in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    ]

    # The converter folds batch norms into convolutions only if the weights are constants.
    @tf.function(input_signature=[tf.TensorSpec((1, *size, 3), tf.float32, "image")])
    def run(image: Any) -> dict[str, Any]:
        constants = [[tf.constant(value) for value in group] for group in values]
        alpha, _ = model.stateless_call(*constants, image, training=False)
        return {"alpha": alpha}

    # The empty module makes the converter keep the names and the signature.
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [run.get_concrete_function()], tf.Module()
    )
    if variant != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if variant == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if variant == "integer":
        converter.representative_dataset = lambda: (
            [photo[None] / np.float32(255)] for photo in calibration
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8
    content = converter.convert()
    if b"serving_default" not in content:  # the converter goes on without its temporary file
        raise Error(
            f"TensorFlow could not convert by way of {tempfile.gettempdir()}: is that disk full?"
        )
    return content


def write(path: str | os.PathLike[str], content: bytes, metadata: dict[str, Any]) -> None:
    """Writes a TFLite file with its metadata, see `kmatting.networks.metadata`.

    Args:
        path: the destination; written beside and renamed.
        content: the flat buffer.
        metadata: content of `kmatting.json`.

    Raises:
        OSError: if the file cannot be written.
    """
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(METADATA, json.dumps(metadata, indent=2) + "\n")
    try:
        with whole_file(path) as partial:
            partial.write_bytes(buffer.getvalue())
    except OSError as error:
        raise Error(f"{path}: cannot be written: {error.strerror}.") from error


def describe(
    name: str, version: int, sizes: Sequence[tuple[int, int]], variant: str
) -> dict[str, Any]:
    """Describes a TFLite file for those who run it.

    Args:
        name: name of the model.
        version: version of the model.
        sizes: height and width in pixels, of each size in the file.
        variant: one of `LIMITS`.

    Returns:
        The metadata, for `write`.
    """
    numbers = {
        "dtype": "uint8" if variant == "integer" else "float32",
        "layout": "NHWC",
        "range": [0, 255] if variant == "integer" else [0, 1],
    }
    height, width = sizes[0]
    signatures = {signature_name(size): size for size in sizes}
    return {
        "name": name,
        "version": version,
        "height": height,
        "width": width,
        **({"signatures": signatures} if len(sizes) > 1 else {}),
        "variant": variant,
        "input": {
            "name": "image",
            **numbers,
            "colours": "RGB",
            "normalisation": "none: the mean and deviation of ImageNet are inside the model",
        },
        "output": {"name": "alpha", **numbers},
    }


def compare(
    content: bytes,
    photos: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
    threads: int = 2,
    size: tuple[int, int] | None = None,
) -> Parity:
    """Compares the alphas of a TFLite model with those of the Keras model.

    Args:
        content: the flat buffer.
        photos: uint8 arrays (H, W, 3) of that size, at least one.
        expected: the Keras model's alphas of these photos, float32 (1, H, W, 1) in [0, 1].
        threads: number of threads.
        size: which of the model's sizes to run, height and width; the first by default.

    Returns:
        The `Parity`.
    """
    return parity.compare(load_tflite(content, threads, size).run, photos, expected)
