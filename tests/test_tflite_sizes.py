"""A `.tflite` file of several sizes: its export, and what chooses the size."""

import json
import os
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
import red_model
from demo_server import free_port
from export_models import error_after_steps, tiny_model
from PIL import Image

from kmatting import evaluate, export, predict
from kmatting.data.synthetic import sample
from kmatting.exporting import tflite
from kmatting.exporting.formats import VARIANTS
from kmatting.exporting.multi_size import join
from kmatting.images import read_alpha
from kmatting.inference.matter import Matter
from kmatting.networks.metadata import read_metadata
from kmatting.networks.tflite import TFLiteNetwork

litert = pytest.importorskip("ai_edge_litert.interpreter")

SIZES = ((32, 32), (48, 32))
NAMES = "32x32-48x32"
RED, GREEN = 51, 102


# Export


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.keras")


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """The tiny model in all variants, each at two sizes."""
    pytest.importorskip("ai_edge_quantizer", reason="needs the extra `quantize`")
    output = tmp_path_factory.mktemp("exported")
    command = ["--model", str(model.file), "--format", "tflite", "--output", str(output)]
    command += ["--size", "32", "--size", "48x32"]  # or: --size 32 48x32
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tflite, "CALIBRATION_PHOTOS", 4)
        assert export.main([*command, "--variant", *VARIANTS]) == 0
    paths = {variant: output / f"tiny-{NAMES}-{variant}.tflite" for variant in VARIANTS}
    assert set(output.iterdir()) == set(paths.values())
    return paths


def run_command(model, output, *options):
    command = ["--model", str(model.file), "--format", "tflite", "--output", str(output)]
    return export.main([*command, "--size", "32", "48x32", *options])


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_size_is_near_keras(model, exported, variant):
    content = exported[variant].read_bytes()
    for size in SIZES:
        photos = [sample(2, index, size)[0] for index in range(2)]
        expected = [np.asarray(model(photo[None] / np.float32(255))) for photo in photos]
        parity = tflite.compare(content, photos, expected, size=size)
        assert parity.mean <= VARIANTS[variant]
        assert np.std(expected) > 0.05  # or any model would be near


def test_each_size_gives_what_a_file_of_its_own_gives(model, exported):
    for size in SIZES:
        photo = sample(3, 0, size)[0][None]
        alone = TFLiteNetwork(tflite.convert(model, size))
        joined = TFLiteNetwork(exported["float32"].read_bytes(), size=size)
        np.testing.assert_array_equal(joined.run(photo), alone.run(photo))


def test_signatures_and_metadata_name_the_sizes(exported):
    path = exported["dynamic"]
    interpreter = litert.Interpreter(model_path=str(path))
    names = ["serving_default", "matte_32x32", "matte_48x32"]
    assert list(interpreter.get_signature_list()) == names
    for name, size in zip(names, ((32, 32), *SIZES), strict=True):
        runner = interpreter.get_signature_runner(name)
        assert runner.get_input_details()["image"]["shape"].tolist() == [1, *size, 3]
        assert runner.get_output_details()["alpha"]["shape"].tolist() == [1, *size, 1]
    metadata = read_metadata(path)
    assert metadata["signatures"] == {"matte_32x32": [32, 32], "matte_48x32": [48, 32]}
    assert (metadata["height"], metadata["width"]) == (32, 32)


def test_programs_that_know_no_signatures_run_the_first_size(model, exported):
    interpreter = litert.Interpreter(model_path=str(exported["float32"]))
    interpreter.allocate_tensors()
    image = sample(4, 0, SIZES[0])[0][None] / np.float32(255)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    alpha = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(alpha, np.asarray(model(image)), atol=1e-5)


def test_graphs_of_other_operations():
    models = {SIZES[0]: red_model.channel(0), SIZES[1]: red_model.step()}
    alone = {size: tflite.convert(network, size) for size, network in models.items()}
    for size, content in alone.items():
        photo = sample(3, 0, size)[0][None]
        joined = TFLiteNetwork(join(alone), size=size)
        np.testing.assert_array_equal(joined.run(photo), TFLiteNetwork(content).run(photo))


