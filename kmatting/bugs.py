"""Bugs of kmatting: how they are told from errors of the user, and how they are shown.

A command that hits one ends with `STATUS`. Work on many items (the photos of a folder, the frames
of a clip) continues with the next item, and `BugCounter` counts:

    bugs = BugCounter()
    for name, outcome in ...:  # of `attempt`, or of `Matter.map(..., catch=Exception)`
        if problem := bugs.problem(outcome):
            print(f"error: {name}: {problem}", file=sys.stderr)
    return bugs.status(1 if failed else 0)
"""

import errno
import os
import platform
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from kmatting import __version__
from kmatting.errors import Error
from kmatting.terminal import complain

__all__ = [
    "MANY_BUGS",
    "MOST_IN_A_ROW",
    "STATUS",
    "BugCounter",
    "attempt",
    "is_expected",
    "print_bug",
    "reason",
    "request_report",
    "show_chain",
]

STATUS = 70  # EX_SOFTWARE of sysexits.h
MOST_IN_A_ROW = 10  # items that fail by a bug, before the run ends
MANY_BUGS = f"{MOST_IN_A_ROW} in a row failed in this way, so the run was ended."

_PACKAGE = Path(__file__).parent
# Packages whose versions matter, if they are loaded.
_PACKAGES = ("numpy", "PIL", "ai_edge_litert", "tensorflow", "keras", "jax", "onnxruntime", "av")
# What the machine refuses without naming a path.
_OF_THE_MACHINE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS),
    *(errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN),
)

Result = TypeVar("Result")


def is_expected(error: BaseException) -> bool:
    """Returns whether an error is one of the user, the files or the machine, and no bug."""
    if isinstance(error, OSError):
        return error.filename is not None or error.errno in _OF_THE_MACHINE
    return isinstance(error, Error | MemoryError)


def attempt(function: Callable[..., Result], *arguments: Any) -> Result | Exception:
    """Calls a function for one item of many; returns what it raises, for `BugCounter.problem`."""
    try:
        return function(*arguments)
    except Exception as error:
        return error


class BugCounter:
    """Sorts out which of many items failed, and which of those by a bug of kmatting.

    The first bug is printed with its traceback. `MOST_IN_A_ROW` bugs in a row end the run: the last
    one is raised, so that a bug that hits every item does not fail a million of them one by one.
    Threads may share a counter.

    Attributes:
        count: number of items that failed by a bug.
        first: the first bug.
    """

    def __init__(self) -> None:
        self.count = 0
        self.first: Exception | None = None
        self._in_a_row = 0
        self._lock = threading.Lock()

    def problem(self, outcome: object) -> str | None:
        """Returns why an item failed, in one line; None if it did not.

        Args:
            outcome: the exception that the item failed by; anything else means that it is done.

        Raises:
            Exception: the outcome, if it is a bug and those before it were bugs too.
        """
        if not isinstance(outcome, Exception) or is_expected(outcome):
            self._in_a_row = 0
            if not isinstance(outcome, Exception):
                return None
            show_chain(outcome)
            return reason(outcome)
        with self._lock:
            self.count += 1
            self._in_a_row += 1
            is_first, stop = self.count == 1, self._in_a_row == MOST_IN_A_ROW
            self.first = self.first or outcome
        if stop:
            outcome.add_note(MANY_BUGS)
            raise outcome
        if is_first:
            print_bug(outcome)
        return reason(outcome)

    def status(self, otherwise: int) -> int:
        """Returns the exit status of a run: `STATUS` after a bug."""
        return STATUS if self.count else otherwise


def reason(error: Exception) -> str:
    """Returns why an item failed, in one line."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    if is_expected(error):
        return str(error)
    text = " ".join(str(error).split())[:200]
    return f"internal error ({type(error).__name__}{': ' if text else ''}{text})"


def print_bug(error: BaseException) -> None:
    """Prints the traceback of a bug, and what a report of it should contain."""
    complain("".join(traceback.format_exception(error)) + request_report(error))


def show_chain(error: BaseException) -> None:
    """Prints the traceback of a user's error if `KMATTING_DEBUG=1` asks for it."""
    if os.environ.get("KMATTING_DEBUG", "0") not in ("", "0"):
        complain("".join(traceback.format_exception(error)).rstrip())


def request_report(error: BaseException | None = None) -> str:
    """Asks to report a bug; names the place and the versions."""
    loaded = {name: sys.modules.get(name) for name in _PACKAGES}
    versions = [
        f"kmatting {__version__}",
        f"Python {platform.python_version()}",
        platform.platform(),
        *(
            f"{name} {version}"
            for name, module in loaded.items()
            if (version := getattr(module, "__version__", None))
        ),
    ]
    return (
        f"internal error: this is a bug of kmatting{_place(error)}. Please report it with the "
        f"lines above and these versions: {', '.join(versions)}."
    )


def _place(error: BaseException | None) -> str:
    """Returns the innermost line of kmatting in the traceback of an error, or ""."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__ if error else None)
        if _PACKAGE in Path(frame.filename).parents
    ]
    if not frames:
        return ""
    last = frames[-1]
    return f" ({Path(last.filename).relative_to(_PACKAGE.parent)}, line {last.lineno})"
