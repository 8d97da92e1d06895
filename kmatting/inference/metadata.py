"""Metadata in model files: `kmatting.json` in a zip archive.

A `.keras` file is a zip archive. In a `.tflite` file the archive follows the model, as TFLite's
metadata convention has it for associated files: interpreters ignore it, `zipfile` reads it.
"""

import json
import os
import zipfile
from typing import Any

METADATA = "kmatting.json"


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the metadata of a `.keras` or `.tflite` file.

    Args:
        path: the file.

    Returns:
        The metadata; empty if the file has none.

    Raises:
        ValueError: if the metadata is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            metadata = json.loads(archive.read(METADATA))
    except (zipfile.BadZipFile, KeyError):
        return {}
    except ValueError as error:
        raise ValueError(f"{path}: damaged {METADATA} ({error}).") from error
    if not isinstance(metadata, dict):
        raise ValueError(f"{path}: damaged {METADATA} (expected an object).")
    return metadata


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
    if not (
        isinstance(size, list)
        and len(size) == 2
        and all(type(side) is int and side > 0 for side in size)
    ):
        raise ValueError(f"{path}: damaged {METADATA} (expected a size of two numbers).")
    height, width = size
    return height, width
