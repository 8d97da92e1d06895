"""Metadata of models: `kmatting.json`.

A `.keras` file is a zip archive that holds it. In a `.tflite` file such an archive follows the
model, as TFLite's metadata convention has it for associated files: interpreters ignore it, and
`zipfile` reads it. A SavedModel folder holds it in `assets.extra`, which TF Serving leaves to the
user. An `.onnx` file holds it as a metadata property, which every runtime can show.
"""

import io
import json
import lzma
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

from kmatting.errors import ModelError

METADATA = "kmatting.json"
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the metadata of a model.

    Args:
        path: a `.keras` file, a `.tflite` file, or a folder that holds `saved_model.pb`.

    Returns:
        The metadata; empty if the model has none. `max_size`, where it is given, is a positive
        integer, and `licence` a text.

    Raises:
        ModelError: if the metadata is damaged.
    """
    path = Path(path)
    try:
        return parse_metadata(find_metadata(path))
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def parse_metadata(content: str | bytes | None) -> dict[str, Any]:
    """Reads the content of `kmatting.json`, as `read_metadata` returns it.

    Args:
        content: the JSON text, or None for a model that has none.

    Raises:
        ModelError: if it is damaged.
    """
    if content is None:
        return {}
    try:
        metadata = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"damaged {METADATA} ({error}).") from error
    if not isinstance(metadata, dict):
        raise ModelError(f"damaged {METADATA}: expected an object.")
    if not (metadata.get("max_size") is None or _is_side(metadata["max_size"])):
        raise ModelError(f"damaged {METADATA}: expected max_size to be a number of pixels.")
    if not isinstance(metadata.get("licence"), str | None):
        raise ModelError(f"damaged {METADATA}: expected licence to be a text.")
    return metadata


def read_attached(file: str | os.PathLike[str] | bytes) -> bytes | None:
    """Reads `kmatting.json` from the zip archive that a model file is, or that follows it.

    Args:
        file: path of the file, or its content.

    Returns:
        The JSON text, or None if there is none.

    Raises:
        ModelError: if the archive is damaged.
    """
    opened = io.BytesIO(file) if isinstance(file, bytes) else file
    if not zipfile.is_zipfile(opened):
        return None
    try:
        with zipfile.ZipFile(opened) as archive:
            count = archive.namelist().count(METADATA)
            if count <= 1:
                return archive.read(METADATA) if count else None
    except (ValueError, RuntimeError, EOFError, *_ZIP_ERRORS) as error:
        raise ModelError(f"damaged {METADATA} ({error}).") from error
    raise ModelError(f"damaged {METADATA} (it is there {count} times).")


def model_without_archive(content: bytes) -> bytes:
    """Takes the archive that follows the model off the content of a `.tflite` file."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return content[: min(entry.header_offset for entry in archive.infolist())]


def find_metadata(path: Path) -> bytes | None:
    """Returns the file `kmatting.json` of a model, or None if it has none."""
    if path.is_dir():
        file = path / "assets.extra" / METADATA
        return file.read_bytes() if file.is_file() else None
    return read_attached(path)


def read_size(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Reads the size that a network was trained at.

    Args:
        path: a `.keras` file.

    Returns:
        Height and width in pixels, or None if the file does not say.

    Raises:
        ModelError: if the metadata is damaged.
    """
    path = Path(path)
    metadata = read_metadata(path)
    try:
        return trained_size(metadata)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def trained_size(metadata: dict[str, Any]) -> tuple[int, int] | None:
    """Takes the size that a network was trained at from its metadata, as `read_size`."""
    size = metadata.get("size")
    if size is None:
        return None
    if not (isinstance(size, list) and len(size) == 2 and all(map(_is_side, size))):
        raise ModelError(f"damaged {METADATA}: expected a size of two numbers of pixels.")
    height, width = size
    return height, width


def _is_side(value: Any) -> bool:
    return type(value) is int and value > 0
