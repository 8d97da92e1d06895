"""MediaPipe's ImageSegmenter runs the shipped file and exports of all variants.

MediaPipe wants other packages than kmatting. Name the Python of an environment that has it:
`KMATTING_MEDIAPIPE_PYTHON=/path/to/python`. Without it, what it needs is read from the file.
"""

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.tools import flatbuffer_utils
from export_models import tiny_model
from PIL import Image
from skimage import data

from kmatting.export import export
from kmatting.networks.metadata import read_metadata
from kmatting.networks.shipped import shipped_model
from kmatting.networks.tflite import TFLiteNetwork

PYTHON = os.environ.get("KMATTING_MEDIAPIPE_PYTHON")
PAGE = Path(__file__).parent.parent / "docs" / "phone.md"


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """A file that takes floats, and one that takes integers."""
    folder = tmp_path_factory.mktemp("mediapipe")
    model = tiny_model(folder / "tiny.keras")
    return export("tflite", model.file, folder, size=[(48, 32)], variant=["float32", "integer"])


def field(packed, table, number):
    """Returns where a field of a table in a flat buffer is, or None; see `metadata_schema.fbs`."""

    def read(position, dtype):
        return int(np.frombuffer(packed, dtype, 1, position)[0])

    fields = table - read(table, "<i4")
    place = 4 + 2 * number
    offset = read(fields + place, "<u2") if place < read(fields, "<u2") else 0
    return table + offset if offset else None


def follow(packed, position, *path):
    """Follows fields of tables; -1 stands for the first entry of a vector."""
    target = position + int(np.frombuffer(packed, "<u4", 1, position)[0])
    if not path:
        return target
    number, *rest = path
    place = target + 4 if number == -1 else field(packed, target, number)
    return None if place is None else follow(packed, place, *rest)


def text(packed, position):
    length = int(np.frombuffer(packed, "<u4", 1, position)[0])
    return packed[position + 4 : position + 4 + length].decode()


def model_metadata(path):
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(path.read_bytes()))
    (entry,) = (entry for entry in model.metadata if entry.name == b"TFLITE_METADATA")
    return bytes(model.buffers[entry.buffer].data)


def test_what_mediapipe_asks_for_is_in_the_file(exports):
    """Its numbers: subgraph 3, input 2, process unit 4, its options 1, then mean 0 and std 1."""
    for path in (shipped_model(), exports[0]):
        packed = model_metadata(path)
        assert packed[4:8] == b"M001"
        for number, expected in ((0, 0), (1, 255)):
            place = follow(packed, 0, 3, -1, 2, -1, 4, -1, 1, number)
            assert np.frombuffer(packed, "<f4", 1, place + 4) == [expected]
        assert text(packed, follow(packed, 0, 3, -1, 3, -1, 0)) == "alpha"
        assert text(packed, follow(packed, 0, 0)) == read_metadata(path)["name"]
    packed = model_metadata(exports[1])  # takes levels as they are
    assert follow(packed, 0, 3, -1, 2, -1, 4) is None
    terms = text(model_metadata(shipped_model()), follow(model_metadata(shipped_model()), 0, 5))
    assert terms == read_metadata(shipped_model())["licence"]


@pytest.mark.skipif(not PYTHON, reason="needs KMATTING_MEDIAPIPE_PYTHON")
def test_the_snippet_of_the_page(exports, tmp_path):
    Image.fromarray(data.astronaut()).save(tmp_path / "photo.jpg", quality=95)
    (snippet,) = re.findall(r"```python\n(import mediapipe.*?)```", PAGE.read_text(), re.DOTALL)
    for path in (shipped_model(), *exports):
        script = snippet.replace("model.tflite", str(path))
        script += "\nimport numpy\nnumpy.save('alpha.npy', alpha)\n"
        subprocess.run([PYTHON, "-c", script], cwd=tmp_path, check=True, capture_output=True)
        alpha = np.load(tmp_path / "alpha.npy")
        assert alpha.shape == (512, 512)
        network = TFLiteNetwork(path.read_bytes())
        photo = Image.open(tmp_path / "photo.jpg").resize(network.fixed_size[::-1])
        expected = Image.fromarray(network.run(np.asarray(photo)[None])[0, ..., 0])
        expected = np.asarray(expected.resize((512, 512), Image.Resampling.BILINEAR))
        assert np.abs(alpha - expected).mean() < 0.03
        assert expected.std() > 0.02
