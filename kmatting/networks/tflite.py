"""Runs `.tflite` files with LiteRT."""

import contextlib
import functools
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from kmatting.errors import ModelError
from kmatting.networks.network import FRAME_SIGNATURE, SIGNATURE, Network, fixed_frame, only_one
from kmatting.networks.runtime import keep_in_forks, processors
from kmatting.sizes import size_text

_MOST_THREADS = 8  # by default: more do not make a small network faster
# Pixels of the input up to which each worker gets a copy. Copies of a larger network would take
# hundreds of megabytes, and threads make it faster.
_SMALL = 384 * 384
_NOTICE = b"Created TensorFlow Lite XNNPACK delegate"

_notice_lock = threading.Lock()


def load_tflite(
    content: bytes, threads: int | None = None, frame: tuple[int, int] | None = None
) -> Network:
    """Loads a TFLite model.

    Args:
        content: the flat buffer.
        threads: number of threads; by default the number of processors, but at most 8.
        frame: which of the model's sizes to load, height and width in pixels; the first by default.

    Returns:
        The `Network`. It runs one photo at a time: calls from several threads need a lock.

    Raises:
        ModelError: if LiteRT is missing, it is not a matting model, or it lacks the size.
    """
    wanted, threads = threads, threads or min(_MOST_THREADS, processors())
    with _notice_dropped():
        interpreter = _interpreter_class()(model_content=content, num_threads=threads)
        keep_in_forks(interpreter)
        signature = _signature(interpreter, frame)
        if signature == SIGNATURE:
            interpreter.allocate_tensors()  # of that signature alone
    runner = interpreter.get_signature_runner(signature)
    name, image = only_one("input", runner.get_input_details())
    alpha_name, alpha = only_one("output", runner.get_output_details())
    _check_numbers("input", image)
    _check_numbers("output", alpha)

    # LiteRT allocates another signature at its first run, and gives its notice then.
    notices = [] if signature == SIGNATURE else [_notice_dropped()]

    def run(batch: np.ndarray) -> np.ndarray:
        with notices.pop() if notices else contextlib.nullcontext():
            return _dequantized(runner(**{name: _quantized(batch, image)})[alpha_name], alpha)

    reload = functools.partial(load_tflite, content, threads, frame)
    fixed = fixed_frame(image["shape_signature"].tolist())
    small = fixed is not None and fixed[0] * fixed[1] <= _SMALL
    alone = functools.partial(load_tflite, content, 1, frame) if small and wanted is None else None
    return Network(run, fixed, reload, alone=alone)


def _signature(interpreter: Any, frame: tuple[int, int] | None) -> str:
    """Names the signature of a size, by default of the first."""
    names = interpreter.get_signature_list()
    if SIGNATURE not in names:
        raise ModelError(f"has no signature {SIGNATURE!r}; export it by kmatting export.")
    _, image = only_one("input", interpreter.get_signature_runner(SIGNATURE).get_input_details())
    first = fixed_frame(image["shape_signature"].tolist())
    if frame is None or first is None or frame == first:
        return SIGNATURE
    name = FRAME_SIGNATURE.format(size_text(frame))
    if name not in names:
        is_frame = FRAME_SIGNATURE.format(r"(\d+x\d+)")
        sizes = [size_text(first)]
        sizes += [match[1] for name in names if (match := re.fullmatch(is_frame, name))]
        raise ModelError(
            f"runs at {' or '.join(dict.fromkeys(sizes))} pixels only, received size "
            f"{size_text(frame)}. Leave out the size, or export the model at that size."
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


@contextlib.contextmanager
def _notice_dropped() -> Iterator[None]:
    """Drops LiteRT's notice that it uses XNNPACK; what else is written to standard error stays.

    LiteRT writes the notice to the file descriptor and has no switch for it.
    """
    with _notice_lock, contextlib.ExitStack() as stack:
        try:
            terminal = os.dup(2)
            stack.callback(os.close, terminal)
            held = stack.enter_context(_temporary_file())
        except OSError:  # standard error is closed, or there is no room: the notice may appear
            yield
            return
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            held.seek(0)
            for line in held:
                if _NOTICE not in line:
                    os.write(terminal, line)


def _temporary_file() -> Any:
    if hasattr(os, "memfd_create"):  # works where no folder can be written
        return os.fdopen(os.memfd_create("kmatting"), "w+b")
    return tempfile.TemporaryFile()


def _after_fork_in_child() -> None:
    """Frees the lock, which another thread of the parent may have held."""
    global _notice_lock
    _notice_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
