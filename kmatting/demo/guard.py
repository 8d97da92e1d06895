"""What stands between the network and the server, as plain ASGI: who may ask, how much, how slowly.

It also knows which pages are open, since each holds a connection, Gradio's heartbeat.
"""

import asyncio
import contextlib
import ipaddress
import re
import time
from collections.abc import Collection
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

import h11
from starlette.datastructures import Headers, MutableHeaders
from starlette.formparsers import MultiPartException
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from kmatting.demo.files import VisitorFiles

MAX_BYTES = 50 << 20  # of a request
PATIENCE = 30  # seconds until the head of a request is complete
LEAST_RATE = 16 << 10  # bytes a second that its body brings after that time

# Gradio's page needs inline scripts and styles, and pictures from memory.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_TOO_LONG = f"Expected a request of at most {MAX_BYTES >> 20} MB."
_HEARTBEAT = re.compile(r"/gradio_api/heartbeat/([^/]+)")


class RefusedError(MultiPartException):
    """A request that is not answered by the application.

    Raised while a form is received, it has the parser delete what came so far, as any fault of the
    form does.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.response = JSONResponse({"error": text}, status, {"Connection": "close"})


class Guard:
    """Lets requests through to an application, or refuses them.

    A page of another site can send requests here through a visitor's browser: directly, or by a
    name that it lets point to this machine ("DNS rebinding"). The first kind has the site's name in
    `Origin`, the second in `Host`.

    Args:
        app: an ASGI application.
        files: the visitors' files.
        names: names of this machine. Any IP address is let through as well: nobody else can let
            one point here.
        public_names: names by which visitors reach a proxy in front of this server.
        prefix: path under which the proxy shows this server, such as "/cutouts". Proxies that take
            it off and those that leave it on are both understood.
    """

    def __init__(
        self,
        app: Any,
        files: VisitorFiles,
        names: Collection[str] = (),
        public_names: Collection[str] = (),
        prefix: str = "",
    ) -> None:
        self._app = app
        self._files = files
        self._public_names = frozenset(name.lower() for name in public_names)
        self._names = self._public_names.union(name.lower() for name in names)
        self._prefix = prefix
        self._ending = asyncio.Event()

    def end_streams(self) -> None:
        """Ends the connections that open pages hold, which would otherwise never end."""
        self._ending.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers a request, or hands it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:  # nothing here speaks in web sockets
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        has_begun = False

        async def send_with_headers(message: Any) -> None:
            nonlocal has_begun
            if body.refusal is not None and not has_begun:
                return  # what the application says of a body that was cut off
            if message["type"] == "http.response.start":
                has_begun = True
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        body = _Body(Headers(scope=scope), receive, self._ending)
        try:
            self.check(Headers(scope=scope))
            if self._prefix and scope["path"].startswith(f"{self._prefix}/"):
                path = scope["path"].removeprefix(self._prefix)
                scope = {**scope, "path": path, "raw_path": quote(path).encode()}
            with self._visit(scope["path"]):
                await self._app(scope, body.receive, send_with_headers)
        except RefusedError as error:
            body.refusal = error
        if body.refusal is not None and not has_begun:
            await body.drain()
            has_begun = True
            await body.refusal.response(scope, receive, send_with_headers)

    def check(self, headers: Headers) -> None:
        """Raises RefusedError for a request to another host, from another site, or too long."""
        host, origin = headers.get("host", "").lower(), headers.get("origin", "")
        if not self._is_known(_split(f"//{host}").hostname):
            text = f"This server does not go by the name {host[:80]!r} (see --allow-host)."
            raise RefusedError(400, text)
        # A proxy may replace the host, and then the origin is one of the public names.
        is_own = not origin or _split(origin).netloc == host
        if not is_own and _split(origin).hostname not in self._public_names:
            raise RefusedError(403, "Requests from other sites are refused.")
        if int(headers.get("content-length", 0)) > MAX_BYTES:
            raise RefusedError(413, _TOO_LONG)

    def _visit(self, path: str) -> contextlib.AbstractContextManager[None]:
        heartbeat = _HEARTBEAT.fullmatch(path)
        return self._files.open_page(heartbeat[1]) if heartbeat else contextlib.nullcontext()

    def _is_known(self, name: str | None) -> bool:
        try:
            ipaddress.ip_address(name or "")
        except ValueError:
            return name in self._names
        return True


class _Body:
    """The body of a request: not too long, and not too slow."""

    def __init__(self, headers: Headers, receive: Any, ending: asyncio.Event) -> None:
        self.refusal: RefusedError | None = None
        self._receive = receive
        self._ending = ending
        self._waits = "100-continue" in headers.get("expect", "").lower()
        self._is_complete = False
        self._start = time.monotonic()
        self._length = 0

    async def receive(self) -> Any:
        """Receives the next message, as ASGI's `receive`."""
        if self._is_complete:
            return await self._end()
        message = await self._next()
        if self._length > MAX_BYTES:
            self.refusal = RefusedError(413, _TOO_LONG)
            raise self.refusal
        return message

    async def drain(self) -> None:
        """Reads on a little, as most clients listen to an answer only when all is sent."""
        if self._waits and not self._length:
            return
        with contextlib.suppress(RefusedError):
            while not self._is_complete and self._length < 4 * MAX_BYTES:
                await self._next()

    async def _next(self) -> Any:
        latest = self._start + PATIENCE + self._length / LEAST_RATE
        try:
            message = await asyncio.wait_for(self._receive(), latest - time.monotonic())
        except TimeoutError:
            self._is_complete = True
            self.refusal = RefusedError(408, "The request came too slowly.")
            raise self.refusal from None
        if message["type"] == "http.disconnect":
            self._is_complete = True
            self.refusal = RefusedError(400, "The request was not completed.")
            raise self.refusal
        self._length += len(message.get("body", b""))
        self._is_complete = not message.get("more_body", False)
        return message

    async def _end(self) -> Any:
        """Waits until the client leaves, or the server ends."""
        waiting = [
            asyncio.ensure_future(self._receive()),
            asyncio.ensure_future(self._ending.wait()),
        ]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
        return {"type": "http.disconnect"}


class PatientProtocol(H11Protocol):
    """HTTP that cuts off a connection on which the head of a request does not get complete."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Starts to wait for the first request."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(PATIENCE, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Handles what came, and waits for the rest of a head that is not yet complete."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self._timer is None:
            self._timer = self.loop.call_later(PATIENCE, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops waiting."""
        self._stop()
        super().connection_lost(exc)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url.lower())
    except ValueError:  # such as an open bracket
        return urlsplit("")
