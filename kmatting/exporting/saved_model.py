"""Writes a network as a SavedModel that serves plain photos, in TF Serving's layout.

A client needs no preprocessing. The graph decodes, rotates, reduces and pads a photo, and crops,
enlarges and encodes its alpha.
"""

import contextlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from kmatting.exporting.decode import MAX_PIXELS, check_files, decode
from kmatting.inference.metadata import METADATA
from kmatting.sizes import LONGEST, STRETCH, STRIDE

MAX_BATCH = 16  # photos of the network's full size in one run of the network
LIMIT = 1e-5  # largest difference from the Keras model's alpha
_EXTRA = "assets.extra"  # where a SavedModel keeps files that are not part of its graph

# Reducing by less than this would only blur. It also spares a photo that was padded by its client.
_LEAST_REDUCTION = 0.89


def export_saved_model(
    model: keras.Model,
    output: str | os.PathLike[str],
    name: str,
    version: int | None = None,
    max_size: int = 512,
    photos: Sequence[np.ndarray] = (),
    warmup: bool = True,
    size: int | None = None,
) -> Path:
    """Writes `output/name/version/`, which TF Serving loads as it is.

    The files are written and checked in a folder beside, which is then renamed: a server that
    watches `output/name` never sees half a model.

    Signatures:
        serving_default: `image` uint8 (N, H, W, 3), any H and W, to `alpha` float32 (N, H, W, 1)
            in [0, 1].
        encoded: `image_bytes` string (N,), JPEG or PNG files of any sizes, to `alpha_png_bytes`
            string (N,), 8-bit grey PNG files. Photos are turned upright by their EXIF orientation
            (an orientation that only XMP gives is ignored). TF Serving's REST interface encodes
            strings as base64 only where the name ends in `_bytes`.

    `assets.extra/kmatting.json` in the folder holds `name`, `version`, `size` and `max_size`.

    Args:
        model: a matting network, float32.
        output: folder that holds the models.
        name: the model's name.
        version: the version's number; by default the next free one.
        max_size: side in pixels. A photo of a larger area than `max_size` x `max_size` is reduced
            to that area for the network. Its alpha is enlarged bilinearly, without the refinement
            along the photo's edges that `kmatting.inference.matter.Matter` adds.
        photos: uint8 arrays (H, W, 3). The SavedModel must give the Keras model's alpha on them.
        warmup: whether to write warm-up requests (needs the extra `serving`).
        size: side in pixels of the square that the network was trained at, if known.

    Returns:
        The version's folder.

    Raises:
        ValueError: if the version exists, or if the SavedModel differs from the Keras model.
        OSError: if the files cannot be written.
    """
    home = Path(output) / name
    if version is not None and (home / str(version)).exists():
        raise ValueError(
            f"{home / str(version)}: this version exists. Leave the version out for the next free "
            "one, or choose another."
        )
    serve, serve_encoded = serving_functions(model, max_size)
    with _folder_beside(home) as partial:
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint("serving_default", serve)
        archive.add_endpoint("encoded", serve_encoded)
        try:
            archive.write_out(str(partial), verbose=False)
            (partial / _EXTRA).mkdir(exist_ok=True)
            if warmup:
                write_warmup(partial, name, max_size)
        except (tf.errors.OpError, OSError) as error:
            raise OSError(f"{home}: cannot be written: {_reason(error)}.") from error
        _check(partial, model, photos)
        return _publish(partial, home, version, {"size": size, "max_size": max_size})


def serving_functions(model: keras.Model, max_size: int) -> tuple[Callable, Callable]:
    """Makes the functions behind the two signatures.

    Args:
        model: a matting network.
        max_size: as in `export_saved_model`.

    Returns:
        The `tf.function`s of `serving_default` and `encoded`.
    """

    # Both signatures call this function, so that the network is traced and stored once.
    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, "image")])
    def matte(image: Any) -> Any:
        shape = tf.shape(image)
        small = _reduce(image, max_size)
        alpha = model(_pad(small) / 255, training=False)
        alpha = alpha[:, : tf.shape(small)[1], : tf.shape(small)[2]]
        same = tf.reduce_all(tf.equal(tf.shape(small), shape))
        return tf.cond(same, lambda: alpha, lambda: tf.image.resize(alpha, shape[1:3], "bilinear"))

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, "image")])
    def serve(image: Any) -> dict[str, Any]:
        return {"alpha": matte(image)}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "image_bytes")])
    def serve_encoded(image_bytes: Any) -> dict[str, Any]:
        def matte_png(file: Any) -> Any:
            image, opacity = decode(file)
            alpha = matte(image[None])[0] * opacity
            return tf.io.encode_png(tf.cast(tf.round(alpha * 255), tf.uint8))

        # One file after the other: sizes differ, and memory stays that of the largest photo.
        encoded = tf.map_fn(
            matte_png,
            check_files(image_bytes),
            parallel_iterations=1,
            fn_output_signature=tf.TensorSpec((), tf.string),
        )
        return {"alpha_png_bytes": encoded}

    return serve, serve_encoded


