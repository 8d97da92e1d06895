"""The `kmatting` command, and what its subcommands share: arguments, errors, signals.

Nothing here imports NumPy or TensorFlow, so that `kmatting --help` answers at once.
"""

import argparse
import contextlib
import functools
import importlib
import os
import signal
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn, Protocol, get_args

from kmatting import __version__
from kmatting.bugs import STATUS, is_expected, print_bug, show_chain
from kmatting.errors import UsageError
from kmatting.extras import EXTRA_OF, install_command
from kmatting.sizes import STRIDE, Quality, Size
from kmatting.terminal import complain, discard_output, printable, say, tolerant_output

__all__ = [
    "COMMANDS",
    "Main",
    "TerminatedError",
    "add_model",
    "add_quality",
    "add_size",
    "add_threads",
    "at_least",
    "command",
    "complain",
    "leave",
    "main",
    "make_parser",
    "parse_size",
    "run",
    "say",
]

# Module and summary of each subcommand.
COMMANDS = {
    "predict": ("kmatting.predict", "cut out the subject of photos"),
    "evaluate": ("kmatting.evaluate", "score a model or mattes against true alphas"),
    "video": ("kmatting.video.__main__", "cut out the subject of a video"),
    "demo": ("kmatting.demo.__main__", "try a model in the browser"),
    "batch": ("kmatting.batch.__main__", "predict millions of photos with Apache Beam"),
    "train": ("kmatting.train", "train a network on your own photos and mattes"),
    "export": ("kmatting.export", "export a trained network for a server or a phone"),
    "shard": ("kmatting.shard", "pack training data into TFRecord files"),
    "synthetic": ("kmatting.synthetic", "write synthetic training data"),
    "benchmark": ("kmatting.benchmark", "measure the speed of training and prediction"),
}


class Main(Protocol):
    """Runs a command with `argv`, by default the process's own; returns the exit status."""

    def __call__(self, argv: Sequence[str] | None = None) -> int: ...  # noqa: D102


class TerminatedError(KeyboardInterrupt):
    """SIGTERM was received."""


def command(main: Main) -> Main:
    """Makes a function the entry point of a command.

    The function parses `argv`, works, and returns the exit status. What it raises ends in one line
    on standard error instead of a traceback:

    - `kmatting.errors.Error`, `MemoryError`, and an `OSError` that names a path: status 2.
    - `ModuleNotFoundError` of an optional package: status 2; the line names the extra to install.
    - Ctrl-C: status 130. SIGTERM: status 143. Both arrive as `KeyboardInterrupt`.

    Notes that were added to the exception (`error.add_note(...)`) are printed after the message.
    With `KMATTING_DEBUG=1` in the environment the traceback stands before it.

    Any other exception is a bug of kmatting: its traceback is printed, with a line that asks to
    report it, and the status is 70.

    Args:
        main: takes `argv` (None for the process's own) and returns the exit status.

    Returns:
        A function that is called like `main`.
    """

    @functools.wraps(main)
    def guarded(argv: Sequence[str] | None = None) -> int:
        _open_standard_streams()
        with tolerant_output():
            return work(argv)

    def work(argv: Sequence[str] | None) -> int:
        try:
            with _sigterm_raises(), _short_warnings():
                status = main(argv)
        except KeyboardInterrupt as stop:
            terminated = isinstance(stop, TerminatedError)
            complain(_with_notes("terminated" if terminated else "interrupted", stop))
            status = 143 if terminated else 130
        except BrokenPipeError:
            complain("error: standard output was closed before all was written")
            discard_output()
            status = 2
        except ModuleNotFoundError as error:
            status = _report_missing(error)
        except Exception as error:
            status = _report(error)
        except SystemExit as stop:  # of argparse
            if not _flush():
                stop.code = stop.code or 2
            raise
        return status if _flush() else status or 2

    return guarded


