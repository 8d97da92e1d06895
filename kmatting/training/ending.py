"""Lets the process end after an error."""

import functools
import gc
import traceback
import types
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def ends_data_threads(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Ends the threads that read data when a function returns or raises.

    TensorFlow's iterators own these threads. One that is still alive at the interpreter's exit
    blocks it forever, and an exception keeps the local variables of all functions that it passed
    through alive.

    Args:
        function: reads `tf.data` datasets.

    Returns:
        A function that is called like `function`, and returns and raises the same.
    """

    @functools.wraps(function)
    def run(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            _drop_locals(error)
            raise
        finally:
            gc.collect()  # models, callbacks and iterators refer to one another

    return run


def _drop_locals(error: BaseException) -> None:
    """Clears the local variables that an exception and its causes keep; line numbers remain.

    Keras takes its own frames out of tracebacks, but the other frames still refer to them.
    """
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        exception = pending.pop()
        if exception is None or id(exception) in seen:
            continue
        seen.add(id(exception))
        pending += [exception.__cause__, exception.__context__]
        for frame, _ in traceback.walk_tb(exception.__traceback__):
            _clear_with_callers(frame)


def _clear_with_callers(frame: types.FrameType | None) -> None:
    while frame is not None:
        try:
            frame.clear()
        except RuntimeError:  # it still runs, and so do its callers
            return
        frame = frame.f_back
