"""Writes a network as a SavedModel that serves plain photos, in TF Serving's layout.

A client needs no preprocessing: decoding, reducing, padding, cropping and encoding happen in the
graph.
"""

import contextlib
import io
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

from kmatting.sizes import LONGEST, STRETCH, STRIDE

MAX_PIXELS = 2**26  # of one request (67 megapixels)
MAX_BATCH = 16  # images of the full network size that one request may run at a time
LIMIT = 1e-5  # largest difference from the Keras model that is let through

# A photo that is hardly too large is left alone; so is one that a client has padded to the stride.
_HARDLY = 0.89
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


def export_saved_model(
    model: keras.Model,
    output: str | os.PathLike[str],
    name: str,
    version: int | None = None,
    size: int = 512,
    photos: Sequence[np.ndarray] = (),
    warmup: bool = True,
) -> Path:
    """Writes `output/name/version/`, which TF Serving loads as it is.

    It is written and checked beside its place and then renamed, since a server may be watching.

    Signatures:
        serving_default: `image` uint8 (N, H, W, 3), any H and W, to `alpha` float32 (N, H, W, 1)
            in [0, 1].
        encoded: `image_bytes` string (N,), JPEG or PNG of any sizes, to `alpha_png_bytes` string
            (N,), 8-bit grey PNGs. TF Serving's REST interface encodes strings as base64 only where
            the name ends in `_bytes`.

    Args:
        model: a matting network, float32.
        output: folder that holds the models.
        name: the model's name.
        version: number of the version; the next free one by default.
        size: side in pixels of the square whose area the network sees of a larger photo.
        photos: uint8 arrays (H, W, 3) to check what was written against the Keras model.
        warmup: whether to write warm-up requests, which takes the extra `serving`.

    Returns:
        The folder of the version.

    Raises:
        ValueError: if the version exists, or if what was written differs from the Keras model.
        OSError: if it cannot be written.
    """
    home = Path(output) / name
    if version is not None and (home / str(version)).exists():
        raise ValueError(
            f"{home / str(version)}: this version exists. Leave the version out for the next free "
            "one, or choose another."
        )
    serve, serve_encoded = serving_functions(model, size)
    with _folder_beside(home) as partial:
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint("serving_default", serve)
        archive.add_endpoint("encoded", serve_encoded)
        try:
            archive.write_out(str(partial), verbose=False)
            if warmup:
                write_warmup(partial, name, size)
        except (tf.errors.OpError, OSError) as error:
            raise OSError(f"{home}: cannot be written: {_reason(error)}.") from error
        _check(partial, model, photos)
        return _rename(partial, home, version)


def serving_functions(model: keras.Model, size: int) -> tuple[Callable, Callable]:
    """Makes the two functions that are served.

    Args:
        model: a matting network.
        size: as in `export_saved_model`.

    Returns:
        The `tf.function`s of `serving_default` and `encoded`.
    """

    # One function for both signatures, so that the network is traced and stored once.
    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, "image")])
    def matte(image: Any) -> Any:
        shape = tf.shape(image)
        small = _reduce(image, size)
        alpha = model(_pad(small) / 255, training=False)
        alpha = alpha[:, : tf.shape(small)[1], : tf.shape(small)[2]]
        same = tf.reduce_all(tf.equal(tf.shape(small), shape))
        return tf.cond(same, lambda: alpha, lambda: tf.image.resize(alpha, shape[1:3], "bilinear"))

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, "image")])
    def serve(image: Any) -> dict[str, Any]:
        return {"alpha": matte(image)}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "image_bytes")])
    def serve_encoded(image_bytes: Any) -> dict[str, Any]:
        def one(contents: Any) -> Any:
            image, opacity = _decode(contents)
            alpha = matte(image[None])[0] * opacity
            return tf.io.encode_png(tf.cast(tf.round(alpha * 255), tf.uint8))

        # One at a time: their sizes differ, and so memory stays that of the largest.
        encoded = tf.map_fn(
            one,
            image_bytes,
            parallel_iterations=1,
            fn_output_signature=tf.TensorSpec((), tf.string),
        )
        return {"alpha_png_bytes": encoded}

    return serve, serve_encoded


