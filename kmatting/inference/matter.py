"""A loaded model in use: photo in, matte out, whatever the format of the model.

TensorFlow and Keras are imported only for the formats that need them, never for `.tflite` and
`.onnx` files.
"""

import contextlib
import copy
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np

from kmatting.errors import ImageError, ModelError, PhotoError, UsageError
from kmatting.images import Photo, Source, image_size, read_photo
from kmatting.inference import second_look
from kmatting.inference.refine import refine
from kmatting.networks.fitting import Fitting, fit_any_size, fit_fixed_size
from kmatting.networks.formats import load_network
from kmatting.networks.network import TOLERANCE, Network
from kmatting.networks.runtime import processors
from kmatting.networks.shipped import find_model
from kmatting.pictures.matte import Matte
from kmatting.sizes import (
    DEFAULT_SIZE,
    STRIDE,
    Quality,
    Size,
    height_width,
    size_text,
    whole_number,
)

_MOST_WORKERS = 8  # threads that work on photos side by side
_LARGE = 12_000_000  # pixels: of larger photos, only a few are worked on at a time, to save memory
_LARGE_AT_A_TIME = 2
_LARGEST_SIZE = 65536  # pixels
_MOST_THREADS = 1024

T = TypeVar("T")
E = TypeVar("E", bound=Exception)


