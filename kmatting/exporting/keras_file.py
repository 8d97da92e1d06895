"""Writes a `.keras` file for others: 16-bit weights, no optimizer state."""

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kmatting.errors import UsageError
from kmatting.files import whole_file
from kmatting.networks.keras_model import load_model
from kmatting.networks.metadata import METADATA

if TYPE_CHECKING:
    import keras

LIMIT = 1e-3  # largest mean difference of the alphas that is accepted
_WEIGHTS = "model.weights.h5"


def export_keras(
    model: "keras.Model",
    path: str | os.PathLike[str],
    photos: Sequence[np.ndarray],
    size: tuple[int, int] | None = None,
) -> float:
    """Writes a network to a `.keras` file of half the usual size.

    The weights are stored in float16. The network still computes in float32: Keras casts the
    weights while it loads them, so that `keras.saving.load_model` reads the file as any other.

    Args:
        model: a matting network in float32.
        path: the destination; written beside and renamed.
        photos: uint8 arrays (H, W, 3), sides multiples of 16, to compare the file with `model`.
        size: height and width in pixels that the network was trained at, if known.

    Returns:
        Mean absolute difference of the alphas from those of `model`.

    Raises:
        ValueError: if a weight does not fit into float16, or the alphas differ by more than
            `LIMIT`. Nothing is written then.
        OSError: if the file cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.keras"
        model.save(whole)
        with whole_file(path) as partial:
            _halve(whole, partial, size)
            difference = _mean_difference(model, load_model(partial), photos)
            if not difference <= LIMIT:
                raise UsageError(
                    f"{path}: not written: with float16 weights its alphas differ by "
                    f"{difference:.5f} in the mean, more than {LIMIT:g}."
                )
    return difference


def _halve(whole: Path, half: Path, size: tuple[int, int] | None) -> None:
    """Copies a `.keras` file with its weights in float16, and adds the metadata."""
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(half, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == _WEIGHTS:
                content = _in_float16(content)
            target.writestr(name, content, zipfile.ZIP_DEFLATED)
        target.writestr(METADATA, json.dumps({"size": size}))


def _in_float16(content: bytes) -> bytes:
    """Rewrites an HDF5 file with its float32 arrays in float16."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(io.BytesIO(content)) as source, h5py.File(buffer, "w") as target:

        def copy(name: str, item: Any) -> None:
            if isinstance(item, h5py.Group):
                copied = target.require_group(name)
            else:
                copied = target.create_dataset(name, data=_cast(name, item[()]))
            copied.attrs.update(item.attrs)

        target.attrs.update(source.attrs)
        source.visititems(copy)
    return buffer.getvalue()


def _cast(name: str, values: np.ndarray) -> np.ndarray:
    if values.dtype != np.float32:
        return values
    with np.errstate(over="ignore"):
        cast = values.astype(np.float16)
    if not np.isfinite(cast).all():
        raise UsageError(f"the weights {name} do not fit into float16.")
    return cast


def _mean_difference(
    model: "keras.Model", other: "keras.Model", photos: Sequence[np.ndarray]
) -> float:
    images = [photo[None] / np.float32(255) for photo in photos]
    differences = [
        np.abs(model.predict(image, verbose=0) - other.predict(image, verbose=0)).mean()
        for image in images
    ]
    return float(np.mean(differences))
