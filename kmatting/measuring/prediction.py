"""Rows of the group `predict`: the network alone, in each format."""

import time
from pathlib import Path

import numpy as np

from kmatting.keras_setup import import_keras
from kmatting.measuring.machine import (
    REPEATS,
    WARM_UP,
    matrix_rate,
    median_seconds,
    operations,
    peak_memory,
)
from kmatting.measuring.rows import Row
from kmatting.networks.formats import load_network
from kmatting.networks.shipped import shipped_model
from kmatting.quiet import quiet
from kmatting.sizes import DEFAULT_SIZE

__all__ = ["FORMATS", "export_models", "prediction", "shipped_network"]

FORMATS = ("keras", "saved_model", "float32", "float16", "dynamic", "int8")
_ON_GPU = ("keras", "saved_model")  # where there is one
_INCLUDES = "network, copies to and from a GPU"


def export_models(encoder: str, size: int, folder: str) -> int:
    """Writes an untrained Model 2 in every format.

    Args:
        encoder: as in a config.
        size: side of the TFLite files' images.
        folder: where `keras.keras`, `saved_model/` and `float32-SIZE.tflite` and so on go; the two
            that take any size are not written again.

    Returns:
        The operations of the network on one image.
    """
    with quiet():
        import_keras(tensorflow=True)
        import tensorflow as tf

        from kmatting import models
        from kmatting.data.synthetic import sample
        from kmatting.exporting import tflite
        from kmatting.exporting.saved_model import export_saved_model

        model = models.model2(encoder, encoder_weights="none")
        if not (Path(folder) / "keras.keras").exists():
            model.save(Path(folder) / "keras.keras")
            export_saved_model(model, folder, "saved_model", max_size=10**6, warmup=False)
        photos = [sample(0, index, (size, size))[0] for index in range(4)]
        for variant in (kind for kind in FORMATS if kind in tflite.LIMITS):
            content = tflite.convert(model, (size, size), variant, photos)
            (Path(folder) / f"{variant}-{size}.tflite").write_bytes(content)
        run = tf.function(lambda image: model(image, training=False))
        return operations(run.get_concrete_function(tf.TensorSpec((1, size, size, 3))).graph)


def prediction(encoder: str, kind: str, size: int, folder: str, count: int) -> Row:
    """Measures the bare network on one photo, with all processors.

    Args:
        encoder: as in a config.
        kind: one of `FORMATS`.
        size: side of the photo.
        folder: what `export_models` wrote to.
        count: what it returned.

    Returns:
        The row.
    """
    start = time.perf_counter()
    path = _model_path(kind, size, Path(folder))
    photo = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)
    with quiet():
        network = load_network(path)
        network.run(photo)
    first = time.perf_counter() - start
    seconds = median_seconds(lambda: network.run(photo))
    megabytes = peak_memory()
    with quiet():
        import tensorflow as tf
    return Row(
        "predict",
        f"model2 {encoder} {size} px, {kind}",
        _INCLUDES,
        milliseconds=1000 * seconds,
        images_per_second=1 / seconds,
        gflops=count / seconds / 1e9,
        share=count / seconds / matrix_rate(tf.float32, on_processor=kind not in _ON_GPU),
        first_seconds=first,
        megabytes=megabytes,
    )


def shipped_network() -> Row:
    """Measures the bare network that kmatting ships, with all processors."""
    start = time.perf_counter()
    network = load_network(shipped_model())
    height, width = network.fixed_size or (DEFAULT_SIZE, DEFAULT_SIZE)
    photo = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    network.run(photo)
    first = time.perf_counter() - start
    before = time.process_time()
    seconds = median_seconds(lambda: network.run(photo))
    processor = (time.process_time() - before) / (WARM_UP + REPEATS)
    return Row(
        "predict",
        f"shipped model, {height}x{width}",
        _INCLUDES,
        milliseconds=1000 * seconds,
        images_per_second=1 / seconds,
        processor_ms=1000 * processor,
        first_seconds=first,
        megabytes=peak_memory(),
    )


def _model_path(kind: str, size: int, folder: Path) -> Path:
    names = {"keras": "keras.keras", "saved_model": "saved_model"}
    return folder / names.get(kind, f"{kind}-{size}.tflite")
