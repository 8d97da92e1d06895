"""Writes a network as a SavedModel that serves plain photos, in TF Serving's layout.

A client needs no preprocessing. The graph decodes, rotates, resizes and pads a photo, crops and
refines its alpha, estimates the colours of the foreground, and encodes the result. A served matte
is the one that `kmatting.inference.matter.Matter` predicts.
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

from kmatting.errors import Error, UsageError
from kmatting.exporting.graph.decode import MAX_PIXELS, check_files, decode, over_white
from kmatting.exporting.graph.foreground import estimate_foreground
from kmatting.exporting.graph.refine import refine
from kmatting.exporting.graph.resize import resize
from kmatting.networks.metadata import METADATA
from kmatting.networks.network import PLAIN_SIGNATURE, SIGNATURE
from kmatting.sizes import LONGEST, STRETCH, STRIDE

MAX_BATCH = 16  # photos of the network's full size in one run of the network
LIMIT = 1e-4  # largest difference from the Keras model's alpha; of float32, about 2e-5
_EXTRA = "assets.extra"  # where a SavedModel keeps files that are not part of its graph


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
        encoded_cutout: the same input, to `cutout_png_bytes` string (N,), RGBA PNG files with the
            estimated colours of the foreground.
        network: `image` uint8 (N, H, W, 3), H and W multiples of 16, to `alpha`, as the network
            itself gives it. `Matter` runs it.

    `assets.extra/kmatting.json` in the folder holds `name`, `version`, `size` and `max_size`.

    Args:
        model: a matting network, float32.
        output: folder that holds the models.
        name: the model's name.
        version: the version's number; by default the next free one.
        max_size: side in pixels. A photo is resized to the area of `max_size` x `max_size` pixels
            for the network. Its alpha is enlarged along the photo's edges, as
            `kmatting.inference.refine` does.
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
        raise UsageError(
            f"{home / str(version)}: this version exists. Leave the version out for the next free "
            "one, or choose another."
        )
    with _folder_beside(home) as partial:
        archive = keras.export.ExportArchive()
        archive.track(model)
        for signature, function in serving_functions(model, max_size).items():
            archive.add_endpoint(signature, function)
        try:
            archive.write_out(str(partial), verbose=False)
            (partial / _EXTRA).mkdir(exist_ok=True)
            if warmup:
                write_warmup(partial, name, max_size)
        except (tf.errors.OpError, OSError) as error:
            raise Error(f"{home}: cannot be written: {_reason(error)}.") from error
        _check(partial, model, photos)
        return _publish(partial, home, version, {"size": size, "max_size": max_size})


def serving_functions(model: keras.Model, max_size: int) -> dict[str, Callable]:
    """Makes the functions behind the signatures.

    Args:
        model: a matting network.
        max_size: as in `export_saved_model`.

    Returns:
        The `tf.function` of each signature, by its name.
    """
    images = tf.TensorSpec((None, None, None, 3), tf.uint8, "image")
    files = tf.TensorSpec((None,), tf.string, "image_bytes")

    # All signatures call this function, so that the network is traced and stored once.
    @tf.function(input_signature=[images])
    def network(image: Any) -> Any:
        shape = tf.shape(image)
        with tf.control_dependencies([_check_batch(shape[0], shape[1:3], max_size)]):
            image = tf.cast(image, tf.float32)
        return model(image / 255, training=False)

    @tf.function(input_signature=[images])
    def matte(image: Any) -> Any:
        small = _reduce(image, max_size)
        alpha = network(_pad(small))[:, : tf.shape(small)[1], : tf.shape(small)[2], 0]
        alpha = tf.debugging.check_numerics(alpha, "The network's alpha is not finite.")
        alpha = tf.clip_by_value(alpha, 0, 1)
        refined = tf.map_fn(
            lambda pair: refine(*pair),
            (alpha, image),
            parallel_iterations=1,
            fn_output_signature=tf.TensorSpec((None, None), tf.float32),
        )
        return refined[..., None]

    @tf.function(input_signature=[images])
    def serve_network(image: Any) -> dict[str, Any]:
        return {"alpha": network(image)}

    @tf.function(input_signature=[images])
    def serve(image: Any) -> dict[str, Any]:
        return {"alpha": matte(image)}

    @tf.function(input_signature=[files])
    def serve_encoded(image_bytes: Any) -> dict[str, Any]:
        def matte_png(file: Any) -> Any:
            image, opacity = decode(file)
            alpha = matte(over_white(image, opacity)[None])[0]
            return tf.io.encode_png(_levels(alpha, opacity))

        return {"alpha_png_bytes": _one_by_one(matte_png, image_bytes)}

    @tf.function(input_signature=[files])
    def serve_cutout(image_bytes: Any) -> dict[str, Any]:
        def cutout_png(file: Any) -> Any:
            image, opacity = decode(file)
            alpha = matte(over_white(image, opacity)[None])[0]
            # Colours of fully transparent pixels are arbitrary; the network saw white there.
            colours = estimate_foreground(tf.where(opacity > 0, image, 255), alpha[..., 0])
            levels = _levels(alpha, opacity)
            colours = tf.where(levels > 0, colours, 0)
            return tf.io.encode_png(tf.concat([colours, levels], -1), compression=1)

        return {"cutout_png_bytes": _one_by_one(cutout_png, image_bytes)}

    return {
        SIGNATURE: serve,
        "encoded": serve_encoded,
        "encoded_cutout": serve_cutout,
        PLAIN_SIGNATURE: serve_network,
    }


def _one_by_one(encode: Callable[[Any], Any], files: Any) -> Any:
    """Makes a PNG file of each file; sizes differ, and memory stays that of the largest photo."""
    return tf.map_fn(
        encode,
        check_files(files),
        parallel_iterations=1,
        fn_output_signature=tf.TensorSpec((), tf.string),
    )


def _levels(alpha: Any, opacity: Any) -> Any:
    """Returns the alpha of a photo with its own opacity in 8 bits."""
    return tf.cast(tf.round(alpha * (tf.cast(opacity, tf.float32) / 255) * 255), tf.uint8)


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
        "encoded_cutout": ("image_bytes", tf.make_tensor_proto([png.getvalue()])),
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
    """Resizes a batch (N, H, W, 3) to the network's size, as `kmatting.sizes.network_size` says."""
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
        sides = tf.cast(tf.maximum(shape[1:3], 1), tf.float64)
    scale = tf.minimum(
        max_size / tf.sqrt(sides[0] * sides[1]), LONGEST * max_size / tf.reduce_max(sides)
    )
    taller = tf.sqrt(tf.clip_by_value(sides[1] / sides[0], 1 / STRETCH, STRETCH))
    small = tf.round(sides * scale * tf.stack([taller, 1 / taller]))
    small = tf.cast(tf.maximum(small, 1), tf.int32)
    with tf.control_dependencies([_check_batch(count, small, max_size)]):
        small = tf.identity(small)
    image = tf.cond(  # as `Matter` does
        tf.reduce_prod(tf.cast(small, tf.int64)) > height * width,
        lambda: resize(image, small, "lanczos"),
        lambda: resize(image, small, "bilinear"),
    )
    image.set_shape((None, None, None, 3))
    return image