def write_warmup(folder: Path, name: str, size: int) -> None:
    """Writes requests that TF Serving runs at its start, so that no client waits for the first.

    Args:
        folder: the SavedModel, with its folder `assets.extra`.
        name: the model's name.
        size: side in pixels of the warm-up image.

    Raises:
        ImportError: if `tensorflow-serving-api` is missing (extra `serving`).
        OSError: if the file cannot be written.
    """
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    image = np.full((size, size, 3), 128, np.uint8)
    png = io.BytesIO()
    Image.fromarray(image).save(png, "PNG")
    inputs = {
        "serving_default": ("image", tf.make_tensor_proto(image[None])),
        "encoded": ("image_bytes", tf.make_tensor_proto([png.getvalue()])),
    }
    path = folder / _EXTRA / "tf_serving_warmup_requests"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, (key, tensor) in inputs.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name = name
            request.model_spec.signature_name = signature
            request.inputs[key].CopyFrom(tensor)
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())


def _reduce(image: Any, max_size: int) -> Any:
    """Reduces a batch (N, H, W, 3) to the network's size; refuses a batch that is too large."""
    shape = tf.shape(image, out_type=tf.int64)
    count, height, width = shape[0], shape[1], shape[2]
    checks = [
        tf.debugging.Assert(
            tf.reduce_all(shape[:3] > 0),
            ["image: expected at least one image of at least 1x1 pixels, received", shape],
            summarize=4,
        ),
        tf.debugging.Assert(
            count * height * width <= MAX_PIXELS,
            [f"image: expected at most {MAX_PIXELS} pixels in a request, received", shape],
            summarize=4,
        ),
    ]
    with tf.control_dependencies(checks):
        sides = tf.cast(tf.maximum(shape[1:3], 1), tf.float32)
    scale = tf.minimum(
        max_size / tf.sqrt(sides[0] * sides[1]), LONGEST * max_size / tf.reduce_max(sides)
    )
    taller = tf.sqrt(tf.clip_by_value(sides[1] / sides[0], 1 / STRETCH, STRETCH))
    small = tf.round(sides * scale * tf.stack([taller, 1 / taller]))
    small = tf.cast(tf.maximum(small, 1), tf.int32)

    def reduced() -> Any:
        pixels = tf.image.resize(image, small, "bilinear", antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)

    image = tf.cond(scale > _LEAST_REDUCTION, lambda: image, reduced)
    seen = tf.shape(image, out_type=tf.int64)
    padded = seen[0] * tf.reduce_prod(-(-seen[1:3] // STRIDE) * STRIDE)
    most = int(MAX_BATCH * max_size**2 / _LEAST_REDUCTION**2)
    check = tf.debugging.Assert(
        padded <= most,
        [
            f"image: expected at most {MAX_BATCH} images of {max_size}x{max_size} pixels at a time "
            f"({most} pixels in all), received (after reduction)",
            seen,
        ],
        summarize=4,
    )
    with tf.control_dependencies([check]):
        image = tf.identity(image)
    image.set_shape((None, None, None, 3))
    return image


def _pad(image: Any) -> Any:
    """Repeats the last row and column until the stride divides both sides; returns float32."""
    for axis in (1, 2):
        side = tf.shape(image)[axis]
        padded = -(-side // STRIDE) * STRIDE
        image = tf.gather(image, tf.minimum(tf.range(padded), side - 1), axis=axis)
    return tf.cast(image, tf.float32)


@contextlib.contextmanager
def _folder_beside(home: Path) -> Iterator[Path]:
    """Makes a folder in `home` that no server takes for a version; removes it at the end."""
    made = [folder for folder in (home, *home.parents) if not folder.exists()]
    partial = home / f".{uuid.uuid4().hex[:8]}.partial"
    try:
        partial.mkdir(parents=True)
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):  # a folder with something else in it stays
            for folder in made:
                folder.rmdir()


def _publish(
    partial: Path, home: Path, version: int | None, description: dict[str, int | None]
) -> Path:
    """Adds the metadata and renames the folder to its version."""
    while True:
        number = version or next_version(home)
        folder = home / str(number)
        if version and folder.exists():  # another export was faster
            raise ValueError(f"{folder}: this version exists.")
        metadata = {"name": home.name, "version": number, **description}
        (partial / _EXTRA / METADATA).write_text(json.dumps(metadata) + "\n")
        try:
            return partial.rename(folder)
        except OSError:
            if version or not folder.exists():
                raise


def next_version(home: Path) -> int:
    """Returns the next free version of a model.

    Args:
        home: the folder of the model's versions; it need not exist.

    Returns:
        One more than the highest version, or 1 if there is none.
    """
    folders = home.iterdir() if home.is_dir() else ()
    return max((int(each.name) for each in folders if each.name.isdecimal()), default=0) + 1


def _check(folder: Path, model: keras.Model, photos: Sequence[np.ndarray]) -> None:
    """Compares the SavedModel with the Keras model."""
    loaded = tf.saved_model.load(str(folder))
    for photo in photos:
        height, width = (side // STRIDE * STRIDE for side in photo.shape[:2])
        image = photo[None, :height, :width]
        expected = keras.ops.convert_to_numpy(model(image / np.float32(255), training=False))
        received = loaded.signatures["serving_default"](image=tf.constant(image))["alpha"].numpy()
        difference = float(np.abs(received - expected).max())
        if not difference <= LIMIT:
            raise ValueError(
                f"The SavedModel's alpha differs from the Keras model's by {difference:.2g}, more "
                f"than the limit of {LIMIT:.0e}. Nothing was written."
            )


def _reason(error: Exception) -> str:
    message = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
    if "No space left" in message:
        return "No space left on device"
    return (message.strip().splitlines() or [type(error).__name__])[0]