def test_weights_are_stored_once(model):
    alone = {size: tflite.convert(model, size) for size in SIZES}
    weights = 4 * model.count_params()
    first, second = map(len, alone.values())
    assert len(join(alone)) < first + second - 0.8 * weights


def test_one_size_is_written_as_it_is(model):
    content = tflite.convert(model, (32, 32))
    assert join({(32, 32): content}) is content


def test_a_size_given_twice_is_taken_once_and_the_report_names_each(model, tmp_path, capsys):
    assert run_command(model, tmp_path, "--size", "32") == 0
    assert [path.name for path in tmp_path.iterdir()] == [f"tiny-{NAMES}-float32.tflite"]
    report = capsys.readouterr().out
    for size in ("32x32", "48x32"):
        mean, largest = re.search(rf"\n  at {size} +([\d.]+) +([\d.]+) +\d+\n", report).groups()
        assert float(mean) <= float(largest) < 1e-4


def test_a_size_that_differs_too_much_is_named(model, tmp_path, capsys, monkeypatch):
    convert = tflite.convert
    monkeypatch.setattr(
        tflite, "convert", lambda model, size, *_: convert(spoilt(model, size), size)
    )
    assert run_command(model, tmp_path / "out") == 2
    error = error_after_steps(capsys.readouterr().err)
    assert "not written: its alphas at 48x32 differ" in error
    assert not (tmp_path / "out").exists()


def spoilt(model, size):
    """The model itself at the first size, another at the second."""
    return model if size == SIZES[0] else red_model.channel(0)


# In use


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """A file whose alpha is the photo's red at one size, its green at another."""
    path = tmp_path_factory.mktemp("frames") / "frames.tflite"
    red_model.save_frames(path)
    return path


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photos" / "photo.png"
    path.parent.mkdir()
    Image.new("RGB", (40, 30), (RED, GREEN, 0)).save(path)
    return path


def level(matte):
    (level,) = set(np.rint(255 * matte.alpha).ravel().tolist())
    return level


def test_matter_chooses_the_size(frames, photo):
    assert level(Matter(frames)(photo)) == RED
    assert level(Matter(frames, size=red_model.FRAME)(photo)) == RED
    green = Matter(frames, size=32)
    assert (green.frame, level(green(photo))) == ((32, 32), GREEN)
    assert level(green(photo, size=32)) == GREEN
    assert level(Matter(frames, size=(32, 32), threads=1)(photo)) == GREEN


def test_copies_keep_the_size(frames, photo):
    green = Matter(frames, size=32)
    assert level(pickle.loads(pickle.dumps(green))(photo)) == GREEN
    for _, matte in green.stream([photo] * 3):  # each worker loads a copy
        assert level(matte) == GREEN
    assert level(green._with_network(green._network.reload())(photo)) == GREEN


@pytest.mark.parametrize("size", [48, 64, (64, 48), (32, 48)])
def test_a_size_that_the_file_lacks(frames, size):
    received = "x".join(map(str, size)) if isinstance(size, tuple) else f"{size}x{size}"
    message = rf"frames\.tflite: runs at 48x64 or 32x32 pixels only, received size {received}"
    with pytest.raises(ValueError, match=message):
        Matter(frames, size=size)


def test_a_size_for_one_photo_must_be_that_of_the_matter(frames, photo):
    with pytest.raises(ValueError, match="runs at 48x64 pixels only, received size 32"):
        Matter(frames)(photo, size=32)


def test_height_and_width_are_for_fixed_sizes(photo):
    path = red_model.folder() / "red.keras"
    with pytest.raises(ValueError, match=r"received size 32x128\. Give one number, such as 64"):
        Matter(path, size=(32, 128))
    with pytest.raises(ValueError, match=r"height and width, received \(1, 2, 3\)"):
        Matter(path, size=(1, 2, 3))
    with pytest.raises(TypeError, match="size: expected a whole number, received float"):
        Matter(path, size=(32.0, 32))