class Matter:
    """Predicts mattes of photos with a trained model.

    The network sees a photo reduced or enlarged to the area of `size` x `size` pixels, and
    stretched towards a square, as in training, but by a factor of at most 2. A model of fixed size
    sees every photo fitted into that size; one that would be stretched more fills only a part of
    it. The matte is then brought to the photo's own size along the photo's edges, see
    `kmatting.inference.refine`.

    A `Matter` can be shared by threads, and it can be pickled: the copy loads the model again. In a
    forked process a `.tflite` or `.onnx` model is loaded again at the first photo. TensorFlow does
    not work after a fork, so the other formats raise a `ModelError` there.

    Args:
        model_path: a `.tflite`, `.onnx` or `.keras` file, or a SavedModel folder (or a folder of
            numbered versions, of which the highest is loaded), or the name of a model that kmatting
            ships, `general` (the default), `detail` or `open`.
        size: side in pixels of the square whose area the network sees. By default the size that
            the model was trained or exported at, or 512 if it does not say. A model of fixed size
            runs at no other; of a `.tflite` file of several sizes it chooses one, by default the
            first. There it may also be (height, width).
        threads: number of processor threads. By default all, but at most 8 for a `.tflite` file.
            TensorFlow accepts it only before its first operation.
        quality: `fast` runs the network once on a photo. `normal` runs it again on the part that
            holds the subject, where that is at most half of the photo. `high` takes the mean over
            the photo and its mirror image each time, so it takes twice as long.

    Raises:
        ModelError: (a `ValueError`) if the model is missing, cannot be loaded or is not a matting
            model, or if TensorFlow's threads can no longer be set.
        UsageError: (a `ValueError`) if the size or the number of threads is out of range, the model
            does not run at that size, or there is no such quality.
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
        quality: Quality = "fast",
    ) -> None:
        if quality not in get_args(Quality):
            raise UsageError(
                f"quality: expected {', '.join(get_args(Quality))}; received {quality!r}."
            )
        if threads is not None:
            threads = whole_number("threads", threads, 1, _MOST_THREADS)
        self._path = find_model(model_path)
        self._quality = quality
        self._arguments = (model_path and self._path.absolute(), size, threads, quality)
        self._network = load_network(self._path, threads, _whole_numbers(size))
        self._size = self._side(size) or self._network.best_size or DEFAULT_SIZE
        self._process = os.getpid()
        self._locks: dict[int, threading.Lock] = {}

    @property
    def path(self) -> Path:
        """Path of the model."""
        return self._path

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """Height and width of the network's input in pixels, or None if it takes any size."""
        return self._network.fixed_size

    frame = fixed_size  # its former name

    @property
    def size(self) -> int | None:
        """Side in pixels of the square whose area the network sees; None if its size is fixed."""
        return None if self.fixed_size else self._size

    @property
    def licence(self) -> str | None:
        """Terms of the model's weights, or None if the model does not state them."""
        return self._network.licence

    def __repr__(self) -> str:
        if self.fixed_size:
            return f"Matter({str(self._path)!r}, fixed_size={self.fixed_size})"
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

        Photos are processed in parallel: one per core (at most 8) with a small `.tflite` model,
        else two. No others are kept in memory.

        Args:
            photos: as in `__call__`.

        Yields:
            Each photo as it was given, with its `Matte`; or with the `ImageError` that says why it
            has none.
        """
        return self._side_by_side(lambda _, matte: matte, photos, 1, ImageError)

    def map(
        self,
        function: Callable[[Source, Matte], T],
        photos: Iterable[Source],
        catch: type[E] = ImageError,  # type: ignore[assignment]
    ) -> Iterator[tuple[Source, T | E]]:
        """Does something with the mattes of many photos, such as writing them.

        Photos are processed in parallel, as in `stream`. So is what the function does.

        Args:
            function: takes a photo as it was given, and its `Matte`. It is called in threads.
            photos: as in `__call__`.
            catch: the exceptions that one photo may fail by, `Exception` for all; the others end
                the iteration.

        Yields:
            Each photo as it was given, in order, with what the function returned; or with the
            exception that says why it failed.

        Raises:
            Exception: what else the model or the function raises.
        """
        return self._side_by_side(function, photos, 2, catch)

    def _side_by_side(
        self,
        function: Callable[[Source, Matte], T],
        photos: Iterable[Source],
        held: int,
        catch: type[E],
    ) -> Iterator[tuple[Source, T | E]]:
        """Does the work of `map`; holds `held` photos for each worker."""
        from kmatting.ahead import map_ordered  # here, as one photo needs no threads

        network = self._network
        workers = min(_MOST_WORKERS, processors()) if network.is_copied else 2
        large = threading.Semaphore(_LARGE_AT_A_TIME)
        own = threading.local()

        def work(source: Source) -> tuple[Source, T | E]:
            if not hasattr(own, "matter"):
                copied = network.is_copied
                own.matter = self._with_network(network.clone_single_threaded()) if copied else self
            try:
                with large if _is_large(source) else contextlib.nullcontext():
                    return source, function(source, own.matter(source))
            except catch as error:
                return source, error

        def given() -> Iterator[Source]:  # map_ordered closes it, and not the caller's own
            yield from photos

        results: Any = map_ordered(work, given(), workers, held * workers)
        process = os.getpid()
        try:
            while True:
                if os.getpid() != process:  # its threads were not copied
                    raise UsageError(
                        "These photos were begun before this process was forked, and can only be "
                        "continued in the parent. Begin with them anew."
                    )
                yield next(results)
        except StopIteration:
            pass
        finally:
            results.close()

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
        if self.fixed_size:
            if height_width(size) != self.fixed_size:
                raise UsageError(
                    f"{self._path}: runs at {size_text(self.fixed_size)} pixels only, received "
                    f"size {size_text(size)}. Leave out the size, or load a model at that size."
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

    def predict_small(self, photo: Photo) -> np.ndarray:
        """Predicts the matte of a photo before it is refined, for a caller that does so.

        Args:
            photo: the photo.

        Returns:
            float32 array (h, w) in [0, 1], the matte of the whole photo: at the network's own size,
            or finer where a second look is in it.

        Raises:
            PhotoError: as in `__call__`.
            ModelError: as in `__call__`.
        """
        with _memory_of("image"):
            return self._look(photo.flatten(), "image")

    coarse = predict_small  # its former name

    def _matte(self, photo: Photo, name: str, size: int | None = None) -> Matte:
        image = photo.flatten()
        prediction = refine(self._look(image, name, size), image)
        note = self._fit(image.shape[0], image.shape[1], size).note() if self.fixed_size else ""
        return Matte(photo, prediction, (note,) if note else ())

    def _look(self, image: np.ndarray, name: str, size: int | None = None) -> np.ndarray:
        """Predicts the alpha (h, w) of a uint8 photo (H, W, 3), in the quality of this object."""
        first = self._predict_mean(image, name, size)
        height, width = image.shape[:2]
        part = None if self._quality == "fast" else second_look.find_part(first, height, width)
        if part is None:
            return first
        second = self._predict_mean(image[part], name, size)
        return second_look.join(first, second, part, height, width)

    def _predict_mean(self, image: np.ndarray, name: str, size: int | None) -> np.ndarray:
        """Predicts an alpha; in high quality the mean over the photo and its mirror image."""
        alpha = self._predict(image, name, size)
        if self._quality != "high":
            return alpha
        mirrored = self._predict(image[:, ::-1], name, size)
        return (alpha + mirrored[:, ::-1]) / 2

    def _predict(self, image: np.ndarray, name: str, size: int | None = None) -> np.ndarray:
        """Runs the network on a uint8 photo (H, W, 3); returns its alpha (h, w) at its own size."""
        fitting = self._fit(image.shape[0], image.shape[1], size)
        batch = fitting.batch(image)
        output = self._run(batch, name)
        if output.shape != (1, *fitting.size, 1):
            raise ModelError(
                f"{self._path}: expected an alpha of shape {(1, *fitting.size, 1)} from the model, "
                f"received {output.shape}."
            )
        alpha = fitting.crop(output).astype(np.float32)
        if not np.isfinite(alpha).all():
            raise PhotoError(f"{name}: the model returned numbers that are not finite.")
        lowest, highest = float(alpha.min()), float(alpha.max())
        if lowest < -TOLERANCE or highest > 1 + TOLERANCE:
            raise ModelError(
                f"{self._path}: expected an alpha from 0 to 1 from the model, received numbers "
                f"from {lowest:.4g} to {highest:.4g}. Put what scales them into the model."
            )
        return alpha.clip(0, 1)

    def _fit(self, height: int, width: int, size: int | None) -> Fitting:
        if self.fixed_size:
            return fit_fixed_size(height, width, self.fixed_size)
        return fit_any_size(height, width, size or self._size)

    def _run(self, batch: np.ndarray, name: str) -> np.ndarray:
        """Runs the network on one batch at a time; loads it again in a forked process."""
        # Each process has a lock of its own: a fork may copy one that another thread holds.
        with self._locks.setdefault(os.getpid(), threading.Lock()):
            if self._process != os.getpid():
                try:
                    self._network = self._network.reload()
                except ModelError as error:
                    raise ModelError(f"{self._path}: {error}") from error
                self._process = os.getpid()
            try:
                return np.asarray(self._network.run(batch))
            except MemoryError:
                raise
            except Exception as error:  # TensorFlow and LiteRT raise types of their own
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                raise PhotoError(f"{name}: the model cannot run on it ({reason[:300]}).") from error


def _whole_numbers(size: Size | None) -> Size | None:
    """Checks that a size is one whole number or two."""
    if not isinstance(size, tuple):
        return None if size is None else whole_number("size", size, STRIDE, _LARGEST_SIZE)
    if len(size) != 2:
        raise UsageError(f"size: expected one number, or height and width, received {size}.")
    height, width = (whole_number("size", side, STRIDE, _LARGEST_SIZE) for side in size)
    return height, width


def _is_large(source: Source) -> bool:
    """Returns whether the file holds a large photo; False if it cannot be read: reading raises."""
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
