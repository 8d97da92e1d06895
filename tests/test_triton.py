"""The server and the client of the page on Triton, run by a real Triton server.

Needs an environment of its own, since nvidia-pytriton wants an older NumPy. Name its Python:
`KMATTING_TRITON_PYTHON=/path/to/python`, with nvidia-pytriton and TensorFlow installed.
"""

import os
import re
import subprocess
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from export_models import tiny_model
from PIL import Image
from skimage import data

from kmatting.export import main

PYTHON = os.environ.get("KMATTING_TRITON_PYTHON")
PAGE = Path(__file__).parent.parent / "docs" / "triton.md"
SECONDS = 120  # until the server is ready

pytestmark = pytest.mark.skipif(not PYTHON, reason="needs KMATTING_TRITON_PYTHON")


def page_scripts():
    """The server and the client of the page."""
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[:2]


def is_ready():
    try:
        with urllib.request.urlopen("http://localhost:8000/v2/models/mine/ready", timeout=5):
            return True
    except OSError:
        return False


def test_triton_serves_a_saved_model_by_http_and_grpc(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = tiny_model(tmp_path / "tiny.keras")
    command = ["--model", str(model.file), "--format", "saved_model", "--name", "mine"]
    assert main([*command, "--max-size", "128"]) == 0
    photo = Image.fromarray(data.astronaut()[:96, 160:288])
    photo.save("photo.jpg", quality=95)
    server, client = page_scripts()
    # A file: the server starts its Python again.
    Path("server.py").write_text(server, encoding="utf-8")
    with (
        open("server.log", "w") as log,  # noqa: PTH123
        subprocess.Popen([PYTHON, "server.py"], stdout=log, stderr=log) as process,
    ):
        try:
            end = time.monotonic() + SECONDS
            while not is_ready():
                assert process.poll() is None, Path("server.log").read_text()
                assert time.monotonic() < end, "the server did not start"
                time.sleep(1)
            subprocess.run([PYTHON, "-c", client], check=True, timeout=SECONDS)
        finally:
            process.terminate()
    image = np.asarray(Image.open("photo.jpg"))[None] / np.float32(255)
    expected = np.asarray(model(image, training=False))[0, ..., 0]
    for name in ("http", "grpc"):
        received = np.asarray(Image.open(f"alpha-{name}.png"))
        assert received.shape == (96, 128)
        np.testing.assert_allclose(received / 255, expected, atol=0.02)
    assert expected.std() > 0.03
