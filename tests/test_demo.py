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
