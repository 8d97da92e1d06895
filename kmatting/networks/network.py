"""A network without its file format: what `Matter` runs."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kmatting.errors import ModelError
from kmatting.extras import EXTRA_OF, install_command

SIGNATURE = "serving_default"  # of exported models
PLAIN_SIGNATURE = "network"  # of those that also reduce photos and refine mattes: the network alone
FRAME_SIGNATURE = "matte_{}"  # of each size in a `.tflite` file of several, such as matte_288x512


@dataclass(frozen=True)
class Network:
    """A loaded network.

    Attributes:
        run: function from a uint8 batch (1, H, W, 3) to a float32 alpha (1, H, W, 1) in [0, 1].
        frame: height and width of the input in pixels, or None if the network takes any size.
        reload: function that loads the network again, for a process that was forked since.
        size: side in pixels of the square at which the network runs best, or None if the model
            does not say.
        max_size: the largest such side that the model accepts, or None if there is no limit.
        alone: function that loads a copy on one thread, for one of several workers, or None where
            one network serves them all.
    """

    run: Callable[[np.ndarray], np.ndarray]
    frame: tuple[int, int] | None
    reload: Callable[[], "Network"]
    size: int | None = None
    max_size: int | None = None
    alone: Callable[[], "Network"] | None = None


def fixed_frame(shape: Sequence[int | None]) -> tuple[int, int] | None:
    """Reads the fixed height and width from the shape of a network's input.

    Args:
        shape: shape of the input. Unknown sides are None or -1.

    Returns:
        Height and width in pixels, or None if the network takes any size.

    Raises:
        ModelError: if the input is not an image (N, H, W, 3).
    """
    if len(shape) != 4 or shape[3] != 3:
        raise ModelError(
            f"expected a model that takes an image (N, H, W, 3), but its input is {tuple(shape)}."
        )
    height, width = (side if side is not None and side > 0 else None for side in shape[1:3])
    if height is None and width is None:
        return None
    if height is None or width is None:
        raise ModelError(
            "expected a model of fixed size or one that takes any size, but its input is "
            f"{tuple(shape)}."
        )
    return height, width


def only_one(kind: str, named: Mapping[str, Any]) -> tuple[str, Any]:
    """Returns the name and the value of a model's only input or output.

    Args:
        kind: "input" or "output", for the message.
        named: inputs or outputs by name.

    Raises:
        ModelError: if there is not exactly one.
    """
    if len(named) != 1:
        raise ModelError(f"expected a model with one {kind}, but it has {sorted(named)}.")
    return next(iter(named.items()))


@contextlib.contextmanager
def loading(path: Path, kind: str) -> Iterator[None]:
    """Turns whatever a loader raises into one `ModelError` that names the file.

    Args:
        path: the file or folder.
        kind: what it should be, such as "a Keras model".

    Raises:
        ModelError: if the file is missing or cannot be loaded, or an optional package is missing.
    """
    if not path.exists():
        raise ModelError(f"{path}: no such file.")
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # loaders raise nearly every type on broken files
        package = (getattr(error, "name", None) or "").partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and package in EXTRA_OF:
            hint = install_command(EXTRA_OF[package])
            raise ModelError(f"{path}: {kind} needs {package}: {hint}") from error
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"{path}: cannot be loaded as {kind} ({reason[:300]}).") from error
