"""A network without its file format: what `Matter` runs."""

import abc
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kmatting.errors import Error, ModelError
from kmatting.extras import EXTRA_OF, install_command

SIGNATURE = "serving_default"  # of exported models
PLAIN_SIGNATURE = "network"  # of those that also reduce photos and refine mattes: the network alone
TOLERANCE = 0.05  # of an alpha beyond 0 and 1, for codes of 8 bits; what is more is no alpha
SIZE_SIGNATURE = "matte_{}"  # of each size in a `.tflite` file of several, such as matte_288x512


class Network(abc.ABC):
    """A loaded network. Making one loads it; a pickled one is loaded again.

    Each subclass passes its own arguments to this constructor, from which `reload` makes another.

    Attributes:
        fixed_size: height and width of the input in pixels, or None if the network takes any size.
        best_size: side in pixels of the square at which the network runs best, or None if the
            model does not say.
        max_size: the largest such side that the model accepts, or None if there is no limit.
        is_copied: whether each of several workers gets a copy on one thread; else they share one.
    """

    fixed_size: tuple[int, int] | None
    best_size: int | None = None
    max_size: int | None = None
    is_copied: bool = False

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments

    @abc.abstractmethod
    def run(self, batch: np.ndarray) -> np.ndarray:
        """Takes a uint8 batch (1, H, W, 3); returns a float32 alpha (1, H, W, 1) in [0, 1]."""

    @property
    @abc.abstractmethod
    def metadata(self) -> dict[str, Any]:
        """Content of the model's `kmatting.json`; empty if it has none."""

    @property
    def licence(self) -> str | None:
        """Terms of the weights, or None if the model does not say."""
        return self.metadata.get("licence")

    def reload(self) -> "Network":
        """Loads the network again, for a process that was forked since."""
        return type(self)(*self._arguments)

    def clone_single_threaded(self) -> "Network":
        """Loads a copy on one thread, for one of several workers, if `is_copied`."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments

    def __repr__(self) -> str:
        if self.fixed_size:
            return f"<{type(self).__name__} of {self.fixed_size}>"
        return f"<{type(self).__name__} of any size>"


def fixed_size(shape: Sequence[int | None]) -> tuple[int, int] | None:
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
def foreign(kind: str) -> Iterator[None]:
    """Turns whatever a runtime raises while it loads a model into a `ModelError`.

    Only calls of the runtime belong in it, and its import: what else fails is a bug of kmatting.

    Args:
        kind: what the file should be, such as "a Keras model".

    Raises:
        ModelError: if it cannot be loaded, or the runtime is not installed.
    """
    try:
        yield
    except (Error, MemoryError):
        raise
    except Exception as error:  # runtimes raise nearly every type on broken files
        package = (getattr(error, "name", None) or "").partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and package in EXTRA_OF:
            hint = install_command(EXTRA_OF[package])
            raise ModelError(f"{kind} needs {package}: {hint}") from error
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"cannot be loaded as {kind} ({reason[:300]}).") from error
