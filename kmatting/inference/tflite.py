"""Runs `.tflite` files with LiteRT."""

from typing import Any

import numpy as np

from kmatting.inference.network import SIGNATURE, ModelError, Network, fixed_frame, only_one
from kmatting.inference.threads import processors

_MOST_THREADS = 8  # more do not make a small network faster


def load_tflite(content: bytes, threads: int | None = None) -> Network:
    """Loads a TFLite model.

    Args:
        content: the flat buffer.
        threads: number of threads; by default the number of processors, but at most 8.

    Returns:
        The `Network`. It runs one photo at a time: calls from several threads need a lock.

    Raises:
        ModelError: if LiteRT is missing, or it is not a matting model.
    """
    interpreter = _interpreter_class()(
        model_content=content, num_threads=threads or min(_MOST_THREADS, processors())
    )
    interpreter.allocate_tensors()
    if SIGNATURE not in interpreter.get_signature_list():
        raise ModelError(f"has no signature {SIGNATURE!r}; export it by kmatting.export.")
    runner = interpreter.get_signature_runner(SIGNATURE)
    name, image = only_one("input", runner.get_input_details())
    alpha_name, alpha = only_one("output", runner.get_output_details())

    def run(batch: np.ndarray) -> np.ndarray:
        return _dequantized(runner(**{name: _quantized(batch, image)})[alpha_name], alpha)

    return Network(run, fixed_frame(image["shape_signature"].tolist()))


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
    if details["dtype"] == np.float32:
        return values
    scale, zero_point = details["quantization"]
    return (values.astype(np.float32) - zero_point) * scale


def _interpreter_class() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ModelError(
            "a .tflite model needs LiteRT, which is missing or broken here "
            f"({error}): pip install --force-reinstall ai-edge-litert"
        ) from error
    return Interpreter
