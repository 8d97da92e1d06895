import collections
import contextlib
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from export_models import error_after_steps, tiny_model
from PIL import Image
from red_model import convert, step

from kmatting.data.synthetic import sample
from kmatting.export import export, main
from kmatting.exporting import tflite
from kmatting.exporting.checkpoint import CHECKPOINTS
from kmatting.exporting.formats import VARIANTS
from kmatting.exporting.job import photos_of_size
from kmatting.inference.matter import Matter
from kmatting.networks.metadata import read_metadata
from kmatting.training.run_folder import BEST, LAST, write_state

litert = pytest.importorskip("ai_edge_litert.interpreter", reason="needs the extra `tflite`")

SIZE = (64, 96)
SIZE_NAME = "64x96"
PHONE_PAGE = Path(__file__).parent.parent / "docs" / "phone.md"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.keras")


@pytest.fixture(scope="module")
def photo_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for index in range(8):
        Image.fromarray(sample(1, index, (80, 100))[0]).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def exports(model, photo_folder, tmp_path_factory):
    """The tiny model in all variants, exported by the command."""
    output = tmp_path_factory.mktemp("tflite")
    command = ["--model", str(model.file), "--format", "tflite", "--output", str(output)]
    command += ["--size", SIZE_NAME, "--calibration", str(photo_folder)]
    pytest.importorskip("ai_edge_quantizer", reason="needs the extra `quantize`")
    assert main([*command, "--variant", *VARIANTS]) == 0
    return {name: output / f"tiny-{SIZE_NAME}-{name}.tflite" for name in VARIANTS}


def operations(path):
    """Counts the operations of a TFLite file."""
    details = litert.Interpreter(model_path=str(path))._get_ops_details()
    return collections.Counter(operation["op_name"] for operation in details)


# What is written


@pytest.mark.parametrize("variant", VARIANTS)
def test_alpha_is_near_that_of_keras(model, exports, variant):
    photos = [sample(2, index, SIZE)[0] for index in range(3)]
    expected = [np.asarray(model(photo[None] / np.float32(255))) for photo in photos]
    parity = tflite.compare(exports[variant].read_bytes(), photos, expected)
    assert parity.mean <= VARIANTS[variant]
    assert parity.milliseconds > 0
    assert np.std(expected) > 0.05  # or any model would be near