def test_predict(frames, photo, tmp_path, capsys):
    command = [str(photo), "--model", str(frames), "--alpha", "--output", str(tmp_path / "out")]
    assert predict.main([*command, "--size", "32"]) == 0
    assert set(read_alpha(tmp_path / "out/photo.alpha.png").ravel().tolist()) == {GREEN}
    assert predict.main([*command, "--size", "48x64", "--overwrite"]) == 0
    assert set(read_alpha(tmp_path / "out/photo.alpha.png").ravel().tolist()) == {RED}
    capsys.readouterr()
    assert predict.main([*command, "--size", "64x48", "--overwrite"]) == 2
    assert capsys.readouterr().err == (
        f"error: {frames}: runs at 48x64 or 32x32 pixels only, received size 64x48. Leave out the "
        "size, or export the model at that size.\n"
    )


@pytest.mark.parametrize("size", ["8", "48x", "48x64x3", "48x8", "-32", "x"])
def test_what_is_no_size(photo, capsys, size):
    with pytest.raises(SystemExit):
        predict.main([str(photo), f"--size={size}"])
    assert "expected a size of at least 16, such as 512 or 288x512" in capsys.readouterr().err


def test_evaluate(frames, photo, tmp_path):
    (tmp_path / "alphas").mkdir()
    truth = np.full((30, 40), GREEN, np.uint8)
    truth[0, 0] = 255  # or no level would be taken for opaque
    Image.fromarray(truth).save(tmp_path / "alphas" / "photo.png")
    command = ["--model", str(frames), "--data", str(photo.parent), str(tmp_path / "alphas")]
    report = {}
    for size in ("32x32", "48x64"):
        folder = tmp_path / size
        assert evaluate.main([*command, "--size", size, "--output", str(folder)]) == 0
        report[size] = json.loads((folder / "report.json").read_text())
    opaque = (255 - GREEN) / 255 / (30 * 40)
    assert report["32x32"]["mean"]["mad"] == pytest.approx(opaque)
    assert report["48x64"]["mean"]["mad"] == pytest.approx((GREEN - RED) / 255 + opaque, rel=1e-2)
    assert report["32x32"]["predictions"].endswith("frames.tflite at size 32x32")


def test_batch(frames, photo, tmp_path):
    pytest.importorskip("apache_beam")
    from kmatting.batch.__main__ import main

    command = ["--model", str(frames), "--input", str(photo.parent)]
    assert main([*command, "--output", str(tmp_path / "out"), "--size", "32x32"]) == 0
    assert set(read_alpha(tmp_path / "out/photo.alpha.png").ravel().tolist()) == {GREEN}


def test_demo(frames, photo, monkeypatch):
    from kmatting.demo import __main__ as demo

    served = []
    monkeypatch.setattr(demo, "check_installed", lambda *_: None)
    monkeypatch.setattr(demo, "run", lambda matter, *_: served.append(matter))
    assert demo.main(["--model", str(frames), "--size", "32", "--port", str(free_port())]) == 0
    assert level(served[0](photo)) == GREEN


def test_only_the_chosen_size_is_allocated(tmp_path):
    models = {size: tflite.convert(red_model.channel(0), size) for size in ((4096, 4096), (32, 32))}
    tflite.write(tmp_path / "frames.tflite", join(models), {})
    script = """
import sys
import numpy as np
from kmatting.inference.matter import Matter

def megabytes():
    status = open("/proc/self/status").read()
    return int(status.partition("VmPeak:")[2].split()[0]) / 1e3

import ai_edge_litert.interpreter
before = megabytes()
Matter(sys.argv[1], size=32, threads=1)(np.zeros((32, 32, 3), np.uint8))
print(megabytes() - before)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "frames.tflite")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=True)
    assert float(done.stdout) < 100  # the other takes 200 for its input alone


def test_the_first_run_of_another_size_writes_no_notice_to_the_terminal(frames, photo):
    command = [sys.executable, "-m", "kmatting.predict", "--model", frames, "--size", "32"]
    done = subprocess.run([*command, photo], capture_output=True, text=True, cwd=photo.parent)
    assert done.returncode == 0
    assert done.stderr.splitlines() == [f"warning: {photo}: no subject found."]
