"""Runs `.tflite` files with LiteRT."""

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np

from kmatting.errors import ModelError
from kmatting.networks.network import (
    SIGNATURE,
    SIZE_SIGNATURE,
    Network,
    fixed_size,
    foreign,
    only_one,
)
from kmatting.networks.runtime import keep_in_forks, processors
from kmatting.sizes import Size, height_width, size_text

_MOST_THREADS = 8  # by default: more do not make a small network faster
# Pixels of the input up to which each worker gets a copy. Copies of a larger network would take
# hundreds of megabytes, and threads make it faster.
_SMALL = 384 * 384
_KIND = "a TFLite model"


def load(path: Path, threads: int | None = None, size: Size | None = None) -> "TFLiteNetwork":
    """Loads a `.tflite` file, see `kmatting.networks.formats.load_network`."""
    return TFLiteNetwork(path.read_bytes(), threads, None if size is None else height_width(size))


class TFLiteNetwork(Network):
    """A TFLite model. It runs one photo at a time: calls from several threads need a lock.

    Args:
        content: the file.
        threads: number of threads; by default the number of processors, but at most 8.
        size: which of the model's sizes to load, height and width in pixels; the first by default.

    Raises:
        ModelError: if LiteRT is missing, it is not a matting model, or it lacks the size.
    """

    def __init__(
        self, content: bytes, threads: int | None = None, size: tuple[int, int] | None = None
    ) -> None:
        super().__init__(content, threads, size)
        self._content, self._size = content, size
        threads_of_all = min(_MOST_THREADS, processors())
        interpreter_class = _interpreter_class()
        with foreign(_KIND):
            interpreter = interpreter_class(
                model_content=content, num_threads=threads or threads_of_all
            )
        keep_in_forks(interpreter)
        signature = _signature(interpreter, size)
        with foreign(_KIND):
            if signature == SIGNATURE:
                interpreter.allocate_tensors()  # of that signature alone
            self._runner = interpreter.get_signature_runner(signature)
            inputs, outputs = self._runner.get_input_details(), self._runner.get_output_details()
        self._input, self._image = only_one("input", inputs)
        self._output, self._alpha = only_one("output", outputs)
        _check_numbers("input", self._image)
        _check_numbers("output", self._alpha)
        self.fixed_size = fixed_size(self._image["shape_signature"].tolist())
        small = self.fixed_size is not None and self.fixed_size[0] * self.fixed_size[1] <= _SMALL
        self.is_copied = small and threads is None
        if signature != SIGNATURE and self.fixed_size:
            # LiteRT allocates it in its first run, and writes a notice: better now than later.
            with foreign(_KIND):
                self.run(np.zeros((1, *self.fixed_size, 3), np.uint8))

    @functools.cached_property
    def metadata(self) -> dict[str, Any]:
        """Content of the model's `kmatting.json`."""
        # Here, as cutting out a photo does not need it.
        from kmatting.networks.metadata import parse_metadata, read_attached

        return parse_metadata(read_attached(self._content))

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Runs the network, as `Network.run` says."""
        values = self._runner(**{self._input: _quantized(batch, self._image)})[self._output]
        return _dequantized(values, self._alpha)

    def clone_single_threaded(self) -> "TFLiteNetwork":
        """Loads a copy on one thread."""
        return TFLiteNetwork(self._content, 1, self._size)


def _signature(interpreter: Any, size: tuple[int, int] | None) -> str:
    """Names the signature of a size, by default of the first."""
    with foreign(_KIND):
        names = interpreter.get_signature_list()
    if SIGNATURE not in names:
        raise ModelError(f"has no signature {SIGNATURE!r}; export it by kmatting export.")
    with foreign(_KIND):
        inputs = interpreter.get_signature_runner(SIGNATURE).get_input_details()
    _, image = only_one("input", inputs)
    first = fixed_size(image["shape_signature"].tolist())
    if size is None or first is None or size == first:
        return SIGNATURE
    name = SIZE_SIGNATURE.format(size_text(size))
    if name not in names:
        is_size = SIZE_SIGNATURE.format(r"(\d+x\d+)")
        sizes = [size_text(first)]
        sizes += [match[1] for name in names if (match := re.fullmatch(is_size, name))]
        raise ModelError(
            f"runs at {' or '.join(dict.fromkeys(sizes))} pixels only, received size "
            f"{size_text(size)}. Leave out the size, or export the model at that size."
        )
    return name


def _check_numbers(kind: str, details: dict[str, Any]) -> None:
    dtype = np.dtype(details["dtype"])
    if dtype == np.float32:
        return
    if dtype.kind not in "iu":
        raise ModelError(f"expected an {kind} of float32 or quantized integers, but it is {dtype}.")
    scale, _ = details["quantization"]
    if not scale > 0:
        raise ModelError(
            f"its {kind} is {dtype} without quantization parameters, so it is unknown what the "
            "numbers mean. Convert the model again, or export it by kmatting export."
        )


def _quantized(batch: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    """Turns uint8 pixels into what the input takes: floats in [0, 1] or scaled integers."""
    values = batch / np.float32(255)
    if details["dtype"] == np.float32:
        return values
    scale, zero_point = details["quantization"]
    limits = np.iinfo(details["dtype"])
    integers = np.rint(values / scale + zero_point).clip(limits.min, limits.max)
    return integers.astype(details["dtype"])


def _dequantized(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    """Turns the output into float32 alphas."""
    if details["dtype"] == np.float32:
        return values
    scale, zero_point = (np.float32(number) for number in details["quantization"])
    alpha = (values.astype(np.float32) - zero_point) * scale
    highest = (np.float32(np.iinfo(details["dtype"]).max) - zero_point) * scale
    # TFLite fixes a sigmoid's scale to 1/256. Its highest code stands for 1, yet is 255/256.
    return alpha / highest if 1 - scale <= highest < 1 else alpha


def _interpreter_class() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ModelError(
            f"a .tflite model needs LiteRT, which cannot be imported ({error}): "
            "pip install --force-reinstall ai-edge-litert"
        ) from error
    return Interpreter
