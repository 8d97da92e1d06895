"""Serves an application over HTTP until it is told to stop."""

import logging
import os
import socket
import threading

import uvicorn

from kmatting.cli import say
from kmatting.demo.files import VisitorFiles
from kmatting.demo.guard import Guard, PatientProtocol

GRACE = 5  # seconds that a photo in work may still take after Ctrl-C or SIGTERM
_MOST_CONNECTIONS = 500  # of which an open page holds two
_STALLED = 60_000  # milliseconds after which a client that takes nothing is cut off


def serve(guard: Guard, files: VisitorFiles, listener: socket.socket) -> None:
    """Serves an application until Ctrl-C or SIGTERM.

    If a photo is in work at the end and takes longer than `GRACE` seconds, the files are deleted
    and the process exits with status 0.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # on Linux; connections inherit it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STALLED)
    config = uvicorn.Config(
        guard,
        http=PatientProtocol,
        ws="none",
        log_level=logging.WARNING,
        limit_concurrency=_MOST_CONNECTIONS,
        server_header=False,
    )
    with files.deleting_old():
        _Server(config, guard, files).run([listener])


class _Server(uvicorn.Server):
    """A server that ends, whatever its visitors hold and its threads work on."""

    def __init__(self, config: uvicorn.Config, guard: Guard, files: VisitorFiles) -> None:
        super().__init__(config)
        self._guard = guard
        self._files = files

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends all connections, after Ctrl-C or SIGTERM."""
        # A thread that works on a photo cannot be stopped, and Python waits for it at its exit.
        timer = threading.Timer(GRACE, self._give_up)
        timer.daemon = True
        timer.start()
        # Not in the signal's handler, which may interrupt a stream that begins to wait for this.
        self._guard.end_streams()
        await super().shutdown(sockets)

    def _give_up(self) -> None:
        self._files.delete_all()
        say("a photo was in work and is given up.")
        os._exit(0)
