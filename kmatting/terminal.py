"""What commands write to standard output and standard error: reports, messages, progress."""

import contextlib
import io
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = [
    "complain",
    "counted",
    "discard_output",
    "printable",
    "progress",
    "progress_line",
    "say",
    "tolerant_output",
]

# Seconds until the first line where there is no terminal, such as a log, and from one to the next.
FIRST_LINE = 30.0
EACH_LINE = 60.0

# A terminal obeys these: all control characters except the line feed and the tab.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

Item = TypeVar("Item")


def printable(text: str) -> str:
    r"""Writes control characters as `\x1b`; the name of a file may hold any."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def say(text: str) -> None:
    """Prints a report. If its reader has gone (`| head`), the command does not fail."""
    try:
        print(printable(text), flush=True)
    except BrokenPipeError:
        discard_output()


def complain(text: str) -> None:
    """Prints an error, a warning or a note to standard error, if that is open."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(printable(text), file=sys.stderr, flush=True)


def discard_output() -> None:
    """Discards standard output; else the interpreter reports a broken pipe when it exits."""
    with open(os.devnull, "wb") as nowhere, contextlib.suppress(OSError, ValueError):  # noqa: PTH123
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


@contextlib.contextmanager
def tolerant_output() -> Iterator[None]:
    r"""Lets characters that standard output cannot encode appear as `\u8c93`.

    Otherwise a command that names a file would fail after its work, if its output is a pipe in
    another encoding than UTF-8, as on Windows.
    """
    stream = sys.stdout
    if not isinstance(stream, io.TextIOWrapper):
        yield
        return
    former = stream.errors
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        if not stream.closed:
            stream.reconfigure(errors=former)


def progress(
    items: Iterable[Item],
    total: int | None,
    unit: str,
    title: str = "",
    brief: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Item]:
    """Passes items on and shows on standard error how many are done.

    A terminal gets a bar. A file or a pipe gets a line after `FIRST_LINE` seconds, then one every
    `EACH_LINE` seconds.

    Args:
        items: what to iterate over. One item is done when the next one is asked for.
        total: number of items, if known.
        unit: what an item is, such as "photo".
        title: what is done with them, such as "scoring".
        brief: whether the bar appears only after two seconds and is removed at the end.
        clock: returns the time in seconds.

    Yields:
        The items.
    """
    if total == 1 or sys.stderr is None:
        yield from items
    elif sys.stderr.isatty():
        yield from _in_terminal(items, total, unit, title, brief)
    else:
        yield from _in_lines(items, total, unit, title, clock)


def _in_terminal(
    items: Iterable[Item], total: int | None, unit: str, title: str, brief: bool
) -> Iterator[Item]:
    from tqdm import tqdm  # here, as its import takes as long as reading three photos

    delay = 2 if brief else 0
    with tqdm(desc=title or None, total=total, unit=unit, leave=not brief, delay=delay) as bar:
        for item in items:
            bar.clear()  # so that what is printed now stands above it
            yield item
            bar.update()


def _in_lines(
    items: Iterable[Item], total: int | None, unit: str, title: str, clock: Callable[[], float]
) -> Iterator[Item]:
    start = clock()
    due = start + FIRST_LINE
    for done, item in enumerate(items):
        now = clock()
        if done and now >= due:
            complain(progress_line(done, total, unit, title, now - start))
            due = now + EACH_LINE
        yield item


def counted(number: int, unit: str) -> str:
    """Writes a number and what it counts: "1 photo", "2 photos"."""
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def progress_line(done: int, total: int | None, unit: str, title: str, seconds: float) -> str:
    """Writes a line such as `scoring: 120 of 500 images, 8.1 per second, 47 s left`."""
    parts = [f"{done} of {counted(total, unit)}" if total else counted(done, unit)]
    parts.append(f"{done / seconds:.1f} per second")
    if total:
        left = round((total - done) * seconds / done)
        parts.append(f"{left // 60} min left" if left >= 120 else f"{left} s left")
    return (f"{title}: " if title else "") + ", ".join(parts)