@contextlib.contextmanager
def _short_warnings() -> Iterator[None]:
    """Shows warnings of kmatting in one line, without a place in its source."""
    package, former = str(Path(__file__).parent), warnings.formatwarning

    def short(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        if filename.startswith(package):
            return printable(f"warning: {message}\n")
        return former(message, category, filename, lineno, line)

    warnings.formatwarning = short
    try:
        yield
    finally:
        warnings.formatwarning = former


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def make_parser(name: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """Makes the argument parser of a command.

    Args:
        name: name of the command, such as "predict".
        description: one sentence.
        epilog: examples and notes, printed as they are.

    Returns:
        The parser.
    """
    return _Parser(
        prog=f"kmatting {name}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_model(parser: Any) -> None:
    """Adds `--model`: a path, the name of a shipped model, or None for `general`.

    Args:
        parser: an argument parser or group.
    """
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="a .tflite, .onnx or .keras file, a SavedModel folder, or a model that kmatting "
        "ships: general (the default), detail, which keeps more thin parts and takes longer, or "
        "open, whose weights are for any use",
    )


def add_size(parser: Any) -> None:
    """Adds `--size`: as `parse_size` returns it, or None for the model's own size.

    Args:
        parser: an argument parser or group.
    """
    parser.add_argument(
        "--size",
        type=parse_size,
        metavar="PIXELS",
        help="the network sees a photo at about PIXELS x PIXELS (default: the size the model was "
        "trained at). A .tflite file has one size or a few, of which this chooses one, such as 384 "
        "or 288x512, height first (default: the first)",
    )


def add_threads(parser: Any, default: str = "all") -> None:
    """Adds `--threads`: an integer, or None.

    Args:
        parser: an argument parser or group.
        default: what the help says that None stands for.
    """
    parser.add_argument(
        "--threads",
        type=at_least(1),
        metavar="N",
        help=f"processor threads of the network (default: {default})",
    )


def add_quality(parser: Any) -> None:
    """Adds `--quality`: `fast`, `normal` or `high`.

    Args:
        parser: an argument parser or group.
    """
    parser.add_argument(
        "--quality",
        choices=get_args(Quality),
        default="fast",
        help="fast: the network sees the photo once; normal: and again the part that holds the "
        "subject, where that is at most half of it; high: and the mirror image of each "
        "(default: %(default)s)",
    )


def parse_size(text: str) -> Size:
    """Reads `512`, or `288x512`, height first.

    Args:
        text: the argument.

    Returns:
        The side of a square, or height and width, in pixels.

    Raises:
        argparse.ArgumentTypeError: if it is something else, or a side is below 16.
    """
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) >= STRIDE for side in sides):
        raise argparse.ArgumentTypeError(
            f"expected a size of at least {STRIDE}, such as 512 or 288x512 (height x width), "
            f"received {text!r}"
        )
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def at_least(lowest: int) -> Callable[[str], int]:
    """Makes an argument type.

    Args:
        lowest: the smallest number allowed.

    Returns:
        A function that turns a text into an integer of at least `lowest`.
    """

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = lowest - 1
        if value < lowest:
            raise argparse.ArgumentTypeError(
                f"expected a whole number of at least {lowest}, received {text!r}"
            )
        return value

    return number


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `kmatting COMMAND ...`; returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        say(_help())
        return 0 if arguments else 2
    name, *rest = arguments
    if name in ("-V", "--version"):
        say(f"kmatting {__version__}")
        return 0
    if name not in COMMANDS:
        import difflib  # here, as only a mistake needs it

        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"{name}: no such command.{hint} See kmatting --help.")
    module, _ = COMMANDS[name]
    return importlib.import_module(module).main(rest)


def run() -> NoReturn:
    """Runs `kmatting COMMAND ...` as a program and ends it."""
    # On import, OpenBLAS starts a thread per core, which takes longer than all other imports of
    # `predict`. No command multiplies large matrices, so one is enough.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    leave(main())


def leave(status: int) -> NoReturn:
    """Ends the program; after a failure at once, without waiting for threads that still work.

    Args:
        status: the exit status.
    """
    if status:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(status)
    sys.exit(0)


def _help() -> str:
    lines = [
        "usage: kmatting COMMAND ...",
        "",
        "Trimap-free image matting: a photo goes in, a cutout comes out.",
        "",
        "commands:",
        *(f"  {name:<11}{summary}" for name, (_, summary) in COMMANDS.items()),
        "",
        "kmatting COMMAND --help describes a command; kmatting --version prints the version.",
    ]
    return "\n".join(lines)


def _report(error: Exception) -> int:
    """Prints an error in one line, or as the bug that it is; returns the exit status."""
    if not is_expected(error):
        print_bug(error)
        return STATUS
    show_chain(error)
    message = "not enough memory" if isinstance(error, MemoryError) else error
    complain(_with_notes(f"error: {message}", error))
    return 2


def _report_missing(error: ModuleNotFoundError) -> int:
    """Prints which extra installs a missing package; returns the exit status."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRA_OF:
        return _report(error)
    show_chain(error)
    complain(f"error: {package} is not installed: {install_command(EXTRA_OF[package])}")
    return 2


def _with_notes(message: str, error: BaseException) -> str:
    return "; ".join([message.rstrip(), *getattr(error, "__notes__", [])])


def _flush() -> bool:
    """Writes out what is still buffered; returns whether that worked."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough
        discard_output()
    except OSError as error:
        complain(f"error: standard output: {error.strerror}")
        discard_output()
        return False
    return True


def _open_standard_streams() -> None:
    """Replaces closed standard streams (`2>&-`) by the null device.

    Otherwise the next file that is opened gets the number of the closed one, and what a native
    library prints is written into that file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
        if getattr(sys, name) is None:
            stream: IO[Any] = open(number, "r" if name == "stdin" else "w", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Lets SIGTERM raise in the main thread, as Ctrl-C does, so that files are cleaned up."""

    def stop(signal_number: int, frame: types.FrameType | None) -> None:
        raise TerminatedError

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


if __name__ == "__main__":
    run()
