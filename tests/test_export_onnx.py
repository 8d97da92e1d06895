"""ONNX files: what is written, how others run them, and what `Matter` says of foreign ones."""

import contextlib
import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from export_models import error_after_steps, tiny_model
from photo_files import files
from PIL import Image
from skimage import data

from kmatting import Matter, __version__, predict
from kmatting.data.synthetic import sample
from kmatting.export import main
from kmatting.exporting import onnx as exporting
from kmatting.training.run_folder import write_state

PAGE = Path(__file__).parent.parent / "docs" / "onnx.md"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    model = tiny_model(tmp_path_factory.mktemp("model") / "tiny.keras")
    write_state(model.file, 1, 0.1, (64, 144))
    return model


@pytest.fixture(scope="module")
def exports(model, tmp_path_factory):
    """The folder with tiny.onnx and tiny-rembg.onnx, exported by the command."""
    output = tmp_path_factory.mktemp("onnx")
    command = ["--model", str(model.file), "--format", "onnx", "--output", str(output)]
    assert main([*command, "--version", "3"]) == 0
    assert main([*command, "--rembg"]) == 0
    assert files(output) == ["tiny-rembg.onnx", "tiny.onnx"]
    return output


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def photos(*shape):
    return np.stack([sample(2, index, shape[1:])[0] for index in range(shape[0])])


# What is written


@pytest.mark.parametrize("shape", [(1, 64, 96), (2, 48, 16), (1, 16, 16)])
def test_alpha_is_that_of_keras_at_any_size(model, exports, shape):
    image = photos(*shape) / np.float32(255)
    expected = np.asarray(model(image, training=False))
    (alpha,) = session(exports / "tiny.onnx").run(["alpha"], {"image": image})
    np.testing.assert_allclose(alpha, expected, atol=1e-5)
    assert expected.std() > 0.02  # or any model would be near


def test_names_shapes_and_metadata(exports):
    opened = session(exports / "tiny.onnx")
    (image,), (alpha,) = opened.get_inputs(), opened.get_outputs()
    assert (image.name, image.type, image.shape) == (
        "image", "tensor(float)", ["batch", "height", "width", 3],
    )  # fmt: skip
    assert (alpha.name, alpha.type, alpha.shape) == (
        "alpha", "tensor(float)", ["batch", "height", "width", 1],
    )  # fmt: skip
    about = opened.get_modelmeta()
    assert (about.producer_name, about.graph_name, about.version) == ("kmatting", "tiny", 3)
    metadata = json.loads(about.custom_metadata_map["kmatting.json"])
    assert metadata == {
        "name": "tiny", "version": 3, "size": 96, "max_size": 96,
        "input": {"name": "image", "dtype": "float32", "layout": "NHWC", "range": [0, 1],
                  "normalisation": "none", "colours": "RGB", "multiple_of": 16},
        "output": {"name": "alpha", "dtype": "float32", "layout": "NHWC", "range": [0, 1]},
        "kmatting": __version__, "licence": None,
    }  # fmt: skip


def test_an_output_in_a_list(model, tmp_path):
    import keras

    listed = keras.Model(model.inputs, model.outputs)
    metadata = exporting.describe("listed", 1, None, 512, rembg=True)
    parity = exporting.export_onnx(
        listed, tmp_path / "a.onnx", list(photos(1, 16, 16)), metadata, rembg=True
    )
    assert parity.largest < 1e-5


def test_a_file_with_other_alphas_is_not_written(model, tmp_path, monkeypatch, capsys):
    convert = exporting._convert

    def wrong(model, metadata):
        converted = onnx.load_from_string(convert(model, metadata))
        for tensor in converted.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT and tensor.raw_data:
                values = np.frombuffer(tensor.raw_data, np.float32)
                tensor.raw_data = (values * np.float32(1.01)).tobytes()
        return converted.SerializeToString()

    monkeypatch.setattr(exporting, "_convert", wrong)
    command = ["--model", str(model.file), "--format", "onnx", "--output", str(tmp_path)]
    assert main(command) == 2
    error = error_after_steps(capsys.readouterr().err)
    assert re.fullmatch(r"error: .*tiny\.onnx: not written: .*", error)
    assert files(tmp_path) == []


