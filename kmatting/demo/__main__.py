"""Serves a page to try matting in the browser: photo in, cutout out."""

import argparse
import errno
import importlib.util
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from kmatting.inference.matter import Matter
from kmatting.quiet import quiet

EPILOG = """\
Photos stay on this machine. What a visitor uploads and gets is deleted when the page is closed,
and what came by plain HTTP calls after an hour. The page loads nothing from elsewhere.

examples:
  python -m kmatting.demo
  python -m kmatting.demo --model model.keras --port 8000
for others in your network, who can then all use it:
  python -m kmatting.demo --host 0.0.0.0
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parse(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a kill cleans up too
    try:
        check_gradio()
        check_address(args.host, args.port)
        with quiet():
            matter = Matter(args.model, threads=args.threads)
        run(matter, args.host, args.port)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing of what visitors sent is kept.", file=sys.stderr)
    return 0


def check_gradio() -> None:
    """Checks that Gradio is installed, without the seconds that importing it takes.

    Raises:
        ValueError: if it is not.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("the page needs Gradio: pip install 'kmatting[demo]'.")


def check_address(host: str, port: int) -> None:
    """Checks that a server can listen at an address.

    Args:
        host: name or IPv4 address of this machine.
        port: the port.

    Raises:
        ValueError: if it cannot.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ValueError(f"port {port} is taken; choose another by --port.") from error
            raise ValueError(f"{host}, port {port}: cannot listen there ({error}).") from error


def run(matter: Matter, host: str, port: int) -> None:
    """Serves the page until the process is interrupted.

    Args:
        matter: the loaded model.
        host: address to listen at.
        port: port to listen at.
    """
    with tempfile.TemporaryDirectory(prefix="kmatting-demo-") as folder:
        # Gradio reads both when it is imported.
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        from kmatting.demo.page import build_page, serve

        page = build_page(matter, Path(folder))
        try:
            serve(page, host, port)
            print(f"open http://{host}:{port} (Ctrl-C stops)", flush=True)
            threading.Event().wait()
        finally:
            page.close(verbose=False)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m kmatting.demo",
        description="Serves a page to try matting in the browser.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--model",
        help="a .keras file, a SavedModel folder or a .tflite file (default: the shipped model)",
    )
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen at; the default is for this machine alone (default: %(default)s)",
    )
    add("--port", type=_port, default=7860, help="default: %(default)s")
    add("--threads", type=int, help="processor threads of the network (default: all)")
    return parser.parse_args(argv)


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, received {port}")
    return port


if __name__ == "__main__":
    sys.exit(main())
