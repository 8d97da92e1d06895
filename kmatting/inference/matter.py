"""A loaded model in use: photo in, alpha out, whatever the format of the model.

TensorFlow and Keras are imported only for the formats that need them, never for a .tflite file.
"""

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kmatting.images import ImageError, Photo, Source, read_photo
from kmatting.inference.cutout import (
    Colour,
    composite,
    cutout,
    estimate_foreground,
    read_background,
)
from kmatting.inference.refine import refine
from kmatting.panel import draw_panel

DEFAULT_SIZE = 512  # of a model that does not say what it was trained at
SHIPPED_MODEL = "portrait.tflite"  # in saved_models/, of a clone or of the installed package
MULTIPLE = 16  # the models take heights and widths that this divides

LARGE = 12_000_000  # pixels of a photo: beyond it, one is run at a time, for the sake of memory
STRETCH = 2.0  # how much a photo is distorted at most towards the square of training
LONGEST = 8  # times the size: where a panorama stops getting longer
_SIGNATURE = "serving_default"


@dataclass(frozen=True, eq=False)
class Matte:
    """A photo and what the network says of it.

    Attributes:
        photo: the photo, upright.
        prediction: float32 array (H, W) in [0, 1] of the photo's size.
    """

    photo: Photo
    prediction: np.ndarray

    @cached_property
    def alpha(self) -> np.ndarray:
        """The matte: float32 array (H, W) in [0, 1].

        The prediction, times the photo's own opacity where it has some: what was transparent stays
        so.
        """
        if self.photo.opacity is None:
            return self.prediction
        return self.prediction * (self.photo.opacity / np.float32(255))

    def foreground(self, method: str = "ml") -> np.ndarray:
        """Estimates the foreground's colours.

        Args:
            method: "ml" or "none", as in `kmatting.inference.cutout.estimate_foreground`.

        Returns:
            uint8 array (H, W, 3).

        Raises:
            ValueError: if pymatting is missing (extra `foreground`) or the method unknown.
        """
        # The photo's own colours and the prediction belong together; its opacity comes on top.
        image = self.photo.rgb
        if self.photo.opacity is not None:
            # Colours of fully transparent pixels are arbitrary; the network saw white there.
            image = np.where((self.photo.opacity > 0)[..., None], image, np.uint8(255))
        return estimate_foreground(image, self.prediction, method)

    def cutout(self, foreground: str = "ml") -> Image.Image:
        """Cuts the subject out.

        Args:
            foreground: as in `foreground`.

        Returns:
            PIL image in mode RGBA, of the photo's size.
        """
        return cutout(self.foreground(foreground), self.alpha)

    def composite(self, background: Source | Colour, foreground: str = "ml") -> Image.Image:
        """Lays the subject over a new background.

        Args:
            background: a colour or an image, as in
                `kmatting.inference.cutout.read_background`. An image is scaled until it covers
                the photo and cropped around its centre.
            foreground: as in `foreground`.

        Returns:
            PIL image in mode RGB, of the photo's size.
        """
        return composite(self.foreground(foreground), self.alpha, read_background(background))

    def panel(self, foreground: str = "ml", cell: int = 384) -> Image.Image:
        """Draws photo, matte and composites side by side, for a look.

        Args:
            foreground: as in `foreground`.
            cell: side in pixels of the square that each picture is fitted into.

        Returns:
            PIL image in mode RGB.
        """
        small = self._reduced(cell)
        colours = small.foreground(foreground)
        backgrounds = {"white": (255, 255, 255), "black": (0, 0, 0), "green": (0, 160, 0)}
        composites = [
            np.asarray(composite(colours, small.alpha, colour)) for colour in backgrounds.values()
        ]
        row = [small.photo.flatten(), small.alpha, *composites]
        captions = ["image", "alpha", *(f"over {name}" for name in backgrounds)]
        return Image.fromarray(draw_panel([row], captions, cell=cell))

    def _reduced(self, longest: int) -> "Matte":
        """Reduces photo and prediction so that no side is longer."""
        height, width = self.prediction.shape
        scale = min(1.0, longest / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))

        def reduced(array: np.ndarray) -> np.ndarray:
            return np.asarray(Image.fromarray(array).resize(size, Image.Resampling.BOX))

        opacity = None if self.photo.opacity is None else reduced(self.photo.opacity)
        return Matte(Photo(reduced(self.photo.rgb), opacity), reduced(self.prediction))


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
        """Runs the network on a uint8 photo (H, W, 3); returns its matte (h, w) at its own size."""
        height, width = self._network_size(image.shape[0], image.shape[1], size)
        # Bilinear, averaging as it reduces: as in training. A tiny photo would be blurred by it.
        enlarged = height * width > image.shape[0] * image.shape[1]
        way = Image.Resampling.LANCZOS if enlarged else Image.Resampling.BILINEAR
        small = Image.fromarray(image).resize((width, height), way)
        if self._network.frame:
            frame = self._network.frame
        else:
            frame = (-(-height // MULTIPLE) * MULTIPLE, -(-width // MULTIPLE) * MULTIPLE)
        margins = ((0, frame[0] - height), (0, frame[1] - width), (0, 0))
        batch = np.pad(np.asarray(small), margins, mode="edge")[None]
        with self._lock:
            alpha = np.asarray(self._network.run(batch))
        if alpha.shape != (1, *frame, 1):
            raise ValueError(
                f"{self._path}: expected an alpha of shape {(1, *frame, 1)} from the model, "
                f"received {alpha.shape}."
            )
        alpha = alpha[0, :height, :width, 0].astype(np.float32)
        if not np.isfinite(alpha).all():
            raise ValueError(f"{self._path}: the model returned numbers that are not finite.")
        return alpha.clip(0, 1)

    def _network_size(self, height: int, width: int, size: int | None = None) -> tuple[int, int]:
        """The height and width that the network sees of a photo."""
        down, across = self._network.frame or (1, 1)
        wider = (width / height) / (across / down)  # than the frame, or than a square
        stretch = min(max(wider, 1 / STRETCH), STRETCH)
        if self._network.frame:
            left = wider / stretch  # to be filled up
            return max(1, round(down * min(1, 1 / left))), max(1, round(across * min(1, left)))
        size = size or self._size
        by_area = size / (height * width) ** 0.5
        scale = min(1.0, by_area, LONGEST * size / max(height, width))
        taller = stretch**0.5 if scale < 1 else 1.0  # a photo that fits is taken as it is
        return max(1, round(height * scale * taller)), max(1, round(width * scale / taller))


def shipped_model() -> Path:
    """Finds the model that kmatting ships; `saved_models/README.md` is its model card.

    Returns:
        Path of a `.tflite` file.

    Raises:
        ValueError: if this copy of kmatting came without it.
    """
    package = Path(__file__).resolve().parent.parent
    for home in (package, package.parent):  # of the installed package, of a clone
        path = home / "saved_models" / SHIPPED_MODEL
        if path.is_file():
            return path
    raise ValueError(
        f"this copy of kmatting came without its model ({SHIPPED_MODEL}); give one by --model."
    )


@dataclass(frozen=True)
class Network:
    """A model without its format.

    Attributes:
        run: takes a uint8 batch (1, H, W, 3), returns a float array (1, H, W, 1).
        frame: height and width if the model takes no others.
        size: side of the square of the area that it was trained at, if the file says so.
    """

    run: Callable[[np.ndarray], np.ndarray]
    frame: tuple[int, int] | None
    size: int | None = None


def _check_size(size: int | None) -> None:
    if size is not None and size < MULTIPLE:
        raise ValueError(f"Expected a size of at least {MULTIPLE} pixels, received {size}.")


def load_network(path: Path, threads: int | None = None) -> Network:
    """Loads a model of any format.

    Args:
        path: as the `model_path` of a `Matter`.
        threads: as there.

    Returns:
        The `Network`.

    Raises:
        ValueError: if the model is missing, cannot be loaded or is no matting model, or the threads
            cannot be had.
    """
    if path.is_dir():
        kind, load = "SavedModel", _load_saved_model
        path = _version_folder(path)
    elif path.suffix == ".keras":
        kind, load = "Keras model", _load_keras
    elif path.suffix == ".tflite":
        kind, load = "TFLite model", _load_tflite
    else:
        raise ValueError(
            f"{path}: expected a .keras file, a SavedModel folder or a .tflite file"
            + ("." if path.exists() else ", and there is no such file.")
        )
    if not path.exists():
        raise ValueError(f"{path}: no such file.")
    try:
        return load(path, threads)
    except _NotUsableError as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # loaders raise nearly every type on broken files
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{path}: cannot be loaded as a {kind} ({reason}).") from error


class _NotUsableError(Exception):
    """Says in words of our own why a model cannot be used."""


def _load_keras(path: Path, threads: int | None) -> Network:
    import keras

    import kmatting.layers  # noqa: F401  registers the layers that a model file names
    from kmatting.training.run_folder import read_size

    with_tensorflow = keras.backend.backend() == "tensorflow"
    if with_tensorflow:
        _limit_tensorflow(threads)
    model = keras.saving.load_model(path, compile=False)

    def call(image: Any) -> Any:
        return model(image, training=False)

    if with_tensorflow:
        import tensorflow as tf

        # One graph for photos of all shapes; `predict` would trace it anew for each.
        signature = [tf.TensorSpec((1, *model.input_shape[1:]), tf.float32)]
        call = tf.function(call, input_signature=signature)

    def run(batch: np.ndarray) -> np.ndarray:
        return keras.ops.convert_to_numpy(call(batch / np.float32(255)))

    trained_at = read_size(path)
    size = trained_at and round(math.prod(trained_at) ** 0.5)
    return Network(run, _frame(model.input_shape), size)


def _load_saved_model(path: Path, threads: int | None) -> Network:
    import tensorflow as tf

    _limit_tensorflow(threads)
    model = tf.saved_model.load(str(path))
    if _SIGNATURE not in model.signatures:
        raise _NotUsableError(f"has no signature {_SIGNATURE!r}; export it by kmatting.export.")
    signature = model.signatures[_SIGNATURE]
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    _check_one("input", inputs)
    _check_one("output", outputs)
    (name, image), (alpha_name,) = next(iter(inputs.items())), outputs

    def run(batch: np.ndarray) -> np.ndarray:
        values = tf.constant(batch if image.dtype == tf.uint8 else batch / np.float32(255))
        # The signature holds no reference to the model, whose variables would be collected.
        return model.signatures[_SIGNATURE](**{name: values})[alpha_name].numpy()

    return Network(run, _frame(image.shape.as_list()))


def _load_tflite(path: Path, threads: int | None) -> Network:
    interpreter = _interpreter_class()(
        model_path=str(path), num_threads=threads or min(8, _processors())
    )
    interpreter.allocate_tensors()
    if _SIGNATURE not in interpreter.get_signature_list():
        raise _NotUsableError(f"has no signature {_SIGNATURE!r}; export it by kmatting.export.")
    runner = interpreter.get_signature_runner(_SIGNATURE)
    inputs, outputs = runner.get_input_details(), runner.get_output_details()
    _check_one("input", inputs)
    _check_one("output", outputs)
    (name, image), (alpha_name, alpha) = next(iter(inputs.items())), next(iter(outputs.items()))

    def run(batch: np.ndarray) -> np.ndarray:
        return _dequantized(runner(**{name: _quantized(batch, image)})[alpha_name], alpha)

    return Network(run, _frame(image["shape_signature"].tolist()))


def _quantized(batch: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    """Turns uint8 pixels into what a TFLite input takes: floats in [0, 1] or scaled integers."""
    values = batch / np.float32(255)
    if details["dtype"] == np.float32:
        return values
    scale, zero_point = details["quantization"]
    limits = np.iinfo(details["dtype"])
    integers = np.rint(values / scale + zero_point).clip(limits.min, limits.max)
    return integers.astype(details["dtype"])


def _dequantized(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    if details["dtype"] == np.float32:
        return values
    scale, zero_point = details["quantization"]
    return (values.astype(np.float32) - zero_point) * scale


def _interpreter_class() -> Any:
    """LiteRT's interpreter, or the same one from TensorFlow if LiteRT is not installed."""
    try:
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter
    except ImportError:
        pass
    try:
        import tensorflow as tf

        return tf.lite.Interpreter
    except (ImportError, AttributeError) as error:
        raise _NotUsableError(
            "a .tflite model needs LiteRT: pip install 'kmatting[tflite]'."
        ) from error


def _version_folder(path: Path) -> Path:
    """The SavedModel in a folder: itself, or the highest of its numbered versions."""
    if (path / "saved_model.pb").exists():
        return path
    versions = [
        each
        for each in path.iterdir()
        if each.name.isdigit() and (each / "saved_model.pb").exists()
    ]
    if not versions:
        raise ValueError(
            f"{path}: no SavedModel: expected saved_model.pb in it or in a numbered folder of it."
        )
    return max(versions, key=lambda each: int(each.name))


def _limit_tensorflow(threads: int | None) -> None:
    if threads is None:
        return
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError as error:
        raise _NotUsableError(
            "TensorFlow runs already, its threads can no longer be set. Leave the threads out, or "
            "load this model first."
        ) from error


def _frame(shape: Any) -> tuple[int, int] | None:
    """The fixed height and width in an input's shape, or None; checks that it takes one photo."""
    if len(shape) != 4 or shape[3] != 3:
        raise _NotUsableError(
            f"expected a model that takes an image (N, H, W, 3), but its input is {tuple(shape)}."
        )
    height, width = shape[1:3]
    fixed = [side for side in (height, width) if side is not None and side > 0]
    return (height, width) if len(fixed) == 2 else None


def _check_one(what: str, named: dict[str, Any]) -> None:
    if len(named) != 1:
        raise _NotUsableError(f"expected a model with one {what}, but it has {sorted(named)}.")


def _processors() -> int:
    """The number of processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