def test_quantized_variants_are_smaller(exports):
    size = {name: path.stat().st_size for name, path in exports.items()}
    assert size["float16"] < 0.65 * size["float32"]
    assert size["dynamic"] < 0.5 * size["float32"]
    assert size["int8"] < 0.5 * size["float32"]
    assert size["integer"] < 0.5 * size["float32"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_signature(exports, variant):
    interpreter = litert.Interpreter(model_path=str(exports[variant]))
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["image"], "outputs": ["alpha"]}
    }
    runner = interpreter.get_signature_runner("serving_default")
    image, alpha = runner.get_input_details()["image"], runner.get_output_details()["alpha"]
    dtype = np.uint8 if variant == "integer" else np.float32
    assert image["dtype"] == alpha["dtype"] == dtype
    assert image["shape"].tolist() == [1, *SIZE, 3]
    assert alpha["shape"].tolist() == [1, *SIZE, 1]
    if variant == "integer":
        # Plain pixels go in.
        assert image["quantization"] == (pytest.approx(1 / 255), 0)
        assert alpha["quantization"] == (1 / 256, 0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_built_in_operations(exports, variant):
    names = operations(exports[variant])
    assert set(names) <= {
        "AVERAGE_POOL_2D", "MAX_POOL_2D", "PAD", "CONV_2D", "FULLY_CONNECTED", "MUL", "ADD", "SUB",
        "CONCATENATION", "MEAN", "REDUCE_MAX", "LOGISTIC", "RESIZE_BILINEAR", "RESHAPE",
        "STRIDED_SLICE", "QUANTIZE", "DEQUANTIZE", "EXPAND_DIMS",
    }  # fmt: skip


def test_integers_throughout(exports):
    """Only at the ends of the full-integer variant are numbers rescaled (uint8 to int8)."""
    names = operations(exports["integer"])
    assert names["DEQUANTIZE"] == 0
    details = litert.Interpreter(model_path=str(exports["integer"])).get_tensor_details()
    assert not any(tensor["dtype"] == np.float32 for tensor in details)


def test_batch_norm_is_folded(exports):
    """Only batch norms behind a concatenation are left, and each is one product and one sum."""
    names = operations(exports["float32"])
    assert names["CONV_2D"] == 14
    products = 1 + 2 + 2  # normalisation of colours, attention, batch norms
    assert names["MUL"] == products
    assert names["ADD"] <= 1 + 1 + 2
    assert names["RSQRT"] == names["SUB"] == names["VAR_HANDLE"] == names["TRANSPOSE"] == 0


def test_whole_networks_convert(small_model):
    content = tflite.convert(small_model, (32, 32))
    photos = [sample(2, index, (32, 32))[0] for index in range(2)]
    expected = [np.asarray(small_model(photo[None] / np.float32(255))) for photo in photos]
    assert tflite.compare(content, photos, expected).largest < 1e-4


@pytest.mark.parametrize("variant", VARIANTS)
def test_metadata(exports, variant):
    metadata = read_metadata(exports[variant])
    described = {key: metadata[key] for key in ("name", "version", "height", "width", "variant")}
    assert described == {
        "name": "tiny", "version": 1, "height": 64, "width": 96, "variant": variant,
    }  # fmt: skip
    assert metadata["input"]["range"] == ([0, 255] if variant == "integer" else [0, 1])


def test_file_without_metadata(tmp_path):
    (tmp_path / "bare.tflite").write_bytes(b"TFL3")
    assert read_metadata(tmp_path / "bare.tflite") == {}


# In use


@pytest.mark.parametrize("variant", VARIANTS)
def test_predict_needs_only_the_file(model, exports, variant):
    image = sample(3, 0, (128, 192))[0]
    small = np.asarray(Image.fromarray(image).resize((96, 64), Image.Resampling.BILINEAR))
    expected = np.asarray(model(small[None] / np.float32(255)))[0, ..., 0]
    matter = Matter(exports[variant])
    assert np.abs(matter._predict(image, "image") - expected).mean() <= VARIANTS[variant]


def run_alone(script, *arguments):
    """Runs a script in which neither kmatting nor TensorFlow can be imported."""
    alone = "import sys\nsys.modules.update(kmatting=None, tensorflow=None, keras=None)\n"
    command = [sys.executable, "-I", "-c", alone + script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_runs_without_kmatting(model, exports, tmp_path):
    script = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter

run = Interpreter(model_path=sys.argv[1]).get_signature_runner("serving_default")
np.save(sys.argv[3], run(image=np.load(sys.argv[2]))["alpha"])
"""
    image = sample(4, 0, SIZE)[0][None] / np.float32(255)
    np.save(tmp_path / "image.npy", image)
    run_alone(script, exports["float32"], tmp_path / "image.npy", tmp_path / "alpha.npy")
    expected = np.asarray(model(image))
    np.testing.assert_allclose(np.load(tmp_path / "alpha.npy"), expected, atol=1e-5)


def page_snippet():
    """The Python code of the page on phones."""
    return re.search(r"```python\n(.*?)```", PHONE_PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]


@pytest.mark.parametrize("variant", VARIANTS)
def test_snippet_of_the_page_on_phones(model, exports, variant, tmp_path, monkeypatch):
    image = sample(5, 0, (128, 192))[0]
    Image.fromarray(image).save(tmp_path / "photo.png")
    snippet = page_snippet().replace("photo.jpg", "photo.png")
    snippet = re.sub(r'"[^"]*\.tflite"', repr(str(exports[variant])), snippet)
    monkeypatch.chdir(tmp_path)
    run_alone(snippet)
    small = Image.fromarray(image).resize((96, 64), Image.Resampling.BILINEAR)
    expected = np.asarray(model(np.asarray(small)[None] / np.float32(255)))[0, ..., 0]
    expected = Image.fromarray(expected).resize((192, 128), Image.Resampling.BILINEAR)
    alpha = np.asarray(Image.open(tmp_path / "alpha.png"))
    assert alpha.shape == (128, 192)
    assert np.abs(alpha / 255 - np.asarray(expected)).mean() < 0.03


def test_snippet_gives_opaque_pixels_of_an_int8_model(tmp_path, monkeypatch):
    convert(step(), tmp_path / "step.tflite", integer=True)
    Image.new("RGB", (80, 60), "white").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    run_alone(page_snippet().replace("model.tflite", "step.tflite"))
    assert Image.open(tmp_path / "alpha.png").getextrema() == (255, 255)


# The command


def test_a_file_for_each_variant_and_a_report(model, tmp_path, capsys):
    command = ["--model", str(model.file), "--format", "tflite", "--output", str(tmp_path)]
    command += ["--name", "mine", "--version", "7", "--size", "48x32"]
    assert main([*command, "--variant", "float32", "float16"]) == 0
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"mine-48x32-float32.tflite", "mine-48x32-float16.tflite"}
    assert read_metadata(tmp_path / "mine-48x32-float32.tflite")["version"] == 7
    report = capsys.readouterr().out
    for file in files:
        mean, largest = re.search(rf"{file} +[\d.]+ +([\d.]+) +([\d.]+)", report).groups()
        assert float(mean) <= float(largest) < 0.01


def test_the_size_is_that_of_training_if_the_model_says(model, tmp_path):
    trained = tmp_path / "trained.keras"
    trained.write_bytes(model.file.read_bytes())
    write_state(trained, epoch=1, best=0.5, size=(48, 32))
    command = ["--model", str(trained), "--format", "tflite", "--output", str(tmp_path / "out")]
    assert main(command) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["trained-48x32-float32.tflite"]


def test_difference_beyond_the_limit_is_not_written(model, tmp_path, capsys):
    command = ["--model", str(model.file), "--format", "tflite", "--output", str(tmp_path / "out")]
    assert main([*command, "--size", "32", "--variant", "dynamic", "--limit", "1e-9"]) == 2
    assert "more than the limit of 1e-09" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@contextlib.contextmanager
def files_limited_to(size):
    """Lets no file grow larger, as a disk does that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_leaves_nothing(tmp_path):
    path = tmp_path / "a.tflite"
    with files_limited_to(20_000), pytest.raises(OSError, match=r"too large: .*a\.tflite"):
        tflite.write(path, bytes(30_000), {})
    assert not list(tmp_path.iterdir())


def test_full_temporary_folder_is_named(model, tmp_path, capsys):
    command = ["--model", str(model.file), "--format", "tflite", "--output", str(tmp_path)]
    with files_limited_to(20_000):
        assert main([*command, "--size", "32"]) == 2
    error = error_after_steps(capsys.readouterr().err)
    assert tempfile.gettempdir() in error
    assert not list(tmp_path.iterdir())


def test_unreadable_photo_is_named(model, tmp_path, capsys):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    command = ["--model", str(model.file), "--format", "tflite", "--output", str(tmp_path / "out")]
    assert main([*command, "--size", "32", "--photos", str(tmp_path)]) == 2
    assert "broken.jpg: not an image" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "100"], "expected multiples of 16, received '100'"),
        (["--size", "0"], "expected a size of at least 16, such as 512 or 288x512"),
        (["--size", "64x"], "expected a size of at least 16, such as 512 or 288x512"),
        (["--calibration", "NOTES"], "--calibration goes with --variant int8 or integer"),
        (["--variant", "int8", "--calibration", "EMPTY"], "no photos in this folder"),
        (["--variant", "int8", "--calibration", "MISSING"], "does not exist"),
        (["--photos", "EMPTY"], "no photos in this folder"),
        (["--name", "../x"], "--name: expected letters"),
        (["--version", "0"], "--version: expected a whole number of at least 1, received '0'"),
        (["--max-size", "64"], "--max-size goes with --format saved_model or onnx"),
        (["--photos", "NOTES"], "no photos in this folder (left out 1 .txt"),
    ],
)
def test_wrong_options_are_refused_at_once(tmp_path, capsys, monkeypatch, options, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").touch()
    (tmp_path / "none.keras").touch()  # no network: it must not be asked for
    places = {name.upper(): str(tmp_path / name) for name in ("empty", "missing", "notes")}
    output = tmp_path / "out"
    network = str(tmp_path / "none.keras")
    command = ["--model", network, "--format", "tflite", "--output", str(output)]
    try:
        status = main([*command, *(places.get(option, option) for option in options)])
    except SystemExit as exit:  # argparse's
        status = exit.code
    assert status == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_the_name_of_a_file_is_a_file(model, tmp_path, capsys):
    command = ["--model", str(model.file), "--format", "tflite", "--size", "32"]
    assert main([*command, "--output", str(tmp_path / "mine.tflite")]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine.tflite"]
    assert read_metadata(tmp_path / "mine.tflite")["name"] == "tiny"
    (tmp_path / "folder.tflite").mkdir()
    assert main([*command, "--output", str(tmp_path / "folder.tflite")]) == 0
    assert (tmp_path / "folder.tflite" / "tiny-32x32-float32.tflite").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["tflite", "mine.onnx"], "mine.onnx: names a .onnx file, expected a folder"),
        (["saved_model", "mine.pb"], "mine.pb: names a .pb file, expected a folder"),
        (["onnx", "mine.zip"], "mine.zip: names a .zip file, expected a folder"),
        (["tflite", "mine.tflite", "--variant", "float32", "dynamic"], "a file holds one variant"),
    ],
)
def test_the_name_of_another_file_is_refused(tmp_path, capsys, options, message):
    kind, name, *others = options
    command = ["--format", kind, "--output", str(tmp_path / name), *others]
    assert main(command) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_steps_are_announced(model, tmp_path, capsys):
    command = ["--model", str(model.file), "--format", "tflite", "--output", str(tmp_path)]
    assert main([*command, "--size", "32"]) == 0
    steps = capsys.readouterr().err.splitlines()
    assert steps == [
        f"loading {model.file} ...",
        "running the Keras model at 32x32 ...",
        "converting to float32 at 32x32 ...",
        "comparing float32 with the Keras model ...",
    ]
    assert export("tflite", model.file, tmp_path, size=32, variant="float32") == [
        tmp_path / "tiny-32x32-float32.tflite"
    ]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("size", [(32, 48), (48, 48)])
def test_exports_are_calibrated_and_checked_on_what_prediction_makes(tmp_path, size):
    """Panoramas, too: they are padded, not squeezed."""
    photo = sample(1, 0, (40, 300))[0]
    Image.fromarray(photo).save(tmp_path / "panorama.png")
    (made,) = photos_of_size(tmp_path, 4, size)
    seen = []

    class Spy:
        fixed_size, best_size, max_size, is_copied = size, None, None, False

        def run(self, batch):
            seen.append(batch[0])
            return np.zeros((1, *size, 1), np.float32)

    matter = Matter()
    matter._network = Spy()
    matter(tmp_path / "panorama.png")
    np.testing.assert_array_equal(made, seen[0])
    assert (made[-1] == made[-2]).all()  # the border, repeated


def test_the_files_of_a_run_are_those_that_training_writes():
    assert CHECKPOINTS == (BEST, LAST)
