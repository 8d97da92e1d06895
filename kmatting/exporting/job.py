"""What all formats need to know of an export: the network, its name, where to, on which photos."""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kmatting import terminal
from kmatting.errors import ModelError, UsageError
from kmatting.exporting.checkpoint import load_checkpoint
from kmatting.images import read_image, scan_folder
from kmatting.keras_setup import import_keras
from kmatting.networks.fitting import Fitting, fit_any_size, fit_fixed_size
from kmatting.networks.metadata import read_metadata, read_size
from kmatting.networks.runtime import limit_tensorflow
from kmatting.quiet import quiet
from kmatting.sizes import STRIDE

THREADS = 2  # for the times that are reported
CHECK_PHOTOS = 4  # on which an export is compared with the Keras model
_CHECK_SIZE = 256  # pixels a side, or less: of formats that take any size
# Height and width of synthetic photos, as multiples of the network's size: larger, as most photos
# are, and of shapes that it does not have, up to panoramas.
_SHAPES = ((2, 2), (1.5, 2), (2, 1.5), (1, 3))


@dataclass(frozen=True)
class Job:
    """An export.

    Attributes:
        source: the `.keras` file to export.
        name: name of the model.
        output: folder to write to, or a file with the suffix of the format.
        photos: folder of photos to check the export on; synthetic ones by default.
        verbose: whether steps are written to standard error and results to standard output.
    """

    source: Path
    name: str
    output: Path
    photos: Path | None = None
    verbose: bool = False

    @cached_property
    def trained_at(self) -> tuple[int, int] | None:
        """Height and width in pixels that the network was trained at, if its file says so."""
        return read_size(self.source)

    @property
    def side(self) -> int | None:
        """Side of the square of that area, in pixels."""
        return self.trained_at and round(math.prod(self.trained_at) ** 0.5)

    @cached_property
    def licence(self) -> str | None:
        """Terms of the weights, if their file states them. Every export carries them on."""
        licence: str | None = read_metadata(self.source).get("licence")
        return licence

    def say(self, step: str) -> None:
        """Announces a step that takes a while."""
        if self.verbose:
            terminal.complain(f"{step} ...")

    def report(self, result: str) -> None:
        """Prints a result."""
        if self.verbose:
            terminal.say(result)

    def target(self, file_name: str) -> Path:
        """Returns where a file goes: into the folder by its name, or to the file that is given."""
        is_file = self.output.suffix == Path(file_name).suffix and not self.output.is_dir()
        return self.output if is_file else self.output / file_name

    def load(self) -> Any:
        """Loads the Keras model, in float32."""
        self.say(f"loading {self.source}")
        with quiet():
            import_keras(tensorflow=True)
            with contextlib.suppress(ModelError):  # TensorFlow already runs, with its threads
                limit_tensorflow(THREADS)
            return load_checkpoint(self.source)

    def photos_of_any_size(self, max_size: int) -> list[np.ndarray]:
        """Makes inputs of a network that takes any size, to compare the export with Keras."""
        side = max(STRIDE, min(_CHECK_SIZE, max_size) // STRIDE * STRIDE)

        def fit(height: int, width: int) -> Fitting:
            return fit_any_size(height, width, side)

        return _fitted_photos(self.photos, CHECK_PHOTOS, (side, side), fit)

    def photos_of_size(self, size: tuple[int, int]) -> list[np.ndarray]:
        """Makes inputs of a network of fixed size, to compare the export with Keras."""
        return photos_of_size(self.photos, CHECK_PHOTOS, size)


def photos_of_size(folder: Path | None, count: int, size: tuple[int, int]) -> list[np.ndarray]:
    """Makes inputs of a network of fixed size as prediction makes them.

    Args:
        folder: folder of photos; synthetic ones by default.
        count: how many photos are taken, spread over the folder.
        size: height and width of the network's input.

    Returns:
        uint8 arrays (H, W, 3).
    """

    def fit(height: int, width: int) -> Fitting:
        return fit_fixed_size(height, width, size)

    return _fitted_photos(folder, count, size, fit)


def _fitted_photos(
    folder: Path | None,
    count: int,
    size: tuple[int, int],
    fit: Callable[[int, int], Fitting],
) -> list[np.ndarray]:
    """Reads or draws photos, and fits each into a network of about this size."""
    if folder is None:
        photos = (_synthetic(index, size) for index in range(count))
    else:
        paths = scan_folder(folder).photos
        count = min(count, len(paths))
        photos = (read_image(paths[index * len(paths) // count]) for index in range(count))
    return [fit(photo.shape[0], photo.shape[1]).batch(photo)[0] for photo in photos]


def _synthetic(index: int, size: tuple[int, int]) -> np.ndarray:
    from kmatting.data.synthetic import sample

    taller, wider = _SHAPES[index % len(_SHAPES)]
    photo, _ = sample(0, index, (round(size[0] * taller), round(size[1] * wider)))
    return photo


def check_photos(option: str, folder: Path | None) -> None:
    """Checks that a folder holds photos; notes what else it holds.

    Args:
        option: the option that names it, for messages.
        folder: the folder, or None for synthetic photos.

    Raises:
        UsageError: if there are none.
    """
    if folder is None:
        return
    listing = scan_folder(folder)
    if not listing.photos:
        reason = f" ({listing.note()})" if listing.note() else ""
        raise UsageError(f"{option} {folder}: no photos in this folder{reason}.")
    if listing.note():
        terminal.complain(f"note: {option} {folder}: {listing.note()}")
