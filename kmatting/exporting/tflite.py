"""Converts a network to TFLite files of fixed sizes, and compares them with the Keras model."""

import importlib.util
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kmatting.errors import Error, UsageError
from kmatting.exporting import parity
from kmatting.exporting.formats import VARIANTS
from kmatting.exporting.int8 import quantize
from kmatting.exporting.job import THREADS, Job, check_photos, photos_of_size
from kmatting.exporting.multi_size import join, signature_name
from kmatting.exporting.parity import Parity, milliseconds
from kmatting.exporting.tflite_metadata import with_model_metadata
from kmatting.files import whole_file
from kmatting.networks.metadata import METADATA
from kmatting.networks.tflite import TFLiteNetwork
from kmatting.quiet import quiet
from kmatting.sizes import DEFAULT_SIZE, STRIDE, Size, height_width, size_text
from kmatting.terminal import complain

if TYPE_CHECKING:
    import keras

CALIBRATED = ("int8", "integer")  # variants with scales that are taken from photos
CALIBRATION_PHOTOS = 40  # of them, spread over the folder


def export(
    job: Job,
    version: int | None = None,
    size: Size | list[Size] | None = None,
    variant: str | Sequence[str] | None = None,
    calibration: str | os.PathLike[str] | None = None,
    limit: float | None = None,
) -> list[Path]:
    """Exports to TFLite files, one for each variant, see `kmatting.exporting.formats`."""
    variants = list(
        dict.fromkeys([variant] if isinstance(variant, str) else variant or ["float32"])
    )
    sizes = _sizes(size or job.trained_at or DEFAULT_SIZE)
    calibration = None if calibration is None else Path(calibration)
    _check_arguments(job, sizes, variants, calibration)
    model = job.load()
    job.report(f"{'':40} {'MB':>6} {'mean':>8} {'max':>8} {'ms':>7}   alpha compared with Keras")
    photos = {size: job.photos_of_size(size) for size in sizes}
    expected = {}
    for each in sizes:
        job.say(f"running the Keras model at {size_text(each)}")
        with quiet():
            expected[each], keras_time = _run_keras(model, photos[each])
        job.report(f"{f'Keras at {size_text(each)}':40} {'':24} {keras_time:7.0f}")
    written = []
    for kind in variants:
        names = "-".join(map(size_text, sizes))
        target = job.target(f"{job.name}-{names}-{kind}.tflite")
        metadata = describe(job.name, version or 1, sizes, kind, job.licence)
        converted = _convert_sizes(job, model, sizes, kind, calibration)
        content = with_model_metadata(converted, metadata)
        job.say(f"comparing {kind} with the Keras model")
        _check(job, target, content, photos, expected, VARIANTS[kind] if limit is None else limit)
        write(target, content, metadata)
        written.append(target)
    return written


def _sizes(size: Size | list[Size]) -> list[tuple[int, int]]:
    """Returns the height and width of each size: of one, such as 64 or (64, 96), or of a list."""
    sizes = size if isinstance(size, list) else [size]
    return list(dict.fromkeys(height_width(each) for each in sizes))


def _check_arguments(
    job: Job, sizes: Sequence[tuple[int, int]], variants: Sequence[str], calibration: Path | None
) -> None:
    """Finds what is wrong with the options before TensorFlow is loaded."""
    wrong = [variant for variant in variants if variant not in VARIANTS]
    if wrong:
        raise UsageError(
            f"--variant: expected some of {', '.join(VARIANTS)}, received {', '.join(wrong)}."
        )
    for height, width in sizes:
        if height <= 0 or width <= 0 or height % STRIDE or width % STRIDE:
            raise UsageError(
                f"--size: expected multiples of {STRIDE}, received {size_text((height, width))}."
            )
    calibrated = [variant for variant in variants if variant in CALIBRATED]
    if calibration is not None and not calibrated:
        raise UsageError(
            f"--calibration goes with --variant int8 or integer, received {' '.join(variants)}."
        )
    if len(variants) > 1 and job.target("folder.tflite") == job.output:
        raise UsageError(
            f"--output {job.output}: a file holds one variant, received {' '.join(variants)}. "
            "Choose a folder."
        )
    if calibration is None and calibrated:
        complain(
            f"note: {' and '.join(calibrated)}: calibrated on synthetic photos. --calibration DIR, "
            "a folder of photos like yours, may be more exact."
        )
    if "int8" in variants and importlib.util.find_spec("ai_edge_quantizer") is None:
        raise ModuleNotFoundError("ai_edge_quantizer", name="ai_edge_quantizer")
    check_photos("--calibration", calibration)


