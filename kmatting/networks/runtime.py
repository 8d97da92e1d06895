"""What networks run on: processors, and TensorFlow's threads, processes and memory."""

import contextlib
import ctypes
import os
import weakref
from collections.abc import Iterator
from typing import Any

from kmatting.errors import ModelError

_tensorflow_process: int | None = None  # id of the process that loaded the first network
_kept_in_forks: weakref.WeakSet[Any] = weakref.WeakSet()


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


def refuse_fork() -> None:
    """Refuses to go on in a forked process whose parent has loaded a network into TensorFlow.

    TensorFlow's threads are not copied by a fork, so that the child would wait for them for ever.

    Raises:
        ModelError: in such a process.
    """
    global _tensorflow_process
    if _tensorflow_process not in (None, os.getpid()):
        raise ModelError(
            "TensorFlow does not work in a forked process after it ran in the parent. Load the "
            "first model after the fork, start processes by multiprocessing.get_context('spawn'), "
            "or use a .tflite model."
        )
    _tensorflow_process = os.getpid()


@contextlib.contextmanager
def tensorflow_memory() -> Iterator[None]:
    """Turns TensorFlow's error for exhausted memory into `MemoryError`."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise MemoryError(error.message) from None


def keep_in_forks(engine: Any) -> None:
    """Keeps an object with threads of its own for ever in processes that are forked later.

    Freeing it would wait for its threads, which a fork does not copy: the child would crash or
    hang, at the latest at its exit.

    Args:
        engine: an interpreter of LiteRT or a session of ONNX Runtime.
    """
    _kept_in_forks.add(engine)


def _after_fork_in_child() -> None:
    for engine in _kept_in_forks:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
