"""Writes a network as a SavedModel that serves plain photos, in TF Serving's layout.

A client needs no preprocessing. The graph decodes, rotates, resizes and pads a photo, crops and
refines its alpha, estimates the colours of the foreground, and encodes the result. A served matte
is the one that `kmatting.inference.matter.Matter` predicts.
"""

import contextlib
import importlib.util
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from kmatting.errors import Error, UsageError
from kmatting.exporting.job import Job
from kmatting.extras import install_command
from kmatting.files import partial_folder
from kmatting.networks.metadata import METADATA
from kmatting.networks.network import PLAIN_SIGNATURE
from kmatting.quiet import quiet
from kmatting.sizes import DEFAULT_SIZE, STRIDE

if TYPE_CHECKING:
    import keras

LIMIT = 1e-4  # largest difference from the Keras model's alpha; of float32, about 2e-5
_EXTRA = "assets.extra"  # where a SavedModel keeps files that are not part of its graph


def export(job: Job, version: int | None = None, max_size: int | None = None) -> list[Path]:
    """Exports to a SavedModel, see `kmatting.exporting.formats`."""
    max_size = max_size or job.side or DEFAULT_SIZE
    _refuse_existing(job.output / job.name, version)
    model = job.load()
    photos = job.photos_of_any_size(max_size)
    warmup = importlib.util.find_spec("tensorflow_serving") is not None
    job.say(f"writing a SavedModel and comparing it with the Keras model on {len(photos)} photos")
    with quiet():
        folder = export_saved_model(
            model, job.output, job.name, version, max_size, photos, warmup, job.side, job.licence
        )
    if not warmup:
        job.report(f"note: without warm-up requests, which need {install_command('serving')}")
    size_on_disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    job.report(
        f"{folder}: {size_on_disk / 1e6:.1f} MB, equal to {job.source} on {len(photos)} photos."
    )
    return [folder]


def export_saved_model(
    model: "keras.Model",
    output: str | os.PathLike[str],
    name: str,
    version: int | None = None,
    max_size: int = 512,
    photos: Sequence[np.ndarray] = (),
    warmup: bool = True,
    size: int | None = None,
    licence: str | None = None,
) -> Path:
    """Writes `output/name/version/`, which TF Serving loads as it is.

    The files are written and checked in another folder, which is then renamed: a server that
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

    `assets.extra/kmatting.json` in the folder holds `name`, `version`, `size`, `max_size` and
    `licence`.

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
        licence: terms of the weights, if known.

    Returns:
        The version's folder.

    Raises:
        ValueError: if the version exists, or if the SavedModel differs from the Keras model.
        OSError: if the files cannot be written.
    """
    import keras
    import tensorflow as tf

    from kmatting.exporting.graph.serving import Server

    # What TensorFlow raises where files cannot be written.
    of_the_disk = (
        tf.errors.ResourceExhaustedError,
        tf.errors.PermissionDeniedError,
        tf.errors.NotFoundError,
        tf.errors.OutOfRangeError,  # of a file that may not be so large
        tf.errors.UnknownError,
    )
    home = Path(output) / name
    _refuse_existing(home, version)
    with _unpublished_folder(home) as partial:
        archive = keras.export.ExportArchive()
        archive.track(model)
        for signature, function in Server(model, max_size).signatures().items():
            archive.add_endpoint(signature, function)
        try:
            archive.write_out(str(partial), verbose=False)
            (partial / _EXTRA).mkdir(exist_ok=True)
            if warmup:
                write_warmup(partial, name, max_size)
        except (*of_the_disk, OSError) as error:
            raise Error(f"{home}: cannot be written: {_reason(error)}.") from error
        _check(partial, model, photos)
        description = {"size": size, "max_size": max_size, "licence": licence}
        return _publish(partial, home, version, description)


def _refuse_existing(home: Path, version: int | None) -> None:
    if version is not None and (home / str(version)).exists():
        raise UsageError(
            f"{home / str(version)}: this version exists. Leave the version out for the next free "
            "one, or choose another."
        )


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
    import tensorflow as tf
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


@contextlib.contextmanager
def _unpublished_folder(home: Path) -> Iterator[Path]:
    """Makes a folder in `home` that no server takes for a version; removes it at the end."""
    made = [folder for folder in (home, *home.parents) if not folder.exists()]
    try:
        with partial_folder(home) as partial:
            yield partial
    finally:
        with contextlib.suppress(OSError):  # a folder with something else in it stays
            for folder in made:
                folder.rmdir()


def _publish(partial: Path, home: Path, version: int | None, description: dict[str, Any]) -> Path:
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


def _check(folder: Path, model: "keras.Model", photos: Sequence[np.ndarray]) -> None:
    """Compares the SavedModel with the Keras model."""
    import keras
    import tensorflow as tf

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
