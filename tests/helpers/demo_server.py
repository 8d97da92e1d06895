"""A running `kmatting.demo`, and calls to it by plain HTTP."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from urllib.parse import urlencode

# Runs the command; says at the end which hosts it asked for anything and whether it needed
# TensorFlow. Shows where its threads are on SIGUSR1.
_PROGRAM = """
import faulthandler, json, signal, sys

faulthandler.register(signal.SIGUSR1)

asked = set()

def watch(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        asked.add(str(arguments[1][0]))
    elif event == "socket.getaddrinfo":
        asked.add(str(arguments[0]))

sys.addaudithook(watch)
from kmatting.demo.__main__ import main

code = main(sys.argv[1:])
print(json.dumps({"asked": sorted(asked), "tensorflow": "tensorflow" in sys.modules}))
sys.exit(code)
"""


class Server:
    """The server in a process of its own, as a context manager.

    Attributes:
        url: address of the page.
        report: what the process said at its end, besides `code`, its exit status; None if it was
            ended by force.
    """

    def __init__(self, model: Path, temporary: Path, *options: str, change: str = ""):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._temporary = temporary
        program = _PROGRAM.replace("code =", f"{change}\ncode =")
        command = [sys.executable, "-c", program, "--model", str(model), "--port", str(self.port)]
        temporary.mkdir()
        self._log = temporary / "log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*command, *options],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "TMPDIR": str(temporary)},
            )

    def __enter__(self):
        said = self._process.stdout.readline()
        assert self.url in said, said + self.log()
        return self

    def __exit__(self, *_):
        self._process.send_signal(signal.SIGTERM)
        try:
            output, _ = self._process.communicate(timeout=120)
        except subprocess.TimeoutExpired as error:
            self._process.send_signal(signal.SIGUSR1)
            time.sleep(1)
            self._process.kill()
            self._process.wait()
            error.add_note(f"The server's log, and where its threads are:\n{self.log()}")
            raise
        reports = [line for line in output.splitlines() if line.startswith("{")]
        self.code, self.report = self._process.returncode, json.loads((reports or ["null"])[0])

    def files(self) -> set[str]:
        """Names of all files that the server keeps."""
        return {path.name for path in self.folder().rglob("*") if path.is_file()}

    def folder(self) -> Path:
        """The folder of all uploads and results."""
        (folder,) = self._temporary.glob("kmatting-demo-*")
        return folder

    def open_page(self, session: str = ""):
        """Opens the stream that an open page holds, and returns it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection.request("GET", f"/gradio_api/heartbeat/{session or uuid.uuid4().hex}")
        self._stream = connection.getresponse()
        assert self._stream.readline()
        return self._stream

    def log(self) -> str:
        """What the process has written to standard error."""
        return self._log.read_text()

    def headers(self, method="GET", path="/config", body=None, **headers: str):
        """Returns status and headers of the answer to a request."""
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        ) as connection:
            if body is not None:
                headers["Content-Type"] = "image/png"
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status, answer.headers

    def request(self, method: str, path: str, body: bytes = b"", kind: str = "application/json"):
        """Returns status and body of the answer."""
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        ) as connection:
            connection.request(method, path, body, {"Content-Type": kind})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def upload(self, name: str, content: bytes):
        """Returns the status, and the path of the uploaded file or the message."""
        status, answer = self.send_form("/gradio_api/upload", [("files", name, content)])
        return status, json.loads(answer)[0] if status == 200 else answer.decode()

    def send_form(self, path: str, files):
        """Sends files as a form: field, file name and content of each."""
        boundary = uuid.uuid4().hex
        body = b""
        for field, name, content in files:
            body += (
                f"--{boundary}\r\nContent-Disposition: form-data; "
                f'name="{field}"; filename="{name}"\r\n\r\n'
            ).encode()
            body += content + b"\r\n"
        kind = f"multipart/form-data; boundary={boundary}"
        return self.request("POST", path, body + f"--{boundary}--\r\n".encode(), kind)

    def call(self, session: str = "", **values):
        """Calls the step that makes all pictures; returns the event's name and its data."""
        session = session or uuid.uuid4().hex
        status, answer = self.begin_call(session, **values)
        assert status == 200, answer
        _, answer = self.request("GET", f"/gradio_api/queue/data?session_hash={session}")
        events = [json.loads(line[6:]) for line in answer.decode().splitlines() if line]
        (done,) = (event for event in events if event["msg"] == "process_completed")
        return done["success"], done["output"]

    def begin_call(self, session: str, **values):
        """Puts the step into the queue; returns the status and the answer that names the event."""
        config = json.loads(self.request("GET", "/config")[1])
        step = next(each for each in config["dependencies"] if len(each["inputs"]) > 1)
        inputs = [{**self._values, **values}.get(name) for name in self.names]
        call = {"data": inputs, "fn_index": step["id"], "session_hash": session}
        return self.request("POST", "/gradio_api/queue/join", json.dumps(call).encode())

    # What the page has of a model of one size, in its order.
    names = (
        *("photo", "edges", "only_largest", "erode", "threshold", "crop", "canvas", "shadow"),
        *("colour", "background"),
    )
    _values = {"edges": True, "colour": "#204060"}

    def predict(self, photo, content: bytes | None = None, **options):
        """Sends a photo to the route; returns status and body of the answer."""
        content = photo.read_bytes() if content is None else content
        query = f"/predict?{urlencode(options)}"
        return self.request("POST", query, content, "application/octet-stream")


def file(path):
    """A file as Gradio's clients send it."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition, seconds: float = 180):
    """Waits until a function returns something true, and returns it."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        time.sleep(0.1)
    return result
