"""Time, memory and operations; what this machine can do at best."""

import contextlib
import math
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kmatting.errors import UsageError
from kmatting.quiet import quiet

__all__ = [
    "REPEATS",
    "WARM_UP",
    "describe_machine",
    "in_megabytes",
    "matrix_rate",
    "median_seconds",
    "operations",
    "peak_memory",
]

REPEATS = 7  # timed calls of which the median is taken
WARM_UP = 2  # calls before them
# Side of the matrices that the machine's rate is measured with: large enough to keep it busy.
_MATRIX = {"CPU": 2048, "GPU": 8192}


def operations(graph: Any) -> int:
    """Counts the operations of a graph's convolutions and matrix products.

    A multiplication and an addition count as two. All else (batch norm, activations, resizing,
    SSIM's blurring) moves memory rather than computes, and is not counted.

    Args:
        graph: a `tf.Graph` whose shapes are known.

    Returns:
        Their number.

    Raises:
        ValueError: if a shape is not known.
    """
    total = 0
    for node in graph.get_operations():
        if node.type == "Conv2D":
            result, kernel = node.outputs[0].shape, node.inputs[1].shape
        elif node.type == "Conv2DBackpropInput":
            result, kernel = node.inputs[2].shape, node.inputs[1].shape
        elif node.type == "Conv2DBackpropFilter":
            result, kernel = node.inputs[2].shape, node.outputs[0].shape
        elif node.type == "MatMul":
            left = node.inputs[0].shape
            inner = left[0] if node.get_attr("transpose_a") else left[1]
            total += 2 * math.prod(node.outputs[0].shape) * inner
            continue
        else:
            continue
        if not (result.is_fully_defined() and kernel.is_fully_defined()):
            raise UsageError(f"{node.name}: expected known shapes, received {result} and {kernel}.")
        total += 2 * math.prod(result) * math.prod(kernel[:3])
    return total


def matrix_rate(dtype: Any, on_processor: bool = False) -> float:
    """Measures what the machine can do.

    Args:
        dtype: TensorFlow dtype.
        on_processor: whether to leave out a GPU.

    Returns:
        Operations a second of a product of two large matrices, with TensorFlow's threads. Only one
        number is copied from the device.
    """
    import tensorflow as tf

    has_gpu = bool(tf.config.list_physical_devices("GPU")) and not on_processor
    device = "GPU" if has_gpu else "CPU"
    side = _MATRIX[device]
    with tf.device(f"{device}:0"):
        left = tf.cast(tf.random.normal((side, side)), dtype)
        right = tf.cast(tf.random.normal((side, side)), dtype)
        # The sum needs the whole product, and takes a thousandth of its operations.
        product = tf.function(lambda: tf.reduce_sum(tf.matmul(left, right)))
        return 2 * side**3 / median_seconds(lambda: product().numpy())


def median_seconds(run: Callable[[], Any]) -> float:
    """Times a call a few times after a few that do not count; returns the median."""
    for _ in range(WARM_UP):
        run()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_memory() -> float:
    """Returns the largest memory of this process so far, in MB."""
    return in_megabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def in_megabytes(maxrss: int) -> float:
    """Converts what the system says of a process's memory."""
    return maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def describe_machine() -> dict[str, Any]:
    """Describes the machine and the versions; measures its matrix products."""
    with quiet():
        import tensorflow as tf
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpus": len(tf.config.list_physical_devices("GPU")),
        "load": os.getloadavg()[0],
        "float32_gflops": matrix_rate(tf.float32) / 1e9,
        "bfloat16_gflops": matrix_rate(tf.bfloat16) / 1e9,
        "python": platform.python_version(),
        **{name: version(name) for name in ("tensorflow", "keras", "numpy", "pillow", "kmatting")},
    }


def _processor() -> str:
    """Names the processor, as well as the system knows it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
