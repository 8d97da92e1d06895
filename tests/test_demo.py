import importlib.util
import re
import socket
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import red_model
from demo_server import Server, free_port
from PIL import Image

from kmatting import demo, predict

needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="needs gradio: pip install 'kmatting[demo]'"
)


@pytest.fixture(scope="module")
def model():
    return red_model.folder() / "red.tflite"


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    with Server(model, tmp_path_factory.mktemp("server") / "tmp") as server:
        yield server


def shaded(height, width, seed=0):
    """A photo with soft and sharp edges."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    photo = np.array(small.resize((width, height), Image.Resampling.BICUBIC))
    photo[height // 4 : height // 2, width // 3 : width // 2] = (250, 20, 20)
    return photo


def turned_jpeg(path):
    image = Image.fromarray(shaded(90, 140))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif, quality=95)


def cmyk_jpeg(path):
    Image.fromarray(shaded(90, 140)).convert("CMYK").save(path)


def deep_png(path):
    grey = shaded(60, 70)[..., 0].astype(np.uint16) * 257
    Image.fromarray(grey).save(path)


def transparent_png(path):
    photo = shaded(100, 80)
    Image.fromarray(np.dstack([photo, photo[..., 1]])).save(path)


def odd_tiff(path):
    Image.fromarray(shaded(33, 77)).convert("LAB").save(path)


PHOTOS = {
    "turned.jpg": turned_jpeg,
    "cmyk.jpg": cmyk_jpeg,
    "deep.png": deep_png,
    "transparent.png": transparent_png,
    "lab.tif": odd_tiff,
    "Grüße 100%.webp": lambda path: Image.fromarray(shaded(50, 40)).save(path),
}


def by_predict(model, photo, folder, *options):
    """The files of alpha and cutout that the command writes."""
    arguments = [str(photo), "--model", str(model), "--output", str(folder), *options]
    assert predict.main([*arguments, "--alpha", "--cutout"]) == 0
    return tuple((folder / kind / f"{photo.stem}.png").read_bytes() for kind in ("alpha", "cutout"))


def png_that_claims(width, height):
    """A PNG of a few bytes whose header promises many pixels."""

    def chunk(kind, data):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_help_is_quick():
    program = (
        "import sys; from kmatting.demo import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'gradio', 'tensorflow', 'keras'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "127.0.0.1" in run.stdout


@needs_gradio
def test_what_cannot_be_served_is_said_in_one_line(model, capsys, tmp_path):
    (tmp_path / "broken.tflite").write_bytes(b"no model")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cases = {
            ("--model", str(tmp_path / "none.tflite")): "none.tflite: no such file",
            ("--model", str(tmp_path / "broken.tflite")): "broken.tflite: cannot be loaded",
            ("--model", str(model), "--port", str(port)): f"port {port} is taken",
            ("--model", str(model), "--host", "192.0.2.1"): "192.0.2.1, port .*: cannot listen",
        }
        for arguments, message in cases.items():
            port_option = [] if "--port" in arguments else ["--port", str(free_port())]
            assert demo.main([*arguments, *port_option]) == 2
            assert_one_error(capsys, message)


def test_without_gradio_the_message_says_what_to_do(model, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert demo.main(["--model", str(model)]) == 2
    assert_one_error(capsys, r"pip install 'kmatting\[demo\]'")


def assert_one_error(capsys, message):
    output = capsys.readouterr()
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    assert re.search(message, output.err), output.err


@needs_gradio
@pytest.mark.parametrize("name", PHOTOS)
def test_the_call_gives_what_predict_writes(server, model, tmp_path, name):
    PHOTOS[name](tmp_path / name)
    expected = by_predict(model, tmp_path / name, tmp_path / "out")
    assert server.matte(tmp_path / name) == expected


@needs_gradio
def test_edges_keep_the_photos_colours_if_wanted(server, model, tmp_path):
    photo = tmp_path / "photo.png"
    Image.fromarray(shaded(60, 90)).save(photo)
    plain = by_predict(model, photo, tmp_path / "out", "--foreground", "none")
    assert server.matte(photo, edges=False) == plain
    assert server.matte(photo, edges=True)[1] != plain[1]


BAD_PHOTOS = {
    "text.jpg": (b"no photo at all", "text.jpg: not an image that can be read"),
    "empty.png": (b"", "empty.png: empty file"),
    "bomb.png": (png_that_claims(30000, 30000), r"bomb.png: more than 178,956,970 pixels"),
    "large.png": (png_that_claims(9000, 6000), "large.png: 54 megapixels; .* up to 50"),
    "torn.png": (png_that_claims(300, 200), "torn.png: damaged or truncated image"),
}


@needs_gradio
@pytest.mark.parametrize("name", BAD_PHOTOS)
def test_what_is_no_photo_is_said(server, name):
    content, message = BAD_PHOTOS[name]
    status, path = server.upload(name, content)
    assert status == 200, path
    event, data = server.call(path)
    assert event == "error"
    assert re.match(message, data["error"]), data
    assert "/" not in data["error"]  # no path of the server


@needs_gradio
def test_too_large_uploads_are_refused(server):
    before = server.files()
    status, message = server.upload("film.png", bytes(51 << 20))
    assert status == 413
    assert "maximum allowed size" in message
    assert server.files() == before


@needs_gradio
def test_nothing_but_uploads_is_read_or_served(server, model):
    for path in (str(model), "/etc/passwd", None):
        event, _ = server.call(path)
        assert event == "error"
    assert server.request("GET", f"/gradio_api/file={model}")[0] == 403
    assert server.request("GET", "/gradio_api/file=/etc/passwd")[0] == 403


@needs_gradio
def test_no_call_passes_the_queue_by(server):
    body = b'{"data": [null, true]}'
    for path in ("run", "api"):
        assert server.request("POST", f"/gradio_api/{path}/matte", body)[0] == 404


@needs_gradio
def test_a_server_leaves_nothing_and_asks_nobody(model, tmp_path):
    Image.fromarray(shaded(60, 90)).save(tmp_path / "photo.jpg")
    with Server(model, tmp_path / "tmp") as server:
        server.matte(tmp_path / "photo.jpg")
        assert {"photo.jpg", "photo-alpha.png", "photo-cutout.png"} <= server.files()
    assert server.code == 0
    assert list((tmp_path / "tmp").glob("kmatting-demo-*")) == []
    assert set(server.report["asked"]) <= {"127.0.0.1", "localhost"}
    assert not server.report["tensorflow"]