@contextlib.contextmanager
def files_limited_to(size):
    """Lets no file grow larger, as a disk does that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_leaves_nothing(model, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_convert", lambda model, metadata: bytes(30_000))
    path = tmp_path / "a.onnx"
    with files_limited_to(20_000), pytest.raises(OSError, match=r"too large: .*a\.onnx"):
        exporting.export_onnx(model, path, list(photos(1, 16, 16)), {})
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["onnx", "--size", "64"], "--size goes with --format tflite, received --format onnx"),
        (["keras", "--variant", "int8"], "--variant goes with --format tflite"),
        (["onnx", "--calibration", "x"], "--calibration goes with --format tflite"),
        (["keras", "--version", "2"], "--version goes with --format saved_model or tflite or onnx"),
        (["onnx", "--limit", "1"], "--limit goes with --format tflite"),
        (["keras", "--rembg"], "--rembg goes with --format onnx"),
        (["keras", "--max-size", "64"], "--max-size goes with --format saved_model or onnx"),
    ],
)
def test_options_of_other_formats_are_refused(tmp_path, capsys, options, message):
    assert main(["--output", str(tmp_path / "out"), "--format", *options]) == 2
    assert message in capsys.readouterr().err


# In use


def run_alone(script, folder):
    """Runs a script in which neither kmatting nor TensorFlow can be imported."""
    alone = "import sys\nsys.modules.update(kmatting=None, tensorflow=None, keras=None)\n"
    command = [sys.executable, "-I", "-c", alone + script]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_snippet_of_the_page(model, exports, tmp_path):
    photo = Image.fromarray(data.astronaut()[:300, :420])
    photo.save(tmp_path / "photo.jpg")
    (snippet,) = re.findall(r"```python\n(import json.*?)```", PAGE.read_text(), re.DOTALL)
    run_alone(snippet.replace("saved_models/mine.onnx", str(exports / "tiny.onnx")), tmp_path)
    small = Image.open(tmp_path / "photo.jpg").resize((96, 96), Image.Resampling.BILINEAR)
    alpha = np.asarray(model(np.asarray(small)[None] / np.float32(255), training=False))
    expected = Image.fromarray(alpha[0, ..., 0]).resize(photo.size, Image.Resampling.BILINEAR)
    received = np.asarray(Image.open(tmp_path / "alpha.png")) / 255
    np.testing.assert_allclose(received, np.asarray(expected), atol=0.003)
    assert received.std() > 0.02


def rembg_mask(path, photo):
    """Feeds a model as rembg's session `u2net_custom` feeds it; returns the mask at 320x320.

    The photo is divided by its own largest value and normalised, channels come first, and the
    first channel that comes back is stretched to the whole range.
    """
    image = np.asarray(photo.convert("RGB").resize((320, 320), Image.Resampling.LANCZOS))
    image = (image / image.max() - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    opened = session(path)
    batch = image.transpose(2, 0, 1)[None].astype(np.float32)
    mask = opened.run(None, {opened.get_inputs()[0].name: batch})[0][:, 0]
    return ((mask - mask.min()) / (mask.max() - mask.min())).squeeze()


def test_rembg_can_feed_its_export(model, exports):
    photo = Image.fromarray(data.astronaut())
    mask = rembg_mask(exports / "tiny-rembg.onnx", photo)
    image = np.asarray(photo.resize((320, 320), Image.Resampling.LANCZOS))
    alpha = np.asarray(model(image[None] / np.float32(255), training=False))[0, ..., 0]
    expected = (alpha - alpha.min()) / np.ptp(alpha)
    np.testing.assert_allclose(mask, expected, atol=1e-4)


def test_a_photo_runs_at_max_size_or_any_other(model, exports, tmp_path):
    photo = data.astronaut()
    matter = Matter(exports / "tiny.onnx")
    assert (matter.size, matter.frame) == (96, None)
    np.testing.assert_allclose(
        matter(photo).alpha, Matter(model.file, size=96)(photo).alpha, atol=1e-3
    )
    assert np.abs(matter(photo, size=256).alpha - matter(photo).alpha).max() > 0.05


def predicted(path, tmp_path, capsys):
    """Runs `kmatting predict` with a model that it must refuse; returns the error."""
    Image.new("RGB", (32, 32)).save(tmp_path / "photo.png")
    output = tmp_path / "out.png"
    assert predict.main([str(tmp_path / "photo.png"), "--model", str(path), "-o", str(output)]) == 2
    assert not output.exists()
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}: ") and error.count("\n") == 1
    return error


def test_the_export_for_rembg_is_refused(exports, tmp_path, capsys):
    error = predicted(exports / "tiny-rembg.onnx", tmp_path, capsys)
    assert "expected an input image and an output alpha" in error
    assert "received normalised_image tensor(float) ['batch', 3, 'height', 'width']" in error


@pytest.mark.parametrize("content", [b"", b"no model", None])
def test_damaged_files_are_named(exports, tmp_path, capsys, content):
    if content is None:
        content = (exports / "tiny.onnx").read_bytes()[:20_000]
    (tmp_path / "bad.onnx").write_bytes(content)
    error = predicted(tmp_path / "bad.onnx", tmp_path, capsys)
    assert "bad.onnx: cannot be loaded as an ONNX model" in error


def foreign(path, names=("image", "alpha"), dtype=onnx.TensorProto.FLOAT, shape=(1, 48, 64, 3)):
    """Writes a model whose output is its input, or a foreign one; returns its path."""
    tensors = [onnx.helper.make_tensor_value_info(name, dtype, shape) for name in names]
    nodes = [onnx.helper.make_node("Identity", [names[0]], [name]) for name in names[1:]]
    graph = onnx.helper.make_graph(nodes, "other", tensors[:1], tensors[1:])
    opset = onnx.helper.make_opsetid("", 13)
    onnx.save(onnx.helper.make_model(graph, ir_version=8, opset_imports=[opset]), path)
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ("input.1", "alpha")}, "received input.1 tensor(float) [1, 48, 64, 3] and"),
        ({"names": ("image", "d0", "d1")}, "and d0 tensor(float) [1, 48, 64, 3], d1 tensor"),
        ({"dtype": onnx.TensorProto.UINT8}, "of float32, as kmatting export"),
        ({"shape": (1, 3, 48, 64)}, "takes an image (N, H, W, 3), but its input is (1, 3, 48, 64)"),
        ({"shape": ("n", 48, "w", 3)}, "of fixed size or one that takes any size"),
    ],
)
def test_foreign_models_are_named(tmp_path, capsys, changes, message):
    path = foreign(tmp_path / "foreign.onnx", **changes)
    assert message in predicted(path, tmp_path, capsys)


def test_damaged_metadata_is_named(tmp_path, capsys):
    path = foreign(tmp_path / "foreign.onnx")
    changed = onnx.load(path)
    changed.metadata_props.add(key="kmatting.json", value='{"max_size": "x"}')
    onnx.save(changed, path)
    assert "expected max_size to be a number of pixels" in predicted(path, tmp_path, capsys)
