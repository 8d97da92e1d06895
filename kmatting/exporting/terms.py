"""Writes the terms of the weights into model files, and leaves the weights as they are.

    python -m kmatting.exporting.terms "not for commercial use" mine.keras mine.tflite

Exports of such a `.keras` file and networks that are fine-tuned from it carry the terms on.
"""

import argparse
import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from kmatting.cli import command
from kmatting.errors import ModelError
from kmatting.exporting.tflite import write
from kmatting.exporting.tflite_metadata import with_model_metadata
from kmatting.files import whole_file
from kmatting.networks.metadata import METADATA, model_without_archive, read_metadata


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m kmatting.exporting.terms")
    parser.add_argument("licence", help="the terms, in a sentence")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help=".keras or .tflite")
    args = parser.parse_args(argv)
    for path in args.files:
        write_licence(path, args.licence)
    return 0


def write_licence(path: Path, licence: str) -> None:
    """Writes the terms of the weights into a `.keras` or `.tflite` file.

    Raises:
        ModelError: if it is another file, or its metadata is damaged.
        OSError: if it cannot be written.
    """
    metadata = {**read_metadata(path), "licence": licence}
    if path.suffix == ".keras":
        _rewrite_keras(path, json.dumps(metadata))
    elif path.suffix == ".tflite":
        content = model_without_archive(path.read_bytes())
        write(path, with_model_metadata(content, metadata), metadata)
    else:
        raise ModelError(f"{path}: expected a .keras or .tflite file.")


def _rewrite_keras(path: Path, metadata: str) -> None:
    with (
        whole_file(path) as partial,
        zipfile.ZipFile(path) as source,
        zipfile.ZipFile(partial, "w") as target,
    ):
        for entry in source.infolist():
            if entry.filename != METADATA:
                target.writestr(entry, source.read(entry))
        target.writestr(zipfile.ZipInfo(METADATA), metadata)


if __name__ == "__main__":
    sys.exit(main())
