"""Packs pairs into TFRecord shards and back: `python -m kmatting.data.shard`.

A set of a million photos is slow to copy and to list as loose files; here it is a few large ones.
Each record is a `tf.train.Example` with the features `image`, `alpha` (the files, byte for byte),
`image_name` and `alpha_name`, so that any reader of TFRecord can use it. `manifest.json` says where
in the shards each file lies, with checksums. A pair is read from any place in one step, as a loose
one is, so that training draws from all shards alike and goes on from any step.
"""

import argparse
import hashlib
import shutil
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field, ValidationError, field_validator
from tqdm import tqdm

from kmatting.data.pairs import DataError, Pair, check, compare, find_pairs, report
from kmatting.images import ImageError, read_alpha, read_image
from kmatting.quiet import quiet

MANIFEST = "manifest.json"
_BEFORE, _AFTER = 12, 4  # bytes around the data of a record: its length and two checksums

EXAMPLES = """examples:
  pairs to shards, and a config that trains on them:
    python -m kmatting.data.shard pack photos mattes shards
    python -m kmatting.train --config configs/model2.yaml \\
      --set data.train='[{kind: shards, shards: shards}]'
  are they still whole?
    python -m kmatting.data.shard verify shards
  and back, byte for byte, to pairs/image and pairs/alpha:
    python -m kmatting.data.shard unpack shards pairs
"""


class FileEntry(BaseModel):
    """Where a file lies in its shard.

    Attributes:
        name: name of the file.
        offset: where its bytes begin.
        size: how many there are.
        crc32: their CRC-32, as zlib computes it.
    """

    name: str
    offset: int = Field(ge=0)
    size: int = Field(ge=0)
    crc32: int

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if PurePath(name).name != name:  # it will be written to
            raise ValueError(f"expected the name of a file, received {name!r}")
        return name


class PairEntry(BaseModel):
    """A record: an image and its alpha."""

    image: FileEntry
    alpha: FileEntry


class ShardEntry(BaseModel):
    """A shard: its file's name, size and SHA-256, and what it holds."""

    file: str
    size: int
    sha256: str
    pairs: list[PairEntry]


class Manifest(BaseModel):
    """What a folder of shards holds."""

    format: Literal["kmatting shards 1"] = "kmatting shards 1"
    shards: list[ShardEntry]


@dataclass(frozen=True)
class PackedFile:
    """A file in a shard.

    Attributes:
        shard: path of the shard.
        record: number of its record, from 0.
        entry: where it lies.
    """

    shard: Path
    record: int
    entry: FileEntry

    def __str__(self) -> str:
        return f"{self.shard}: record {self.record} ({self.entry.name})"

    def read(self) -> bytes:
        """Reads the bytes of the file.

        Raises:
            ImageError: if they are not what was packed.
        """
        try:
            with self.shard.open("rb") as file:
                file.seek(self.entry.offset)
                data = file.read(self.entry.size)
        except OSError as error:
            raise ImageError(f"{self}: cannot be read: {error.strerror}.") from error
        if len(data) < self.entry.size:
            raise ImageError(f"{self}: missing, the shard ends before it.")
        if zlib.crc32(data) != self.entry.crc32:
            raise ImageError(f"{self}: damaged, its checksum is wrong.")
        return data