def write_warmup(folder: Path, name: str, size: int) -> None:
    """Writes requests that TF Serving runs before it takes others, so that none is the slow first.

    Args:
        folder: the SavedModel.
        name: the model's name.
        size: side of the warm-up image.

    Raises:
        ImportError: if `tensorflow-serving-api` is missing (extra `serving`).
        OSError: if it cannot be written.
    """
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    image = np.full((size, size, 3), 128, np.uint8)
    png = io.BytesIO()
    Image.fromarray(image).save(png, "PNG")
    inputs = {
        "serving_default": ("image", tf.make_tensor_proto(image[None])),
        "encoded": ("image_bytes", tf.make_tensor_proto([png.getvalue()])),
    }
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir()
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


def _reduce(image: Any, size: int) -> Any:
    """Reduces a batch (N, H, W, 3) to what the network may see; refuses what is too much."""
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
    scale = tf.minimum(size / tf.sqrt(sides[0] * sides[1]), LONGEST * size / tf.reduce_max(sides))
    taller = tf.sqrt(tf.clip_by_value(sides[1] / sides[0], 1 / STRETCH, STRETCH))
    small = tf.round(sides * scale * tf.stack([taller, 1 / taller]))
    small = tf.cast(tf.maximum(small, 1), tf.int32)

    def reduced() -> Any:
        pixels = tf.image.resize(image, small, "bilinear", antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)

    image = tf.cond(scale > _HARDLY, lambda: image, reduced)
    seen = tf.shape(image, out_type=tf.int64)
    padded = seen[0] * tf.reduce_prod(-(-seen[1:3] // STRIDE) * STRIDE)
    most = int(MAX_BATCH * size**2 / _HARDLY**2)
    check = tf.debugging.Assert(
        padded <= most,
        [f"image: expected at most {MAX_BATCH} images of {size}x{size} pixels at a time, or", most,
         "pixels in all, received (reduced)", seen],
        summarize=4,
    )  # fmt: skip
    with tf.control_dependencies([check]):
        image = tf.identity(image)
    image.set_shape((None, None, None, 3))
    return image


def _pad(image: Any) -> Any:
    """Repeats the last row and column until the stride divides the sides; returns float32."""
    for axis in (1, 2):
        side = tf.shape(image)[axis]
        padded = -(-side // STRIDE) * STRIDE
        image = tf.gather(image, tf.minimum(tf.range(padded), side - 1), axis=axis)
    return tf.cast(image, tf.float32)


def _decode(contents: Any) -> tuple[Any, Any]:
    """Decodes a JPEG or PNG file to uint8 (H, W, 3) over white, and its opacity (H, W, 1)."""
    is_jpeg = tf.strings.substr(contents, 0, len(_JPEG)) == _JPEG
    is_png = tf.strings.substr(contents, 0, len(_PNG)) == _PNG
    # The header of a PNG ends, and its data may begin, at byte 33.
    known = is_jpeg | (is_png & (tf.strings.length(contents) > 33))
    received = tf.strings.length(contents)
    check = tf.debugging.Assert(
        known,
        ["image_bytes: expected a JPEG or PNG file, received other bytes, in number", received],
    )
    with tf.control_dependencies([check]):
        contents = tf.identity(contents)

    def png_size() -> Any:
        # Four bytes each, most significant first. As uint32 they would be in the machine's order.
        digits = tf.cast(tf.io.decode_raw(tf.strings.substr(contents, 16, 8), tf.uint8), tf.int64)
        width, height = tf.unstack(tf.linalg.matvec(
            tf.reshape(digits, (2, 4)), tf.constant([1 << 24, 1 << 16, 1 << 8, 1], tf.int64)
        ))  # fmt: skip
        return tf.stack([height, width])

    def jpeg_size() -> Any:
        return tf.cast(tf.image.extract_jpeg_shape(contents)[:2], tf.int64)

    # Of a file, not its bytes but its header says how much memory it takes.
    size = tf.cond(is_jpeg, jpeg_size, png_size)
    check = tf.debugging.Assert(
        tf.reduce_prod(size) <= MAX_PIXELS,
        [f"image_bytes: expected at most {MAX_PIXELS} pixels, received (height, width)", size],
    )
    with tf.control_dependencies([check]):
        contents = tf.identity(contents)

    def jpeg() -> tuple[Any, Any]:
        image = tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE")
        return image, tf.ones((1, 1, 1))

    def png() -> tuple[Any, Any]:
        pixels = tf.io.decode_png(contents, channels=4)
        # Of a PNG with fewer than 8 bits, TensorFlow 2.21 takes 2**bits - 1 for opaque, not 255.
        bits = tf.io.decode_raw(tf.strings.substr(contents, 24, 1), tf.uint8)[0]
        opaque = tf.cast(2 ** tf.cast(tf.minimum(bits, 8), tf.int32) - 1, tf.uint8)
        opacity = tf.cast(pixels[..., 3:], tf.float32) / 255
        opacity = tf.where(tf.reduce_all(pixels[..., 3:] == opaque), 1.0, opacity)
        over_white = tf.cast(pixels[..., :3], tf.float32) * opacity + 255 * (1 - opacity)
        return tf.cast(tf.round(over_white), tf.uint8), opacity

    image, opacity = tf.cond(is_jpeg, jpeg, png)
    image.set_shape((None, None, 3))
    return image, opacity


@contextlib.contextmanager
def _folder_beside(home: Path) -> Iterator[Path]:
    """Yields a new folder in `home` that no server takes for a version, and removes it."""
    made = [folder for folder in (home, *home.parents) if not folder.exists()]
    partial = home / f".{uuid.uuid4().hex[:8]}.partial"
    try:
        partial.mkdir(parents=True)
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):  # as soon as one is not empty
            for folder in made:
                folder.rmdir()


def _rename(partial: Path, home: Path, version: int | None) -> Path:
    while True:
        folder = home / str(version or next_version(home))
        if version and folder.exists():  # by another export, since this one began
            raise ValueError(f"{folder}: this version exists.")
        try:
            return partial.rename(folder)
        except OSError:
            if version or not folder.exists():
                raise


def next_version(home: Path) -> int:
    """Returns the next free version of a model.

    Args:
        home: the folder of the model's versions; need not exist.

    Returns:
        1 more than the highest version, or 1.
    """
    folders = home.iterdir() if home.is_dir() else ()
    return max((int(each.name) for each in folders if each.name.isdecimal()), default=0) + 1


def _check(folder: Path, model: keras.Model, photos: Sequence[np.ndarray]) -> None:
    """Holds what was written against the Keras model."""
    loaded = tf.saved_model.load(str(folder))
    for photo in photos:
        height, width = (side // STRIDE * STRIDE for side in photo.shape[:2])
        image = photo[None, :height, :width]
        expected = keras.ops.convert_to_numpy(model(image / np.float32(255), training=False))
        received = loaded.signatures["serving_default"](image=tf.constant(image))["alpha"].numpy()
        difference = float(np.abs(received - expected).max())
        if not difference <= LIMIT:
            raise ValueError(
                f"The SavedModel differs from the Keras model by {difference:.2g} (at most "
                f"{LIMIT:.0e} is let through); nothing was kept."
            )


def _reason(error: Exception) -> str:
    message = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
    if "No space left" in message:
        return "No space left on device"
    return (message.strip().splitlines() or [type(error).__name__])[0]
