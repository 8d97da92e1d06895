"""The command `kmatting demo`: a page to try matting in the browser, and a route for programs."""

import argparse
import importlib.util
import os
import re
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kmatting.cli import (
    add_model,
    add_quality,
    add_size,
    add_threads,
    at_least,
    command,
    make_parser,
    say,
)
from kmatting.demo.files import VisitorFiles
from kmatting.errors import UsageError
from kmatting.inference.matter import Matter
from kmatting.quiet import quiet

EPILOG = """\
Photos stay on this machine. A visitor's files are deleted when the page is closed, and others after
an hour. The page loads nothing from elsewhere.

POST /predict takes a photo and returns a picture:
  curl -F photo=@photo.jpg -o cutout.png http://127.0.0.1:7860/predict
  curl -F photo=@photo.jpg -o white.jpg "http://127.0.0.1:7860/predict?\
what=composite&background=white&format=jpg&crop=10%25"

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
    check_installed(*([] if args.no_page else ["gradio"]), "fastapi", "uvicorn", "python_multipart")
    try:
        with listen(args.host, args.port) as listener:
            with quiet():
                matter = Matter(args.model, args.size, args.threads, args.quality)
            run(matter, listener, args)
    except KeyboardInterrupt:  # the usual end of a server
        say("stopped; the visitors' files are deleted.")
    return 0


def check_installed(*packages: str) -> None:
    """Raises ModuleNotFoundError for a missing package; imports none, as Gradio takes seconds."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)


def listen(host: str, port: int) -> socket.socket:
    """Binds an address, so that it is known to be free before the model is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UsageError(
            f"cannot listen at {host}, port {port}: {error.strerror}. Choose another --port or "
            "--host."
        ) from error


def run(matter: Matter, listener: socket.socket, args: argparse.Namespace) -> None:
    """Serves the page and the route until the process is interrupted."""
    from kmatting.demo.guard import Guard
    from kmatting.demo.route import make_app
    from kmatting.demo.server import serve
    from kmatting.demo.studio import Studio

    with tempfile.TemporaryDirectory(prefix="kmatting-demo-") as folder:
        studio, files = Studio(matter), VisitorFiles(Path(folder))
        app = make_app(studio, args.queue)
        if not args.no_page:
            # Gradio reads both when it is imported.
            os.environ["GRADIO_TEMP_DIR"] = folder
            os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
            from kmatting.demo.page import add_page

            add_page(app, studio, files, Path(folder), args.queue, args.root_path)
        guard = Guard(app, files, _own_names(args.host), args.allow_host, args.root_path)
        host, port, *_ = listener.getsockname()
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        what = f"POST photos to {url}/predict" if args.no_page else f"open {url}"
        say(f"{what} (Ctrl-C stops)")
        serve(guard, files, listener)


def _own_names(host: str) -> list[str]:
    """Lists the names of this machine."""
    machine = socket.gethostname()
    return ["localhost", host, machine, f"{machine}.local"]


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("demo", "Serve a page to try matting in the browser.", EPILOG)
    add_model(parser)
    add_size(parser)
    add_threads(parser)
    add_quality(parser)
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
        "--root-path",
        type=_path,
        default="",
        metavar="/PATH",
        help="path under which a proxy in front shows this server, such as /cutouts",
    )
    parser.add_argument(
        "--no-page",
        action="store_true",
        help="serve POST /predict alone, without the page and without Gradio",
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


def _path(text: str) -> str:
    path = text.rstrip("/")
    if not re.fullmatch(r"(/[\w.~-]+)*", path, re.ASCII):
        raise argparse.ArgumentTypeError(f"expected a path such as /cutouts, received {text!r}")
    return path


if __name__ == "__main__":
    sys.exit(main())
