"""Metadata of models: `kmatting.json`.

A `.keras` file is a zip archive that holds it. In a `.tflite` file such an archive follows the
model, as TFLite's metadata convention has it for associated files: interpreters ignore it, and
`zipfile` reads it. A SavedModel folder holds it in `assets.extra`, which TF Serving leaves to the
user. An `.onnx` file holds it as a metadata property, which every runtime can show.
"""

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
        integer.

    Raises:
        ValueError: if the metadata is damaged.
    """
    path = Path(path)
    try:
        content = _content(path)
    except (ValueError, RuntimeError, EOFError, *_ZIP_ERRORS) as error:
        raise ModelError(f"{path}: damaged {METADATA} ({error}).") from error
    try:
        return {} if content is None else parse_metadata(content)
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from error


def parse_metadata(content: str | bytes) -> dict[str, Any]:
    """Reads the content of `kmatting.json`.

    Args:
        content: the JSON text.

    Returns:
        The metadata, as `read_metadata` returns it.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        metadata = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"damaged {METADATA} ({error}).") from error
    if not isinstance(metadata, dict):
        raise ModelError(f"damaged {METADATA}: expected an object.")
    if not (metadata.get("max_size") is None or _is_side(metadata["max_size"])):
        raise ModelError(f"damaged {METADATA}: expected max_size to be a number of pixels.")
    return metadata


def _content(path: Path) -> bytes | None:
    """Returns the file `kmatting.json` of a model, or None if it has none."""
    if path.is_dir():
        file = path / "assets.extra" / METADATA
        return file.read_bytes() if file.is_file() else None
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        count = archive.namelist().count(METADATA)
        if count > 1:
            raise ModelError(f"it is there {count} times")
        return archive.read(METADATA) if count else None


def read_size(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Reads the size that a network was trained at.

    Args:
        path: a `.keras` file.

    Returns:
        Height and width in pixels, or None if the file does not say.

    Raises:
        ValueError: if the metadata is damaged.
    """
    size = read_metadata(path).get("size")
    if size is None:
        return None
    if not (isinstance(size, list) and len(size) == 2 and all(map(_is_side, size))):
        raise ModelError(f"{path}: damaged {METADATA}: expected a size of two numbers of pixels.")
    height, width = size
    return height, width


def _is_side(value: Any) -> bool:
    return type(value) is int and value > 0
