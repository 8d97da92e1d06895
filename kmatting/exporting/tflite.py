"""Converts a network to TFLite files of fixed size, and holds them against the Keras model."""

import io
import json
import os
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kmatting.images import whole_file
from kmatting.inference.metadata import METADATA
from kmatting.inference.tflite import load_tflite

# Largest mean difference of the alphas from the Keras model's that is let through, by variant.
LIMITS = {"float32": 1e-5, "float16": 0.002, "dynamic": 0.01, "int8": 0.02}
THREADS = 2  # that latencies are measured at
_RUNS = 5


@dataclass(frozen=True)
class Parity:
    """How a TFLite model compares with the Keras model.

    Attributes:
        mean: mean absolute difference of the alphas over all photos.
        largest: largest absolute difference.
        milliseconds: median time of a photo, at `THREADS` threads.
    """

    mean: float
    largest: float
    milliseconds: float


def convert(
    model: keras.Model,
    size: tuple[int, int],
    variant: str = "float32",
    calibration: Iterable[np.ndarray] = (),
) -> bytes:
    """Converts a network to TFLite, with built-in operations only.

    Variants: `float32`; `float16`, weights stored in 16 bits; `dynamic`, weights stored in 8 bits
    and activations quantized as they come; `int8`, everything in 8 bits, with scales from photos.

    Args:
        model: a matting network, float32.
        size: height and width, multiples of 16.
        variant: one of `LIMITS`.
        calibration: uint8 arrays (H, W, 3) of that size, for `int8`.

    Returns:
        The flat buffer. Signature `serving_default`: `image` float32 (1, H, W, 3) in [0, 1] to
        `alpha` float32 (1, H, W, 1). With `int8` both are uint8 from 0 to 255 (alpha to 256, of
        which 255 is the largest that occurs).

    Raises:
        OSError: if there is no room for temporary files.
    """
    values = [
        [keras.ops.convert_to_numpy(variable) for variable in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    ]

    # Weights as constants: only so does the converter fold batch norms into convolutions.
    @tf.function(input_signature=[tf.TensorSpec((1, *size, 3), tf.float32, "image")])
    def run(image: Any) -> dict[str, Any]:
        constants = [[tf.constant(value) for value in group] for group in values]
        alpha, _ = model.stateless_call(*constants, image, training=False)
        return {"alpha": alpha}

    # The empty module makes the converter keep names and signature.
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [run.get_concrete_function()], tf.Module()
    )
    if variant != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if variant == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if variant == "int8":
        converter.representative_dataset = lambda: (
            [photo[None] / np.float32(255)] for photo in calibration
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8
    content = converter.convert()
    if b"serving_default" not in content:  # the converter goes on without its temporary file
        raise OSError(
            f"TensorFlow could not convert by way of {tempfile.gettempdir()}: is that disk full?"
        )
    return content


def write(path: str | os.PathLike[str], content: bytes, metadata: dict[str, Any]) -> None:
    """Writes a TFLite file with metadata behind it.

    The metadata is a zip archive, appended as the TFLite metadata convention has it for associated
    files: interpreters ignore it, and `zipfile` reads it.

    Args:
        path: destination; written beside and renamed.
        content: the flat buffer.
        metadata: what becomes `kmatting.json`.

    Raises:
        OSError: if it cannot be written.
    """
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(METADATA, json.dumps(metadata, indent=2) + "\n")
    try:
        with whole_file(path) as partial:
            partial.write_bytes(buffer.getvalue())
    except OSError as error:
        raise OSError(f"{path}: cannot be written: {error.strerror}.") from error


def describe(name: str, version: int, size: tuple[int, int], variant: str) -> dict[str, Any]:
    """Says in metadata what a client must know.

    Args:
        name: the model's name.
        version: the model's version.
        size: height and width.
        variant: one of `LIMITS`.

    Returns:
        The metadata, for `write`.
    """
    dtype = "uint8" if variant == "int8" else "float32"
    return {
        "name": name,
        "version": version,
        "height": size[0],
        "width": size[1],
        "variant": variant,
        "input": {
            "name": "image",
            "dtype": dtype,
            "layout": "NHWC",
            "colours": "RGB",
            "range": [0, 255] if variant == "int8" else [0, 1],
            "normalisation": "none: the mean and deviation of ImageNet are inside the model",
        },
        "output": {
            "name": "alpha",
            "dtype": dtype,
            "layout": "NHWC",
            "range": [0, 255] if variant == "int8" else [0, 1],
        },
    }


def compare(
    content: bytes,
    photos: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
    threads: int = THREADS,
) -> Parity:
    """Runs a TFLite model on photos and holds its alphas against the Keras model's.

    Args:
        content: the flat buffer.
        photos: uint8 arrays (H, W, 3) of its size, at least one.
        expected: the Keras model's alphas of them, float32 (1, H, W, 1).
        threads: number of threads.

    Returns:
        The `Parity`.
    """
    network = load_tflite(content, threads)
    differences = [
        np.abs(network.run(photo[None]) - alpha)
        for photo, alpha in zip(photos, expected, strict=True)
    ]
    return Parity(
        mean=float(np.mean(differences)),
        largest=float(np.max(differences)),
        milliseconds=milliseconds(lambda: network.run(photos[0][None])),
    )


def milliseconds(run: Callable[[], Any]) -> float:
    """Measures how long a call takes.

    Args:
        run: the call.

    Returns:
        The median of a few calls after a first one that does not count.
    """
    run()
    times = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000
