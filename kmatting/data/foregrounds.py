"""Foreground colours of photos for composites, estimated once and kept in the user's cache.

A photo's pixel at a soft edge mixes the subject with its old background, which would shine through
in the composite.
"""

import contextlib
import os
from pathlib import Path

import numpy as np
from PIL import Image

from kmatting import __version__
from kmatting.data.cache import cache_folder, signature
from kmatting.data.samples import Sample, Size, reduction
from kmatting.errors import ImageError
from kmatting.images import read_photo, write_image
from kmatting.inference.foreground import estimate_foreground

LIMIT = 4_000_000_000  # bytes of the cache


class ForegroundCache:
    """Estimates foregrounds, and keeps each as an RGBA file of about the size that is needed.

    A file is made anew when the photo, its alpha or the training size changes. When the cache is
    full, the estimate is repeated each time; the next start removes the files that were not used
    for the longest time.

    Args:
        limit: bytes that the cache may take.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._folder = cache_folder() / "foregrounds"
        self._room = limit - _remove_oldest(self._folder, limit)

    def load(self, sample: Sample, size: Size) -> tuple[np.ndarray, np.ndarray]:
        """Loads the foreground of a photo; a large one is reduced by a whole factor.

        Args:
            sample: the photo and its alpha.
            size: height and width that the subject is laid into; it keeps at least twice as many
                pixels.

        Returns:
            foreground: uint8 array (h, w, 3).
            alpha: uint8 array (h, w), 255 is foreground.

        Raises:
            ImageError: if the photo or its alpha cannot be read.
        """
        key = signature(sample.files, f"kmatting {__version__} {size}")
        path = self._folder / f"{key}.png"
        if key is not None:
            with contextlib.suppress(ImageError, OSError):
                stored = read_photo(path)
                os.utime(path)  # it was used
                if stored.opacity is not None:
                    return stored.rgb, stored.opacity
        foreground, alpha = _estimated(sample, size)
        if key is not None and self._room > 0:
            with contextlib.suppress(OSError):  # no room, or no folder to write to
                write_image(path, np.dstack([foreground, alpha]))
                self._room -= path.stat().st_size
        return foreground, alpha


def _estimated(sample: Sample, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Reads a photo and its alpha, reduces both, and estimates the foreground's colours."""
    image, alpha = sample.read()
    assert alpha is not None
    left, top, right, bottom = Image.fromarray(alpha).getbbox() or (0, 0, *alpha.shape[::-1])
    factor = reduction(alpha[top:bottom, left:right], size)
    if factor > 1:
        image = np.asarray(Image.fromarray(image).reduce(factor))
        alpha = np.asarray(Image.fromarray(alpha).reduce(factor))
    return estimate_foreground(image, alpha / np.float32(255)), alpha


def _remove_oldest(folder: Path, limit: int) -> int:
    """Makes a quarter of a full cache free; returns how many bytes it has."""
    files = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            status = entry.stat()
            files.append((status.st_mtime_ns, status.st_size, entry.path))
    total = sum(size for _, size, _ in files)
    if total <= limit:
        return total
    for _, size, path in sorted(files):
        if total <= limit * 3 // 4:
            break
        with contextlib.suppress(OSError):
            Path(path).unlink()
        total -= size
    return total