def _check_batch(count: Any, size: Any, max_size: int) -> Any:
    """Refuses a batch that is too large for the network: `count` images of a size (2,)."""
    padded = tf.cast(-(-size // STRIDE) * STRIDE, tf.int64)
    most = MAX_BATCH * (max_size + STRIDE) ** 2
    return tf.debugging.Assert(
        tf.cast(count, tf.int64) * padded[0] * padded[1] <= most,
        [
            f"image: expected at most {MAX_BATCH} images of {max_size}x{max_size} pixels at a time "
            f"({most} pixels in all), received (number, then height and width for the network)",
            count,
            padded,
        ],
        summarize=4,
    )


def _pad(image: Any) -> Any:
    """Repeats the last row and column until the stride divides both sides."""
    for axis in (1, 2):
        side = tf.shape(image)[axis]
        padded = -(-side // STRIDE) * STRIDE
        image = tf.gather(image, tf.minimum(tf.range(padded), side - 1), axis=axis)
    return image


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
            raise UsageError(f"{folder}: this version exists.")
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
        received = loaded.signatures[PLAIN_SIGNATURE](image=tf.constant(image))["alpha"].numpy()
        difference = float(np.abs(received - expected).max())
        if not difference <= LIMIT:
            raise UsageError(
                f"The SavedModel's alpha differs from the Keras model's by {difference:.2g}, more "
                f"than the limit of {LIMIT:.0e}. Nothing was written."
            )


def _reason(error: Exception) -> str:
    message = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
    if "No space left" in message:
        return "No space left on device"
    return (message.strip().splitlines() or [type(error).__name__])[0]
