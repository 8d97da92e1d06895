"""The command `kmatting demo`: a page to try matting in the browser."""

import argparse
import importlib.util
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kmatting.cli import add_model, add_size, add_threads, at_least, command, make_parser, say
from kmatting.errors import UsageError
from kmatting.inference.matter import Matter
from kmatting.quiet import quiet

EPILOG = """\
Photos stay on this machine. A visitor's files are deleted when the page is closed. Those of plain
HTTP calls are deleted after an hour. The page loads nothing from elsewhere.

examples:
  kmatting demo
  kmatting demo --model model.keras --port 8000
let others in your network use it:
  kmatting demo --host 0.0.0.0
"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parse(argv)
    check_gradio()
    try:
        with listen(args.host, args.port) as listener:
            with quiet():
                matter = Matter(args.model, args.size, args.threads)
            run(matter, listener, args)
    except KeyboardInterrupt:  # the usual end of a server
        say("stopped; the visitors' files are deleted.")
    return 0


def check_gradio() -> None:
    """Checks that Gradio is installed, without importing it, which takes seconds.

    Raises:
        ModuleNotFoundError: if it is not installed.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ModuleNotFoundError("No module named 'gradio'", name="gradio")


def listen(host: str, port: int) -> socket.socket:
    """Binds an address, so that it is known to be free before the model is loaded.

    Args:
        host: a name or address of this machine.
        port: the port.

    Returns:
        A socket that listens.

    Raises:
        ValueError: if the address is taken or cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UsageError(
            f"cannot listen at {host}, port {port}: {error.strerror}. Choose another --port or "
            "--host."
        ) from error


def own_names(host: str) -> list[str]:
    """Lists the names of this machine.

    Args:
        host: the value of --host.
    """
    machine = socket.gethostname()
    return ["localhost", host, machine, f"{machine}.local"]


def run(matter: Matter, listener: socket.socket, args: argparse.Namespace) -> None:
    """Serves the page until the process is interrupted.

    Args:
        matter: the loaded model.
        listener: a socket that listens.
        args: the parsed command line.
    """
    with tempfile.TemporaryDirectory(prefix="kmatting-demo-") as folder:
        # Gradio reads both when it is imported.
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        from kmatting.demo.page import build_page
        from kmatting.demo.server import serve

        page = build_page(matter, Path(folder), args.queue)
        host, port, *_ = listener.getsockname()
        say(f"open http://{f'[{host}]' if ':' in host else host}:{port} (Ctrl-C stops)")
        serve(page, listener, own_names(args.host), args.allow_host)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("demo", "Serve a page to try matting in the browser.", EPILOG)
    add_model(parser)
    add_size(parser)
    add_threads(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; the default serves this machine only (default: %(default)s)",
    )
    parser.add_argument("--port", type=_port, default=7860, help="default: %(default)s")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name of this server, such as that of a proxy in front; may be repeated",
    )
    parser.add_argument(
        "--queue",
        type=at_least(1),
        default=20,
        metavar="N",
        help="number of photos that may wait; further ones get status 503 (default: %(default)s)",
    )
    return parser.parse_args(argv)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, received {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