@dataclass(frozen=True)
class PackedPair:
    """An image and its alpha in a shard."""

    image: PackedFile
    alpha: PackedFile

    @property
    def stem(self) -> str:
        """Name of the image without its suffix."""
        return PurePath(self.image.entry.name).stem

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Reads and decodes both files, as `Pair.read` does.

        Returns:
            image: uint8 array (H, W, 3), upright; transparent parts over white.
            alpha: uint8 array (H, W), 255 is foreground.

        Raises:
            ImageError: as `Pair.read`, and if the shard is damaged.
        """
        image = _decode(read_image, self.image)
        alpha = _decode(read_alpha, self.alpha)
        compare(alpha, str(self.alpha), image, str(self.image))
        return image, alpha


def _decode(decoder: Callable[[bytes], np.ndarray], file: PackedFile) -> np.ndarray:
    data = file.read()
    try:
        return decoder(data)
    except ImageError as error:
        raise ImageError(f"{file}{str(error).removeprefix('image')}") from error


def pack(pairs: Sequence[Pair], folder: Path, shard_size: int = 256_000_000) -> Manifest:
    """Writes pairs to shards; the same pairs give the same bytes.

    Args:
        pairs: what to pack, in order.
        folder: destination; must not exist, and appears once it is whole.
        shard_size: a shard is closed when it has this many bytes or more.

    Returns:
        The manifest.

    Raises:
        DataError: if the folder exists.
        OSError: if a file cannot be read or written.
    """
    manifest = Manifest(shards=[])
    remaining = iter(tqdm(pairs, "packing", unit="pair", disable=None))
    with _whole_folder(folder) as partial:
        for shard in iter(lambda: _pack_shard(remaining, partial, manifest, shard_size), None):
            manifest.shards.append(shard)
        (partial / MANIFEST).write_text(manifest.model_dump_json() + "\n", encoding="utf-8")
    return manifest


def _pack_shard(
    pairs: Iterator[Pair], folder: Path, manifest: Manifest, shard_size: int
) -> ShardEntry | None:
    """Writes one shard; returns None where no pair is left."""
    with quiet():
        import tensorflow as tf

    path = folder / f"shard-{len(manifest.shards):05d}.tfrecord"
    entries: list[PairEntry] = []
    offset = 0
    writer = None
    for pair in pairs:
        writer = writer or tf.io.TFRecordWriter(str(path))
        image, alpha = pair.image.read_bytes(), pair.alpha.read_bytes()
        features = {
            "image": image,
            "alpha": alpha,
            "image_name": pair.image.name.encode(),
            "alpha_name": pair.alpha.name.encode(),
        }
        example = tf.train.Example()
        for name, value in features.items():
            example.features.feature[name].bytes_list.value.append(value)
        record = example.SerializeToString(deterministic=True)
        writer.write(record)
        begin = offset + _BEFORE
        entries.append(
            PairEntry(
                image=_entry(pair.image.name, image, begin + record.find(image)),
                alpha=_entry(pair.alpha.name, alpha, begin + record.find(alpha)),
            )
        )
        offset = begin + len(record) + _AFTER
        if offset >= shard_size:
            break
    if writer is None:
        return None
    writer.close()
    return ShardEntry(file=path.name, size=offset, sha256=_sha256(path), pairs=entries)


def _entry(name: str, data: bytes, offset: int) -> FileEntry:
    return FileEntry(name=name, offset=offset, size=len(data), crc32=zlib.crc32(data))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_packed_pairs(folder: Path) -> tuple[list[PackedPair], list[str]]:
    """Lists the pairs of a folder of shards by its manifest; reads no shard.

    Args:
        folder: the folder.

    Returns:
        The pairs, sorted by stem as loose ones are, and what is wrong, a line each.
    """
    try:
        manifest = _read_manifest(folder)
    except DataError as error:
        return [], [str(error)]
    return sorted(_pairs(folder, manifest), key=lambda pair: pair.stem), []


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror}; expected a folder that `kmatting.data.shard pack` wrote."
        ) from error
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise DataError(f"{path}: damaged manifest: {place}: {problem['msg']}.") from error


def _pairs(folder: Path, manifest: Manifest) -> Iterable[PackedPair]:
    for shard in manifest.shards:
        path = folder / shard.file
        for record, pair in enumerate(shard.pairs):
            yield PackedPair(
                PackedFile(path, record, pair.image), PackedFile(path, record, pair.alpha)
            )


def unpack(shards: Path, folder: Path) -> None:
    """Writes the files of shards, as they were packed, to `image` and `alpha` in a folder.

    Args:
        shards: folder of shards.
        folder: destination; must not exist, and appears once it is whole.

    Raises:
        DataError: if there is no sound manifest, or the destination exists.
        ImageError: for the first damaged record; nothing is written then.
    """
    pairs = list(_pairs(shards, _read_manifest(shards)))
    with _whole_folder(folder) as partial:
        for kind in ("image", "alpha"):
            (partial / kind).mkdir()
        for pair in tqdm(pairs, "unpacking", unit="pair", disable=None):
            (partial / "image" / pair.image.entry.name).write_bytes(pair.image.read())
            (partial / "alpha" / pair.alpha.entry.name).write_bytes(pair.alpha.read())


def verify(shards: Path) -> list[str]:
    """Reads all shards and compares them with the manifest.

    Args:
        shards: folder of shards.

    Returns:
        What is damaged, a line each, by shard and record.

    Raises:
        DataError: if there is no sound manifest.
    """
    manifest = _read_manifest(shards)
    problems = []
    for shard in tqdm(manifest.shards, "verifying", unit="shard", disable=None):
        path = shards / shard.file
        if path.is_file() and path.stat().st_size == shard.size and _sha256(path) == shard.sha256:
            continue
        found = []
        for pair in _pairs(shards, Manifest(shards=[shard])):
            for file in (pair.image, pair.alpha):
                try:
                    file.read()
                except ImageError as error:
                    found.append(str(error))
        problems += found or [f"{path}: damaged between its files, which are whole; unpack them."]
    return problems


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """Writes a folder beside its destination and renames it at the end."""
    if folder.exists():
        raise DataError(f"{folder}: exists already; choose another folder, or remove it.")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


# Command


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    style: Any = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m kmatting.data.shard",
        description="Pack pairs into TFRecord shards, unpack or verify them.",
        epilog=EXAMPLES,
        formatter_class=style,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="pairs to shards")
    packing.add_argument("images", type=Path, help="folder of photos")
    packing.add_argument("alphas", type=Path, help="folder of mattes, with the same stems")
    packing.add_argument("shards", type=Path, help="folder to make")
    packing.add_argument(
        "--shard-size",
        type=_positive,
        default=256,
        metavar="MB",
        help="size at which a shard is closed (%(default)s)",
    )
    unpacking = commands.add_parser("unpack", help="shards to pairs, byte for byte")
    unpacking.add_argument("shards", type=Path, help="folder of shards")
    unpacking.add_argument("pairs", type=Path, help="folder to make, with image/ and alpha/")
    verifying = commands.add_parser("verify", help="compare shards with their checksums")
    verifying.add_argument("shards", type=Path, help="folder of shards")
    return parser.parse_args(argv)


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected more than 0, received {text}")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 1 if `verify` finds damage, 2 for errors."""
    args = _parse(argv)
    try:
        if args.command == "pack":
            pairs, unmatched = find_pairs(args.images, args.alphas)
            good, bad = check(pairs)
            report([*unmatched, *bad], "error")
            manifest = pack(good, args.shards, round(args.shard_size * 1_000_000))
            print(f"Packed {len(good)} pairs into {len(manifest.shards)} shards.")
        elif args.command == "unpack":
            unpack(args.shards, args.pairs)
        elif problems := verify(args.shards):
            print("\n".join(problems), file=sys.stderr)
            return 1
        else:
            print("All shards are whole.")
    except (DataError, ImageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
