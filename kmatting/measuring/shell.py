"""Rows of the group `predict`: the command `kmatting predict`, with all that it does."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from kmatting.errors import UsageError
from kmatting.images import write_image
from kmatting.measuring.machine import REPEATS, in_megabytes
from kmatting.measuring.rows import Row

__all__ = ["by_megapixels", "from_the_shell"]

_PHOTO = (960, 1280)  # height and width of the photos
_PHOTOS = 24  # of the folder
_MEGAPIXELS = (0.3, 1.2, 3, 12, 24, 48)


def from_the_shell(folder: Path) -> list[Row]:
    """Measures `kmatting predict` with the model that kmatting ships.

    Args:
        folder: for photos.

    Returns:
        Rows for the matte and for the cutout of one photo, and for the mattes of a folder: the
        time per additional photo, without start-up.
    """
    photos = _write_photos(folder / "photos", _PHOTO, _PHOTOS)
    _predict(photos[0], "--alpha")  # reads the files of the interpreter once
    rows = []
    what = f"shipped model from the shell, {_PHOTO[1]}x{_PHOTO[0]} JPEG"
    for kind in ("alpha", "cutout"):
        runs = [_predict(photos[0], f"--{kind}") for _ in range(REPEATS)]
        rows.append(_shell_row(f"{what} to {kind}: one photo", "start, all steps", runs))
    one = rows[0].milliseconds
    runs = [_predict(folder / "photos", "--alpha") for _ in range(3)]
    row = _shell_row(f"{what} to alpha: each more", "all steps", runs)
    row.milliseconds = (row.milliseconds - one) / (_PHOTOS - 1)
    row.processor_ms = ((row.processor_ms or 0) - (rows[0].processor_ms or 0)) / (_PHOTOS - 1)
    row.images_per_second = 1000 / row.milliseconds
    return [*rows, row]


def by_megapixels(folder: Path) -> Iterator[Row]:
    """Measures `kmatting predict` on photos from 0.3 to 48 megapixels.

    Args:
        folder: for photos.

    Yields:
        A row for the matte and one for the cutout of each size.
    """
    for megapixels in _MEGAPIXELS:
        height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
        size = (height, height * 4 // 3)
        (photo,) = _write_photos(folder / f"{megapixels}", size, 1)
        for kind in ("alpha", "cutout"):
            runs = [_predict(photo, f"--{kind}") for _ in range(3)]
            yield _shell_row(f"from the shell, {megapixels} MP to {kind}", "start, all steps", runs)


def _write_photos(folder: Path, size: tuple[int, int], count: int) -> list[Path]:
    """Writes synthetic photos; large ones are enlarged, as drawing them would take minutes."""
    from kmatting.data.synthetic import sample

    paths = [folder / f"{index:03d}.jpg" for index in range(count)]
    for index, path in enumerate(paths):
        photo = Image.fromarray(sample(1, index, _PHOTO)[0])
        write_image(path, photo.resize(size[::-1], Image.Resampling.BICUBIC), quality=90)
    return paths


def _predict(source: Path, kind: str) -> tuple[float, float, float]:
    """Runs `kmatting predict`; returns its seconds, its processor seconds and its memory in MB."""
    with tempfile.TemporaryDirectory() as output:
        arguments = [sys.executable, "-m", "kmatting", "predict", str(source), "-o", output, kind]
        start = time.perf_counter()
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UsageError(f"kmatting predict {source} failed with status {process.returncode}.")
    return seconds, usage.ru_utime + usage.ru_stime, in_megabytes(usage.ru_maxrss)


def _shell_row(name: str, includes: str, runs: Sequence[tuple[float, float, float]]) -> Row:
    seconds, processor, megabytes = (statistics.median(each) for each in zip(*runs, strict=True))
    return Row(
        "predict",
        name,
        includes,
        milliseconds=1000 * seconds,
        images_per_second=1 / seconds,
        processor_ms=1000 * processor,
        megabytes=megabytes,
    )
