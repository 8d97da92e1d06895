"""Processor threads: how many there are, and TensorFlow's limit."""

import os

from kmatting.inference.network import ModelError


def processors() -> int:
    """Counts the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def limit_tensorflow(threads: int | None) -> None:
    """Limits TensorFlow's threads; only possible before its first operation.

    Args:
        threads: number of threads, or None for TensorFlow's default.

    Raises:
        ModelError: if TensorFlow already runs.
    """
    if threads is None:
        return
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError as error:
        raise ModelError(
            "TensorFlow already runs, so its threads can no longer be set. Leave out the threads, "
            "or load this model first."
        ) from error
