"""Serves the page over HTTP and keeps other web sites out."""

import contextlib
import ipaddress
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any
from urllib.parse import SplitResult, urlsplit

import gradio as gr
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.datastructures import Headers, MutableHeaders

from kmatting.cli import say
from kmatting.demo.page import Page

MAX_FILE_SIZE = "50mb"
GRACE = 5  # seconds that a photo in work may still take after Ctrl-C or SIGTERM

# Gradio's page needs inline scripts and styles, and pictures from memory.
_HEADERS = {
    "Content-Security-Policy": "; ".join(
        [
            "default-src 'self'",
            "script-src 'self' 'unsafe-inline'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        ]
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_WRONG_CALL = (TypeError, ValueError, KeyError)  # what Gradio raises on wrong names and numbers

# Lets visitors paste with Ctrl-V: Gradio has only a button for it, which not all browsers allow.
# Hides the sign of a broken picture where the browser cannot show a photo, such as a TIFF.
_SCRIPT = """<script>
document.addEventListener("paste", (event) => {
  const isPhoto = (file) => file.type.startsWith("image/");
  const photo = [...event.clipboardData.files].find(isPhoto);
  const input = document.querySelector("#photo input[type=file]");
  if (!photo || !input) return;
  const files = new DataTransfer();
  files.items.add(photo);
  input.files = files.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
});
for (const [event, visibility] of [["error", "hidden"], ["load", "visible"]])
  document.addEventListener(event, ({ target }) => {
    if (target.tagName === "IMG") target.style.visibility = visibility;
  }, true);
</script>"""


def serve(
    page: Page, listener: socket.socket, names: Collection[str], public_names: Collection[str] = ()
) -> None:
    """Serves a page until Ctrl-C or SIGTERM.

    Nothing is asked of other hosts, and nothing is offered but the page and its call. If a photo is
    in work at the end and takes longer than `GRACE` seconds, the files are deleted and the process
    exits with status 0.

    Args:
        page: what `build_page` returned.
        listener: a bound socket.
        names: names of this machine; a request for another host is refused.
        public_names: further names, such as that of a proxy in front of this server.
    """
    app = FastAPI(openapi_url=None)
    gr.mount_gradio_app(
        app,
        page,
        "/",
        app_kwargs={"exception_handlers": dict.fromkeys(_WRONG_CALL, _wrong_call)},
        show_error=False,
        max_file_size=MAX_FILE_SIZE,
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        footer_links=[],
        head=_SCRIPT,
        theme=gr.themes.Default(
            primary_hue="blue",
            neutral_hue="slate",
            font=["system-ui", "sans-serif"],
            font_mono=["ui-monospace", "monospace"],
        ),
    )
    config = uvicorn.Config(Guard(app, names, public_names), log_level=logging.WARNING)
    mount: Any = app.routes[-1]
    server = _Server(config, mount.app.stop_event.set)
    with _ending(server, page.files.delete_all), page.files.deleting_old():
        server.run([listener])


class Guard:
    """Refuses requests for other hosts and from other sites; adds headers for browsers.

    A page of another site can send requests here through a visitor's browser: directly, or by a
    name that it lets point to this machine ("DNS rebinding"). The first kind has the site's name in
    `Origin`, the second in `Host`.

    Args:
        app: an ASGI application.
        names: names of this machine. Any IP address is let through as well: nobody else can let
            one point here.
        public_names: names by which visitors reach a proxy in front of this server.
    """

    def __init__(
        self, app: Any, names: Collection[str], public_names: Collection[str] = ()
    ) -> None:
        self._app = app
        self._public_names = frozenset(name.lower() for name in public_names)
        self._names = self._public_names.union(name.lower() for name in names)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers a request, or hands it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refusal = self.refuse(Headers(scope=scope))
        await (refusal or self._app)(scope, receive, send_with_headers)

    def refuse(self, headers: Headers) -> PlainTextResponse | None:
        """Returns the answer to a request that is not let through, or None.

        Args:
            headers: the request's headers.
        """
        host, origin = headers.get("host", "").lower(), headers.get("origin")
        if not self._is_known(_split(f"//{host}").hostname):
            text = f"This server does not go by the name {host[:80]!r} (see --allow-host)."
            return PlainTextResponse(text, 400)
        if origin is None or _split(origin).netloc == host:
            return None
        if _split(origin).hostname in self._public_names:  # the proxy replaced the host
            return None
        return PlainTextResponse("Requests from other sites are refused.", 403)

    def _is_known(self, name: str | None) -> bool:
        try:
            ipaddress.ip_address(name or "")
        except ValueError:
            return name in self._names
        return True


class _Server(uvicorn.Server):
    """A server that ends its streams to open pages when it is told to stop, or it would never."""

    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_streams = end_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends all connections, after Ctrl-C or SIGTERM."""
        # Not in the signal's handler, which may interrupt a stream that begins to wait for this.
        self._end_streams()
        await super().shutdown(sockets)


@contextlib.contextmanager
def _ending(server: uvicorn.Server, delete_files: Callable[[], None]) -> Iterator[None]:
    """Ends the process if it has not ended `GRACE` seconds after the server was told to.

    A thread that works on a photo cannot be stopped, and Python waits for it, here or at its exit.

    Args:
        server: runs in the block.
        delete_files: called before the process is ended.
    """
    ended = threading.Event()

    def watch() -> None:
        while not server.should_exit:
            if ended.wait(0.2) and not server.should_exit:  # an error, not a signal
                return
        time.sleep(GRACE)
        is_exiting = not threading.main_thread().is_alive()
        if is_exiting or not ended.is_set():
            delete_files()
            say("a photo was in work and is given up.")
            os._exit(0)

    threading.Thread(target=watch, name="kmatting-end", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url.lower())
    except ValueError:  # such as an open bracket
        return urlsplit("")


def _wrong_call(request: Request, error: Exception) -> JSONResponse:
    """Answers a call that Gradio refuses; without this it would be an error of the server."""
    text = str(error).partition(" Please click")[0]
    return JSONResponse(
        {"error": f"{text}: no such call" if type(error) is KeyError else text}, 400
    )
