"""Packs pairs into TFRecord shards and back.

A set of a million photos is slow to copy and to list as files; here it is a few large ones. Each
record is a `tf.train.Example` with the features `image`, `alpha` (the files, byte for byte),
`image_name` and `alpha_name`, so that any reader of TFRecord can use it. `manifest.json` says where
in the shards each file lies, with checksums. A pair is read from any place in one step, as from
files, so that training draws from all shards alike and resumes at any step.
"""

import hashlib
import itertools
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, Literal, Self

import numpy as np
from filelock import FileLock, Timeout
from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator
from tqdm import tqdm

from kmatting.data.pairs import Pair, PairSet, compare_sizes
from kmatting.data.samples import Checker, SourceSection
from kmatting.errors import DataError, Error, ImageError
from kmatting.files import sync_folder, sync_tree
from kmatting.images import read_alpha, read_image
from kmatting.quiet import quiet

MANIFEST = "manifest.json"
_BEFORE, _AFTER = 12, 4  # bytes around the data of a record: its length and two checksums


class ShardsSource(SourceSection):
    """Pairs that `kmatting shard pack` packed.

    Attributes:
        shards: folder of the shards.
        coarse: the outlines are rough; a band along them is not learned from.
    """

    kind: Literal["shards"] = "shards"
    shards: Path
    coarse: bool = False

    def open(self, checker: Checker) -> PairSet:
        """See `SourceSection`."""
        pairs, problems = find_packed_pairs(self.shards)
        checker.add(problems, [])
        good = checker.keep_good(pairs, str(self.shards))
        return PairSet(good, str(self.shards), self.weight, self.coarse)


def _plain_name(name: str) -> str:
    """Checks the name of a file that may be written to."""
    unsafe = name in ("", ".", "..") or len(name.encode("utf-8", "surrogateescape")) > 255
    if unsafe or any(character in name for character in "/\\\0"):
        shown = name if len(name) < 80 else name[:80] + "..."
        raise ValueError(f"expected the name of a file, received {shown!r}")
    return name


PlainName = Annotated[str, AfterValidator(_plain_name)]
ByteCount = Annotated[int, Field(ge=0, lt=2**63)]


class FileEntry(BaseModel):
    """Where a file lies in its shard.

    Attributes:
        name: name of the file.
        offset: where its bytes begin.
        size: how many there are.
        crc32: their CRC-32, as zlib computes it.
    """

    name: PlainName
    offset: ByteCount
    size: ByteCount
    crc32: int


class PairEntry(BaseModel):
    """A record: an image and its alpha."""

    image: FileEntry
    alpha: FileEntry


class ShardEntry(BaseModel):
    """A shard: its file's name, size and SHA-256, and what it holds."""

    file: PlainName
    size: ByteCount
    sha256: str
    pairs: list[PairEntry]

    @model_validator(mode="after")
    def _holds_its_files(self) -> Self:
        for record, pair in enumerate(self.pairs):
            for entry in (pair.image, pair.alpha):
                if entry.offset + entry.size > self.size:
                    raise ValueError(
                        f"record {record} ({entry.name}) ends behind the {self.size} bytes of "
                        f"{self.file}"
                    )
        return self


class Manifest(BaseModel):
    """What a folder of shards holds."""

    format: Literal["kmatting shards 1"] = "kmatting shards 1"
    shards: list[ShardEntry]

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        pairs = [pair for shard in self.shards for pair in shard.pairs]
        twice = [
            *_repeated(shard.file for shard in self.shards),
            *_repeated(PurePath(pair.image.name).stem for pair in pairs),
            *_repeated(pair.alpha.name for pair in pairs),
        ]
        if twice:
            raise ValueError(f"{', '.join(twice[:5])}: named more than once")
        return self


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


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
                if os.fstat(file.fileno()).st_size < self.entry.offset + self.entry.size:
                    raise ImageError(f"{self}: missing, the shard ends before it.")
                file.seek(self.entry.offset)
                data = file.read(self.entry.size)
        except OSError as error:
            raise ImageError(f"{self}: cannot be read: {error.strerror}.") from error
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

    @property
    def files(self) -> tuple[Path]:
        """The shard."""
        return (self.image.shard,)

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
        compare_sizes(alpha, str(self.alpha), image, str(self.image))
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
        DataError: if the folder exists, another process is writing it, or two files have the same
            name.
        OSError: if a file cannot be read or written.
    """
    twice = _repeated(pair.stem for pair in pairs) + _repeated(pair.alpha.name for pair in pairs)
    if twice:
        raise DataError(f"{', '.join(twice[:5])}: more than one file of this name; rename them.")
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
    first = next(pairs, None)
    if first is None:
        return None
    path = folder / f"shard-{len(manifest.shards):05d}.tfrecord"
    entries: list[PairEntry] = []
    size = 0
    with _record_writer(path) as write:
        for pair in itertools.chain([first], pairs):
            image, alpha = pair.image.read_bytes(), pair.alpha.read_bytes()
            record = _serialised(pair, image, alpha)
            write(record)
            begin = size + _BEFORE
            entries.append(
                PairEntry(
                    image=_entry(pair.image.name, image, begin + record.find(image)),
                    alpha=_entry(pair.alpha.name, alpha, begin + record.find(alpha)),
                )
            )
            size = begin + len(record) + _AFTER
            if size >= shard_size:
                break
    return ShardEntry(file=path.name, size=size, sha256=_sha256(path), pairs=entries)


@contextmanager
def _record_writer(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Opens a TFRecord file for writing; yields a function that writes a record."""
    with quiet():
        import tensorflow as tf

    try:
        with tf.io.TFRecordWriter(str(path)) as writer:
            yield writer.write
    except tf.errors.OpError as error:  # a full disk, for one
        raise Error(f"{path}: cannot be written: {error.message}.") from error


def _serialised(pair: Pair, image: bytes, alpha: bytes) -> bytes:
    """Makes the record of a pair."""
    import tensorflow as tf

    features = {
        "image": image,
        "alpha": alpha,
        "image_name": os.fsencode(pair.image.name),
        "alpha_name": os.fsencode(pair.alpha.name),
    }
    example = tf.train.Example()
    for name, value in features.items():
        example.features.feature[name].bytes_list.value.append(value)
    return example.SerializeToString(deterministic=True)


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
            f"{path}: {error.strerror}; expected a folder that `kmatting shard pack` wrote."
        ) from error
    except ValidationError as error:
        problem = error.errors()[0]
        place = "".join(f"{part}: " for part in [".".join(map(str, problem["loc"]))] if part)
        reason = problem["msg"].removeprefix("Value error, ")
        raise DataError(f"{path}: damaged manifest: {place}{reason}.") from error


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
        DataError: if there is no sound manifest, or the destination exists or is being written by
            another process.
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
    """Writes a folder beside its destination and renames it at the end, when it is on the disk."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")
    with _lock(folder):
        if folder.exists():
            raise DataError(f"{folder}: already exists; choose another folder, or remove it.")
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
        partial.mkdir()
        try:
            yield partial
            sync_tree(partial)
            partial.rename(folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Keeps other processes from writing a folder; ends with the process, however that ends."""
    path = folder.with_name(f".{folder.name}.lock")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise DataError(
            f"{folder}: another process is writing it. Wait for its end, or choose another folder."
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows does not remove a file that is open
            path.unlink()
        lock.release()
