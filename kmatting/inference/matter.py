"""A loaded model in use: photo in, matte out, whatever the format of the model.

TensorFlow and Keras are imported only for the formats that need them, never for `.tflite` and
`.onnx` files.
"""

import contextlib
import copy
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from kmatting.errors import ImageError, ModelError, PhotoError, UsageError
from kmatting.images import Photo, Source, image_size, read_photo
from kmatting.inference.matte import Matte
from kmatting.inference.refine import refine
from kmatting.networks.formats import load_network
from kmatting.networks.network import Network
from kmatting.networks.runtime import processors
from kmatting.networks.shipped import shipped_model
from kmatting.sizes import (
    DEFAULT_SIZE,
    STRIDE,
    Size,
    as_frame,
    network_size,
    padded,
    size_in_frame,
    size_text,
    whole_number,
)

_MOST_WORKERS = 8  # threads that work on photos side by side
_LARGE = 12_000_000  # pixels: of larger photos, only a few are worked on at a time, to save memory
_LARGE_AT_A_TIME = 2
_LARGEST_SIZE = 65536  # pixels
_MOST_THREADS = 1024

T = TypeVar("T")


class Matter:
    """Predicts mattes of photos with a trained model.

    The network sees a photo reduced or enlarged to the area of `size` x `size` pixels, and
    stretched towards a square, as in training, but by a factor of at most 2. A model of fixed size
    sees every photo fitted into its frame in the same way. The matte is then brought to the photo's
    own size along the photo's edges, see `kmatting.inference.refine`.

    A `Matter` can be shared by threads, and it can be pickled: the copy loads the model again. In a
    forked process a `.tflite` or `.onnx` model is loaded again at the first photo. TensorFlow does
    not work after a fork, so the other formats raise a `ModelError` there.

    Args:
        model_path: a `.tflite`, `.onnx` or `.keras` file, or a SavedModel folder (or a folder of
            numbered versions, of which the highest is loaded). By default the model that kmatting
            ships.
        size: side in pixels of the square whose area the network sees. By default the size that
            the model was trained or exported at, or 512 if it does not say. A model of fixed size
            runs at no other; of a `.tflite` file of several sizes it chooses one, by default the
            first. There it may also be (height, width).
        threads: number of processor threads. By default all, but at most 8 for a `.tflite` file.
            TensorFlow accepts it only before its first operation.

    Raises:
        ModelError: (a `ValueError`) if the model is missing, cannot be loaded or is not a matting
            model, or if TensorFlow's threads can no longer be set.
        ValueError: if the size or the number of threads is out of range, or the model does not run
            at that size.
        TypeError: if the size or the number of threads is not a whole number.

    Examples:
        >>> matter = Matter()
        >>> matte = matter("photo.jpg")
        >>> matte.alpha.dtype, matte.cutout().mode
        (dtype('float32'), 'RGBA')
    """

    def __init__(
        self,
        model_path: str | os.PathLike[str] | None = None,
        size: Size | None = None,
        threads: int | None = None,
    ) -> None:
        if threads is not None:
            threads = whole_number("threads", threads, 1, _MOST_THREADS)
        self._path = shipped_model() if model_path is None else Path(model_path)
        self._arguments = (model_path and Path(model_path).absolute(), size, threads)
        self._network = load_network(self._path, threads, _whole_numbers(size))
        self._size = self._side(size) or self._network.size or DEFAULT_SIZE
        self._process = os.getpid()
        self._locks: dict[int, threading.Lock] = {}

    @property
    def frame(self) -> tuple[int, int] | None:
        """Height and width of the network's input in pixels, or None if it takes any size."""
        return self._network.frame

    @property
    def size(self) -> int:
        """Side in pixels of the square whose area the network sees, if it takes any size."""
        return self._size

    def __repr__(self) -> str:
        if self.frame:
            return f"Matter({str(self._path)!r}, frame={self.frame})"
        return f"Matter({str(self._path)!r}, size={self._size})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Matter, self._arguments

    def __call__(self, photo: Source | Photo, size: Size | None = None) -> Matte:
        """Predicts the matte of a photo.

        Args:
            photo: path, encoded bytes, PIL image, uint8 array (H, W), (H, W, 3) or (H, W, 4), or a
                `Photo`.
            size: replaces the size of this object for this photo, if the model takes any.

        Returns:
            The `Matte`, of the photo's size.

        Raises:
            ImageError: if the photo cannot be read.
            PhotoError: (an `ImageError`) if the model cannot run on this photo or returns numbers
                that are not finite, or there is not enough memory.
            ModelError: if the model returns something else than a matte, or this process was
                forked and the model runs in TensorFlow.
            ValueError: if the size is out of range, or the model does not run at it.
            TypeError: if the size is not a whole number.
        """
        side = self._side(size)
        name = _name(photo)
        with _memory_of(name):
            photo = photo if isinstance(photo, Photo) else read_photo(photo)
            return self._matte(photo, name, side)

    def stream(self, photos: Iterable[Source]) -> Iterator[tuple[Source, Matte | ImageError]]:
        """Predicts the mattes of many photos, in order.

        Photos are worked on side by side, one for each processor (at most 8) with a small `.tflite`
        model, two with others. No more are held, beside those that the caller keeps.

        Args:
            photos: as in `__call__`.

        Yields:
            Each photo as it was given, with its `Matte`; or with the `ImageError` that says why it
            has none.
        """
        return self._side_by_side(lambda _, matte: matte, photos, ahead=1)

    def map(
        self, function: Callable[[Source, Matte], T], photos: Iterable[Source]
    ) -> Iterator[tuple[Source, T | ImageError]]:
        """Does something with the mattes of many photos, such as writing them.

        Photos are worked on side by side, as in `stream`. So is what the function does.

        Args:
            function: takes a photo as it was given, and its `Matte`. It is called in threads.
            photos: as in `__call__`.

        Yields:
            Each photo as it was given, in order, with what the function returned; or with the
            `ImageError` that says why it has no matte.

        Raises:
            Exception: what the function raises.
        """
        return self._side_by_side(function, photos, ahead=2)

    def _side_by_side(
        self, function: Callable[[Source, Matte], T], photos: Iterable[Source], ahead: int
    ) -> Iterator[tuple[Source, T | ImageError]]:
        """Does the work of `map`; takes up to `ahead` photos for each worker before the first."""
        # Here, as one photo needs no threads.
        from concurrent.futures import Future, ThreadPoolExecutor

        alone = self._network.alone
        workers = min(_MOST_WORKERS, processors()) if alone else 2
        large = threading.Semaphore(_LARGE_AT_A_TIME)
        own = threading.local()

        def work(source: Source) -> T | ImageError:
            if not hasattr(own, "matter"):
                own.matter = self._with_network(alone()) if alone else self
            try:
                with large if _is_large(source) else contextlib.nullcontext():
                    return function(source, own.matter(source))
            except ImageError as error:
                return error

        waiting: deque[tuple[Source, Future[T | ImageError]]] = deque()

        def first() -> tuple[Source, T | ImageError]:
            source, result = waiting.popleft()
            return source, result.result()

        pool = ThreadPoolExecutor(workers, "kmatting-photo")
        try:
            for source in photos:
                waiting.append((source, pool.submit(work, source)))
                if len(waiting) == ahead * workers:
                    yield first()
            while waiting:
                yield first()
        finally:
            pool.shutdown(cancel_futures=True)

    def _with_network(self, network: Network) -> "Matter":
        """Makes a copy that runs another copy of the network."""
        other = copy.copy(self)
        other._network, other._process, other._locks = network, os.getpid(), {}
        return other

    def _side(self, size: Size | None) -> int | None:
        """Checks that the network runs at a size; returns the side of a network of any size."""
        size = _whole_numbers(size)
        if size is None:
            return None
        if self.frame:
            if as_frame(size) != self.frame:
                raise UsageError(
                    f"{self._path}: runs at {size_text(self.frame)} pixels only, received size "
                    f"{size_text(size)}. Leave out the size, or load a model at that size."
                )
            return None
        if isinstance(size, tuple):
            raise UsageError(
                f"{self._path}: follows the shape of each photo, received size {size_text(size)}. "
                f"Give one number, such as {round(math.prod(size) ** 0.5)}."
            )
        most = self._network.max_size
        if most is not None and size > most:
            raise UsageError(
                f"{self._path}: reduces photos to {most}x{most} pixels itself, received size "
                f"{size}. Use at most {most}, or export the model again with a larger --max-size."
            )
        return size

    def coarse(self, photo: Photo) -> np.ndarray:
        """Predicts the matte of a photo at the network's own size, for a caller that refines it.

        Args:
            photo: the photo.

        Returns:
            float32 array (h, w) in [0, 1], the matte of the whole photo.

        Raises:
            PhotoError: as in `__call__`.
            ModelError: as in `__call__`.
        """
        with _memory_of("image"):
            return self._coarse(photo.flatten(), "image", None)

    def _matte(self, photo: Photo, name: str, size: int | None = None) -> Matte:
        image = photo.flatten()
        return Matte(photo, refine(self._coarse(image, name, size), image))

    def _coarse(self, image: np.ndarray, name: str, size: int | None) -> np.ndarray:
        try:
            alpha = self._predict(image, size)
        except (ModelError, MemoryError):
            raise
        except Exception as error:  # TensorFlow and LiteRT raise types of their own
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise PhotoError(f"{name}: the model cannot run on it ({reason[:300]}).") from error
        if not np.isfinite(alpha).all():
            raise PhotoError(f"{name}: the model returned numbers that are not finite.")
        return alpha.clip(0, 1)

    def _predict(self, image: np.ndarray, size: int | None = None) -> np.ndarray:
        """Runs the network on a uint8 photo (H, W, 3); returns its alpha (h, w) at its own size."""
        height, width = image.shape[:2]
        if self.frame:
            frame = self.frame
            seen = size_in_frame(height, width, frame)
        else:
            seen = network_size(height, width, size or self._size)
            frame = padded(seen[0]), padded(seen[1])
        # Bilinear with averaging, as in training; it would blur a photo that is enlarged.
        enlarged = seen[0] * seen[1] > height * width
        method = Image.Resampling.LANCZOS if enlarged else Image.Resampling.BILINEAR
        small = Image.fromarray(image).resize((seen[1], seen[0]), method)
        margins = ((0, frame[0] - seen[0]), (0, frame[1] - seen[1]), (0, 0))
        alpha = self._run(np.pad(np.asarray(small), margins, mode="edge")[None])
        if alpha.shape != (1, *frame, 1):
            raise ModelError(
                f"{self._path}: expected an alpha of shape {(1, *frame, 1)} from the model, "
                f"received {alpha.shape}."
            )
        return alpha[0, : seen[0], : seen[1], 0].astype(np.float32)

    def _run(self, batch: np.ndarray) -> np.ndarray:
        """Runs the network on one batch at a time; loads it again in a forked process."""
        # Each process has a lock of its own: a fork may copy one that another thread holds.
        with self._locks.setdefault(os.getpid(), threading.Lock()):
            if self._process != os.getpid():
                try:
                    self._network = self._network.reload()
                except ModelError as error:
                    raise ModelError(f"{self._path}: {error}") from error
                self._process = os.getpid()
            return np.asarray(self._network.run(batch))


def _whole_numbers(size: Size | None) -> Size | None:
    """Checks that a size is one whole number or two."""
    if not isinstance(size, tuple):
        return None if size is None else whole_number("size", size, STRIDE, _LARGEST_SIZE)
    if len(size) != 2:
        raise UsageError(f"size: expected one number, or height and width, received {size}.")
    height, width = (whole_number("size", side, STRIDE, _LARGEST_SIZE) for side in size)
    return height, width


def _is_large(source: Source) -> bool:
    """Says whether a file holds a large photo; what is wrong with a file, its reader says."""
    if not isinstance(source, str | os.PathLike) or not Path(source).is_file():
        return False  # it is in memory, or would be used up, as a pipe is
    try:
        height, width = image_size(source)
    except ImageError:
        return False
    return height * width > _LARGE


def _name(photo: Source | Photo) -> str:
    return str(photo) if isinstance(photo, str | os.PathLike) else "image"


@contextlib.contextmanager
def _memory_of(name: str) -> Iterator[None]:
    """Turns exhausted memory into the error of one photo."""
    try:
        yield
    except MemoryError as error:
        # Without the traceback, which would keep what fills the memory.
        raise PhotoError(f"{name}: not enough memory for this photo.") from error.with_traceback(
            None
        )
