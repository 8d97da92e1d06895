"""Tiny models in each format whose alpha is the photo's red, so that the right matte is known.

They keep the contract of the real ones: the names, shapes, dtypes and ranges of input and output.
"""

import atexit
import functools
import json
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np

FRAME = (48, 64)  # height and width of the .tflite models
FRAMES = (FRAME, (32, 32))  # of the file that `save_frames` writes


@functools.cache
def folder() -> Path:
    """A folder with a model of each format, made once a test run."""
    path = Path(tempfile.mkdtemp(prefix="red_model"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    model = channel(0)
    model.save(path / "red.keras")
    save_folder(model, path / "saved" / "9")
    save_folder(channel(1), path / "versions" / "9")
    save_folder(model, path / "versions" / "10")
    convert(model, path / "red.tflite")
    convert(model, path / "integer.tflite", integer=True)
    save_onnx(model, path / "red.onnx")
    return path


def channel(index: int, height=None, width=None):
    """A Keras model whose alpha is one channel of the image: a 1x1 convolution."""
    import keras

    image = keras.Input((height, width, 3), name="image")
    alpha = keras.layers.Conv2D(1, 1, use_bias=False, activation="relu", name="alpha")(image)
    model = keras.Model(image, alpha)
    kernel = np.zeros((1, 1, 3, 1), np.float32)
    kernel[0, 0, index] = 1
    model.set_weights([kernel])
    return model


def step():
    """A Keras model whose alpha is 1 where the image is bright, 0 where it is dark."""
    import keras

    image = keras.Input((None, None, 3), name="image")
    alpha = keras.layers.Conv2D(1, 1, activation="sigmoid", name="alpha")(image)
    model = keras.Model(image, alpha)
    model.set_weights([np.full((1, 1, 3, 1), 20, np.float32), np.full(1, -30, np.float32)])
    return model


def save_folder(model, path: Path) -> None:
    """Exports a SavedModel for photos of any size: uint8 in, padded inside."""
    import keras
    import tensorflow as tf

    def serve(image):
        height, width = tf.shape(image)[1], tf.shape(image)[2]
        margins = [[0, 0], [0, -height % 16], [0, -width % 16], [0, 0]]
        padded = tf.pad(tf.cast(image, tf.float32) / 255, margins)
        return {"alpha": model(padded)[:, :height, :width]}

    archive = keras.export.ExportArchive()
    archive.track(model)
    image = tf.TensorSpec((None, None, None, 3), tf.uint8, name="image")
    archive.add_endpoint("serving_default", serve, input_signature=[image])
    archive.write_out(str(path), verbose=False)


def save_onnx(model, path: Path) -> None:
    """Exports an ONNX file for photos of any size; it does not say at which size it runs best."""
    from kmatting.exporting.onnx import describe, export_onnx

    metadata = {**describe("red", 1, None, 512), "max_size": None}
    export_onnx(model, path, [np.zeros((16, 16, 3), np.uint8)], metadata)


def save_frames(path: Path) -> None:
    """Writes a `.tflite` file of two sizes: its alpha is the red at the first, else the green."""
    from kmatting.exporting import tflite
    from kmatting.exporting.multi_size import join

    models = {size: tflite.convert(channel(index), size) for index, size in enumerate(FRAMES)}
    tflite.write(path, join(models), tflite.describe("frames", 1, FRAMES, "float32"))


def convert(model, path: Path, integer: bool = False) -> None:
    """Converts to TFLite at one size; the metadata is a zip archive behind the model."""
    import keras
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    archive.track(model)
    image = tf.TensorSpec((1, *FRAME, 3), tf.float32, name="image")
    archive.add_endpoint(
        "serving_default", lambda image: {"alpha": model(image)}, input_signature=[image]
    )
    with tempfile.TemporaryDirectory() as saved:
        archive.write_out(saved, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(saved)
        if integer:
            rng = np.random.default_rng(0)
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: (
                [rng.random((1, *FRAME, 3), np.float32)] for _ in range(20)
            )
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.uint8
            converter.inference_output_type = tf.uint8
        path.write_bytes(converter.convert())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("kmatting.json", json.dumps({"height": FRAME[0], "width": FRAME[1]}))
