"""A loaded model in use: photo in, matte out, whatever the format of the model.

TensorFlow and Keras are imported only for the formats that need them, never for a .tflite file.
"""

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from kmatting.images import ImageError, Photo, Source, read_photo
from kmatting.inference.formats import load_network, shipped_model
from kmatting.inference.matte import Matte
from kmatting.inference.refine import refine
from kmatting.sizes import DEFAULT_SIZE, STRIDE, network_size, padded, size_in_frame

LARGE = 12_000_000  # pixels of a photo: beyond it, one is run at a time, for the sake of memory


class Matter:
    """Takes mattes of photos with a trained model.

    The network sees a photo reduced to the area of `size` x `size` pixels, and its matte is brought
    back to the photo's size along the photo's edges (`kmatting.inference.refine`). What is
    reduced is also stretched to a square as in training, but not more than twice in one direction.
    A smaller photo is taken as it is. A model of fixed size sees every photo stretched so to its
    frame.

    Args:
        model_path: a `.keras` file, a SavedModel folder (or one with numbered versions, of which
            the highest is taken), or a `.tflite` file; the model that kmatting ships by default.
        size: side in pixels of the square whose area the network sees; by default what a `.keras`
            file was trained at, or 512. Leave it out for a model of fixed size.
        threads: number of processor threads; all by default (8 at most for a `.tflite` file). For
            the other formats TensorFlow takes it only before its first operation.

    Raises:
        ValueError: if the model is missing, cannot be loaded or is no matting model, or the size or
            the threads cannot be had.

    Example:
        >>> matter = Matter()
        >>> matte = matter("photo.jpg")
        >>> matte.alpha.dtype, matte.cutout().mode
        (dtype('float32'), 'RGBA')
    """

    def __init__(
        self,
        model_path: str | os.PathLike[str] | None = None,
        size: int | None = None,
        threads: int | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f"Expected at least 1 thread, received {threads}.")
        _check_size(size)
        self._path = shipped_model() if model_path is None else Path(model_path)
        self._network = load_network(self._path, threads)
        self._check_free(size)
        self._size = size or self._network.size or DEFAULT_SIZE
        self._lock = threading.Lock()  # an interpreter runs one photo at a time

    @property
    def frame(self) -> tuple[int, int] | None:
        """Height and width of the photos that the network takes, or None if it takes any size."""
        return self._network.frame

    @property
    def size(self) -> int:
        """Side of the square whose area the network sees of a photo, if it takes any size."""
        return self._size

    def __call__(self, photo: Source | Photo, size: int | None = None) -> Matte:
        """Takes the matte of a photo.

        Args:
            photo: path, encoded bytes, PIL image, uint8 array (H, W), (H, W, 3) or (H, W, 4), or a
                photo that is read already.
            size: another size than this object's, for this photo.

        Returns:
            The `Matte`, of the photo's own size.

        Raises:
            ImageError: if the photo cannot be read.
            ValueError: if the size cannot be had, or the model returns something else than a matte.
        """
        _check_size(size)
        self._check_free(size)
        photo = photo if isinstance(photo, Photo) else read_photo(photo)
        image = photo.flatten()
        return Matte(photo, refine(self._predict(image, size), image))

    def stream(self, photos: Iterable[Source]) -> Iterator[tuple[Source, Matte | ImageError]]:
        """Takes the mattes of many photos.

        While the network works on one, its neighbours are read and refined. No more than two photos
        are held at a time, beside those that the caller keeps.

        Args:
            photos: as in `__call__`.

        Yields:
            Each photo as it was given, with its `Matte`; or with the `ImageError` that says why it
            cannot be read.
        """
        with ThreadPoolExecutor(2, "kmatting-photo") as pool:
            waiting: deque[tuple[Source, Future[Photo | Matte]]] = deque()
            for source in photos:
                waiting.append((source, pool.submit(self._ahead, source)))
                if len(waiting) == 2:
                    yield self._finished(*waiting.popleft())
            while waiting:
                yield self._finished(*waiting.popleft())

    def _ahead(self, source: Source) -> Photo | Matte:
        """Does what is done before a photo's turn comes; large ones are only read."""
        photo = read_photo(source)
        return photo if photo.rgb.size > 3 * LARGE else self(photo)

    def _finished(
        self, source: Source, ahead: "Future[Photo | Matte]"
    ) -> tuple[Source, Matte | ImageError]:
        try:
            done = ahead.result()
        except ImageError as error:
            return source, error
        return source, done if isinstance(done, Matte) else self(done)

    def _check_free(self, size: int | None) -> None:
        """Checks that no size is asked of a model of fixed size."""
        if self.frame and size is not None:
            height, width = self.frame
            raise ValueError(
                f"{self._path}: runs at {height}x{width} pixels only. Leave the size out, or "
                "export the model at another size."
            )

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
        batch = np.pad(np.asarray(small), margins, mode="edge")[None]
        with self._lock:
            alpha = np.asarray(self._network.run(batch))
        if alpha.shape != (1, *frame, 1):
            raise ValueError(
                f"{self._path}: expected an alpha of shape {(1, *frame, 1)} from the model, "
                f"received {alpha.shape}."
            )
        alpha = alpha[0, : seen[0], : seen[1], 0].astype(np.float32)
        if not np.isfinite(alpha).all():
            raise ValueError(f"{self._path}: the model returned numbers that are not finite.")
        return alpha.clip(0, 1)


def _check_size(size: int | None) -> None:
    if size is not None and size < STRIDE:
        raise ValueError(f"Expected a size of at least {STRIDE} pixels, received {size}.")