def _run_keras(model: Any, photos: Sequence[np.ndarray]) -> tuple[list[np.ndarray], float]:
    """Returns the alphas to compare exports with, and the milliseconds per photo."""
    import tensorflow as tf

    run = tf.function(lambda image: model(image, training=False))
    images = [photo[None] / np.float32(255) for photo in photos]
    return [run(image).numpy() for image in images], milliseconds(lambda: run(images[0]).numpy())


def _convert_sizes(
    job: Job,
    model: Any,
    sizes: Sequence[tuple[int, int]],
    variant: str,
    calibration: Path | None,
) -> bytes:
    """Converts a network to one file that runs at all sizes."""
    models = {}
    for size in sizes:
        photos = []
        if variant in CALIBRATED:
            photos = photos_of_size(calibration, CALIBRATION_PHOTOS, size)
        job.say(f"converting to {variant} at {size_text(size)}")
        with quiet():
            models[size] = convert(model, size, variant, photos)
    return join(models)


def _check(
    job: Job,
    target: Path,
    content: bytes,
    photos: dict[tuple[int, int], list[np.ndarray]],
    expected: dict[tuple[int, int], list[np.ndarray]],
    limit: float,
) -> None:
    """Reports how a file compares with the Keras model at each size; refuses what differs much."""
    label, megabytes = target.name, f"{len(content) / 1e6:.1f}"
    if len(photos) > 1:
        job.report(f"{label:40} {megabytes:>6}")
    for size in photos:
        if len(photos) > 1:
            label, megabytes = f"  at {size_text(size)}", ""
        with quiet():
            parity = compare(content, photos[size], expected[size], THREADS, size)
        job.report(
            f"{label:40} {megabytes:>6} {parity.mean:8.5f} {parity.largest:8.5f} "
            f"{parity.milliseconds:7.0f}"
        )
        if not parity.mean <= limit:
            raise UsageError(
                f"{target}: not written: its alphas at {size_text(size)} differ from the Keras "
                f"model's by {parity.mean:.5f} in the mean, more than the limit of {limit:g}. Try "
                "another variant, photos like yours for --calibration and --photos, or --limit."
            )


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
    if b"serving_default" not in content:  # the converter continues without its temporary file
        raise Error(
            f"TensorFlow could not convert by way of {tempfile.gettempdir()}: is that disk full?"
        )
    return content


def write(path: str | os.PathLike[str], content: bytes, metadata: dict[str, Any]) -> None:
    """Writes a TFLite file with its metadata, see `kmatting.networks.metadata`.

    Args:
        path: the destination; written under another name first and renamed.
        content: the flat buffer.
        metadata: content of `kmatting.json`.

    Raises:
        OSError: if the file cannot be written.
    """
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as archive:
        # Its date is fixed: the same network gives the same file.
        archive.writestr(zipfile.ZipInfo(METADATA), json.dumps(metadata, indent=2) + "\n")
    with whole_file(path) as partial:
        partial.write_bytes(buffer.getvalue())


def describe(
    name: str,
    version: int,
    sizes: Sequence[tuple[int, int]],
    variant: str,
    licence: str | None = None,
) -> dict[str, Any]:
    """Describes a TFLite file for those who run it.

    Args:
        name: name of the model.
        version: version of the model.
        sizes: height and width in pixels, of each size in the file.
        variant: one of `VARIANTS`.
        licence: terms of the weights, if known.

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
        "licence": licence,
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
    return parity.compare(TFLiteNetwork(content, threads, size).run, photos, expected)
