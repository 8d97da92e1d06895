"""The batch command, as a user calls it, with a model whose alpha is the photo's red."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import red_model
from photo_files import files, write_three
from PIL import Image
from skimage import data

from kmatting import predict
from kmatting.errors import PhotoError
from kmatting.images import read_alpha, read_image

pytest.importorskip("apache_beam")

from kmatting.batch import __main__ as batch
from kmatting.batch import pipeline as beam
from kmatting.batch.storage import (
    Glob,
    absolute,
    clear_partial,
    common_folder,
    list_glob,
    local_copy,
    namesakes,
    partial_folder,
    read_glob,
    write_whole,
)
from kmatting.inference.matter import Matter

WHOLE, BAD = 288, 12


@pytest.fixture(scope="module")
def model():
    return str(red_model.folder() / "red.tflite")


@pytest.fixture(autouse=True)
def _nothing_stays_changed():
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


@pytest.fixture
def run(model, capfd):
    """Returns a function that calls the command: exit status, lines of stdout and stderr."""

    def call(*arguments):
        status = batch.main(["--model", model, *map(str, arguments)])
        captured = capfd.readouterr()
        return status, captured.out.splitlines(), captured.err.splitlines()

    return call


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A tree with photos whose red tells their number, and bad ones among them."""
    folder = tmp_path_factory.mktemp("many") / "photos"
    for number in range(WHOLE):
        path = folder / f"{number % 7}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 15), (number % 256, 9, 9)).save(path)
    whole = (folder / "0/000.png").read_bytes()
    for number in range(BAD):
        path = folder / f"{number % 7}" / f"bad{number}.png"
        path.write_bytes((b"", b"Not a photo.", whole[: len(whole) // 2])[number % 3])
    return folder


@pytest.fixture
def photos(tmp_path):
    return write_three(tmp_path / "photos")


def errors(folder):
    lines = (Path(folder) / "errors.jsonl").read_text(encoding="utf-8").splitlines()
    failures = [json.loads(line) for line in lines]
    return {failure["photo"]: failure["reason"] for failure in failures}


def number_of(name):
    return int(Path(name).name.partition(".")[0])


def check_many(photos, output):
    """Every photo exactly once, none lost, nothing half-written, each bad one named."""
    expected = [f"{number % 7}/{number:03}.alpha.png" for number in range(WHOLE)]
    assert files(output) == sorted([*expected, "errors.jsonl"])
    for name in expected:
        alpha = read_alpha(output / name, exact=True)
        assert alpha.shape == (15, 20)
        np.testing.assert_allclose(alpha, number_of(name) % 256, atol=1)
    failed = errors(output)
    assert sorted(failed) == sorted(str(path) for path in photos.rglob("bad*"))
    for path, reason in failed.items():
        kind = int(re.findall(r"\d+", Path(path).stem)[0]) % 3
        assert ("empty file", "not an image", "damaged or truncated")[kind] in reason


def counts(line):
    return [int(number) for number in re.findall(r"\d+", line.partition("; written")[0])]


def test_hundreds_of_photos_with_bad_ones_among_them(run, many, tmp_path):
    status, out, err = run("--input", many / "**.png", "--output", tmp_path / "out")
    assert status == 1
    assert counts(out[0]) == [WHOLE + BAD, WHOLE, 0, BAD]
    rate = r"[\d.]+ seconds per image in a worker \(read [\d.]+, network [\d.]+, write [\d.]+\), "
    assert re.fullmatch(rate + r"[\d.]+ images per second in all", out[1])
    assert err == [f"the photos that failed, and why: {tmp_path / 'out'}/errors.jsonl"]
    check_many(many, tmp_path / "out")

    # A second time: nothing is made again.
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    status, out, _ = run("--input", many / "**.png", "--output", tmp_path / "out")
    assert status == 1
    assert counts(out[0]) == [WHOLE + BAD, 0, WHOLE, BAD]
    assert len(out) == 1
    check_many(many, tmp_path / "out")
    assert written == {path: path.stat().st_mtime_ns for path in written}


@pytest.mark.parametrize("named", [[], ["--model", "general"]])
def test_the_model_is_the_shipped_one_by_default_and_by_its_name(tmp_path, named):
    Image.fromarray(data.astronaut()).save(tmp_path / "photo.png")
    arguments = ["--input", str(tmp_path / "*.png"), "--output", str(tmp_path / "out")]
    assert batch.main(arguments + named) == 0
    expected = Matter()(tmp_path / "photo.png").alpha
    assert expected.max() - expected.min() > 0.9
    written = read_alpha(tmp_path / "out" / "photo.alpha.png")
    np.testing.assert_allclose(written, 255 * expected, atol=0.51)


def start(model, many, output, *options):
    command = [sys.executable, "-m", "kmatting.batch", "--model", model, *options]
    command += ["--input", str(many / "**.png"), "--output", str(output)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # It is ignored, by inheritance, where the tests run in a shell's background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_files(output, count, process):
    end = time.monotonic() + 60
    while len(list(output.glob("[0-9]/*.png"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


def worker_processes(process):
    """The Python processes below one, whose command runs Beam's worker."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            commands[int(folder.name)] = (folder / "cmdline").read_bytes().split(b"\0")
            parents[int(folder.name)] = int(fields[1])
        except OSError:
            continue  # it has ended

    def is_below(pid):
        return pid == process.pid or (pid in parents and is_below(parents[pid]))

    return [
        pid
        for pid, command in commands.items()
        if is_below(pid) and b"kmatting.batch.worker" in command
    ]


def check_half(output):
    """What a killed job leaves: some whole files; returns when each was written."""
    written = {path: path.stat().st_mtime_ns for path in output.glob("[0-9]/*.png")}
    assert 0 < len(written) < WHOLE
    for path in written:
        np.testing.assert_allclose(read_alpha(path, exact=True), number_of(path) % 256, atol=1)
    return written


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
def test_a_worker_process_is_killed_and_the_job_run_again(run, model, many, tmp_path):
    process = start(model, many, tmp_path / "out", "--workers", "2")
    wait_for_files(tmp_path / "out", 20, process)
    workers = worker_processes(process)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert err.startswith("error: the job broke off: ")
    assert err.count("\n") == 1
    written = check_half(tmp_path / "out")

    status, out, _ = run("--input", many / "**.png", "--output", tmp_path / "out", "--workers", 2)
    assert status == 1
    assert counts(out[0]) == [WHOLE + BAD, WHOLE - len(written), len(written), BAD]
    check_many(many, tmp_path / "out")
    assert written == {path: path.stat().st_mtime_ns for path in written}


def test_all_is_killed_and_the_job_run_again(run, model, many, tmp_path):
    process = start(model, many, tmp_path / "out")
    wait_for_files(tmp_path / "out", 20, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    written = check_half(tmp_path / "out")
    # As if it had been in the middle of a file.
    (tmp_path / "out/.partial").mkdir(exist_ok=True)
    (tmp_path / "out/.partial/half.png").write_bytes(b"\x89PNG")

    status, out, _ = run("--input", many / "**.png", "--output", tmp_path / "out")
    assert status == 1
    assert counts(out[0]) == [WHOLE + BAD, WHOLE - len(written), len(written), BAD]
    check_many(many, tmp_path / "out")
    assert written == {path: path.stat().st_mtime_ns for path in written}


@pytest.mark.parametrize(
    ("number", "expected", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_interrupted(model, many, tmp_path, number, expected, word):
    process = start(model, many, tmp_path / "out")
    wait_for_files(tmp_path / "out", 20, process)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == expected
    assert err == f"{word}; files written so far are complete; run the same command to continue\n"
    check_half(tmp_path / "out")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize(
    ("number", "expected", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_interrupted_while_the_workers_start(model, many, tmp_path, number, expected, word):
    """Beam waits for workers that are not yet there to be told anything."""
    process = start(model, many, tmp_path / "out", "--workers", "2")
    end = time.monotonic() + 120
    while len(workers := worker_processes(process)) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == expected
    assert err == f"{word}; files written so far are complete; run the same command to continue\n"
    end = time.monotonic() + 60
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_on_a_runner_by_flag(model, photos, tmp_path):
    """By the interface that Flink and Spark are reached by, in a server in this process."""
    options = ["--runner", "PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"]
    command = [sys.executable, "-m", "kmatting.batch", "--model", model, *options]
    command += ["--input", str(photos / "**"), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert counts(done.stdout.splitlines()[0]) == [3, 3, 0, 0]
    assert files(tmp_path / "out") == ["a.alpha.png", "b.alpha.png", "deep/c.alpha.png"]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ("--alpha --cutout --foreground none", "deep/c.cutout.png"),
        (
            "--cutout --cutout-format webp --composite white --composite {photos}/a.png "
            "--composite-format jpg --only-largest --threshold 0.2 --erode 1 --canvas 4:5 --shadow",
            "deep/c.composite-a.jpg",
        ),
    ],
)
def test_the_same_files_as_predict(run, model, photos, tmp_path, options, name):
    kinds = options.format(photos=photos).split()
    status, _, err = run("--input", photos / "**", "--output", tmp_path / "batch", *kinds)
    assert (status, err) == (0, [])
    output = ["--output", str(tmp_path / "predict")]
    assert predict.main(["--model", model, str(photos), "--recursive", *output, *kinds]) == 0
    names = files(tmp_path / "predict")
    assert files(tmp_path / "batch") == names
    assert name in names
    for name in names:
        ours, theirs = (tmp_path / folder / name for folder in ("batch", "predict"))
        assert ours.read_bytes() == theirs.read_bytes()


def test_only_what_is_missing_is_made(run, photos, tmp_path):
    options = ["--input", photos / "*.png", "--output", tmp_path / "out", "--foreground", "none"]
    assert run(*options, "--alpha", "--cutout")[0] == 0
    (tmp_path / "out/a.cutout.png").unlink()
    (tmp_path / "out/a.alpha.png").write_text("mine")
    status, out, _ = run(*options, "--alpha", "--cutout")
    assert (status, counts(out[0])) == (0, [1, 1, 0, 0])
    assert (tmp_path / "out/a.alpha.png").read_text() == "mine"
    assert read_image(tmp_path / "out/a.cutout.png").shape == (20, 30, 3)


def test_errors_that_are_mended_are_forgotten(run, photos, tmp_path):
    (photos / "bad.png").touch()
    options = ["--input", photos / "*.png", "--output", tmp_path / "out"]
    assert run(*options)[0] == 1
    assert errors(tmp_path / "out") == {str(photos / "bad.png"): "empty file."}
    Image.new("RGB", (8, 8)).save(photos / "bad.png")
    assert run(*options)[0] == 0
    assert files(tmp_path / "out") == ["a.alpha.png", "bad.alpha.png"]


def test_a_keras_model_and_a_saved_model(run, photos, tmp_path):
    for name in ("red.keras", "saved"):
        output = tmp_path / name
        model = ["--model", red_model.folder() / name]
        status, _, err = run(*model, "--input", photos / "*", "--output", output, "--size", "64")
        assert (status, err) == (0, [])
        assert read_alpha(output / "a.alpha.png").mean() == pytest.approx(255, abs=1)
        assert read_alpha(output / "b.alpha.png").mean() == pytest.approx(0, abs=1)


def test_outputs_below_the_photos_are_no_photos(run, photos):
    options = ["--input", photos / "**.png", "--output", photos / "out"]
    for done in (2, 0):
        status, out, _ = run(*options)
        assert (status, counts(out[0])) == (0, [2, done, 2 - done, 0])
    assert files(photos / "out") == ["a.alpha.png", "deep/c.alpha.png"]


def test_globs_that_overlap_and_photos_that_would_be_written_to_one_file(run, photos, tmp_path):
    Image.new("RGB", (8, 8), (51, 0, 0)).save(photos / "a.webp", lossless=True)
    globs = [photos / "*.png", photos / "**", photos / "a.webp"]
    status, out, _ = run("--input", *globs, "--output", tmp_path / "out")
    assert (status, counts(out[0])) == (1, [4, 2, 0, 2])
    assert files(tmp_path / "out") == ["b.alpha.png", "deep/c.alpha.png", "errors.jsonl"]
    assert set(errors(tmp_path / "out").values()) == {
        f"{photos / 'a.png'} and {photos / 'a.webp'} would both be written to "
        f"{tmp_path / 'out/a.alpha.png'}; --keep-suffix names the files so that they differ."
    }
    status, out, _ = run("--input", *globs, "--output", tmp_path / "out", "--keep-suffix")
    assert (status, counts(out[0])) == (0, [4, 4, 0, 0])
    alpha = read_alpha(tmp_path / "out/a.webp.alpha.png", exact=True)
    assert alpha[0, 0] == pytest.approx(51, abs=1)


def test_a_job_that_cannot_start_leaves_no_folder(run, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    status, _, err = run("--input", tmp_path / "none*.jpg", "--output", tmp_path / "out")
    assert status == 2 and "matches no files" in err[0]
    assert not list(tmp_path.glob("beam-*"))


def test_animations_of_which_one_frame_is_cut_out_are_listed(run, photos, tmp_path):
    frames = [Image.new("RGB", (20, 15), (red, 0, 0)) for red in (250, 240)]
    frames[0].save(photos / "moving.gif", save_all=True, append_images=frames[1:])
    output = tmp_path / "out"
    status, _, err = run("--input", photos, "--output", output)
    assert status == 0
    assert err == [
        f"note: there is a remark on 1 photos, such as that only the first of several frames is "
        f"cut out: {output}/warnings.jsonl"
    ]
    frames[0].save(photos / "scan.tif", save_all=True, append_images=frames[1:])
    for _again in range(2):  # what was made before stays in the list
        run("--input", photos, "--output", output)
        lines = (output / "warnings.jsonl").read_text().splitlines()
        reasons = {Path(each["photo"]).name: each["reason"] for each in map(json.loads, lines)}
        assert reasons == {
            "moving.gif": "holds several frames, only the first is cut out; kmatting video cuts "
            "out all of them",
            "scan.tif": "holds several pages, only the first is cut out",
        }
    assert "errors.jsonl" not in files(output)


@pytest.mark.parametrize("name", ["a [2024]", "what?", "all*", "[!x]"])
def test_wildcards_in_the_names_of_folders(run, photos, tmp_path, name):
    folder = tmp_path / name
    photos.rename(folder)
    (folder / "bad.png").touch()
    for text in (folder, folder / "**.png", folder / "a.png"):
        assert list(list_glob(read_glob(str(text))))
    output = folder / "out"
    status, out, _ = run("--input", folder, "--output", output)
    assert (status, counts(out[0])) == (1, [4, 3, 0, 1])
    assert errors(output) == {str(folder / "bad.png"): "empty file."}
    assert files(output) == ["a.alpha.png", "b.alpha.png", "deep/c.alpha.png", "errors.jsonl"]
    (folder / "bad.png").unlink()
    status, out, _ = run("--input", folder, "--output", output)
    assert (status, counts(out[0])) == (0, [3, 0, 3, 0])
    assert "errors.jsonl" not in files(output)


def test_a_relative_glob_in_a_folder_with_wildcards(run, photos, tmp_path, monkeypatch):
    photos.rename(tmp_path / "[x]")
    monkeypatch.chdir(tmp_path / "[x]")
    assert run("--input", "*.png", "--output", "out")[0] == 0
    assert files(tmp_path / "[x]/out") == ["a.alpha.png"]


def test_what_is_left_out_is_named(run, photos, tmp_path):
    for name in ("x.dng", "y.DNG", "z.txt", "._a.jpg", ".hidden/b.jpg"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).touch()
    Image.new("RGB", (8, 8), "red").save(photos / "d.JPG")
    status, out, err = run("--input", photos, "--output", tmp_path / "out")
    assert (status, counts(out[0])) == (0, [4, 4, 0, 0])
    assert err == ["note: left out 2 .dng, 1 .txt: not photos that can be read"]
    # Named outright, it is a photo that cannot be read.
    assert run("--input", photos / "z.txt", "--output", tmp_path / "out")[0] == 1
    # Suffixes match in any case.
    status, out, _ = run("--input", photos / "*.jpg", "--output", tmp_path / "other")
    assert counts(out[0]) == [2, 2, 0, 0]


def test_a_photo_without_a_matte_does_not_stop_the_job(run, photos, tmp_path, monkeypatch):
    take = Matter.__call__

    def sometimes(self, photo):
        if photo.rgb[0, 0, 0] == 255:
            raise PhotoError("the model returned numbers that are not finite.")
        return take(self, photo)

    monkeypatch.setattr(Matter, "__call__", sometimes)
    status, out, _ = run("--input", photos / "**", "--output", tmp_path / "out")
    assert (status, counts(out[0])) == (1, [3, 2, 0, 1])
    assert "not finite" in errors(tmp_path / "out")[str(photos / "a.png")]


@pytest.mark.parametrize("step", ["read_photo", "make_pictures"])
def test_a_photo_that_meets_a_bug_is_an_internal_error(run, photos, tmp_path, monkeypatch, step):
    work, calls = getattr(beam, step), []

    def once(*arguments, **options):
        calls.append(1)
        if len(calls) == 1:
            raise IndexError("a wrong\nindex")
        return work(*arguments, **options)

    monkeypatch.setattr(beam, step, once)
    status, out, err = run("--input", photos / "**", "--output", tmp_path / "out")
    assert (status, counts(out[0])) == (70, [3, 2, 0, 1])
    assert err[0] == "Traceback (most recent call last):"
    assert any("this is a bug of kmatting" in line for line in err)
    (reason,) = errors(tmp_path / "out").values()
    assert reason == "internal error (IndexError: a wrong index)"


def test_a_bug_in_every_photo_ends_the_job(run, many, tmp_path, monkeypatch):
    def broken(self, photo):
        raise ValueError("a wrong shape")

    monkeypatch.setattr(Matter, "__call__", broken)
    status, out, err = run("--input", many / "**.png", "--output", tmp_path / "out")
    assert (status, out) == (70, [])
    assert "Traceback" in err[0] and any("a wrong shape" in line for line in err)
    assert err[-1].startswith("error: the job broke off after 10 internal errors; ")


def test_a_job_that_breaks_off(run, photos, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("out of order")

    monkeypatch.setattr(beam, "output_path", broken)
    status, _, err = run("--input", photos / "**", "--output", tmp_path / "out")
    assert (status, len(err)) == (3, 1)
    assert err[0].startswith("error: the job broke off: ")
    assert "out of order" in err[0]
    assert files(tmp_path / "out") == []


def test_a_disk_that_is_full(run, photos, tmp_path, monkeypatch):
    def full(sources, destinations):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kmatting.batch.storage.FileSystems.rename", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(str(tmp_path / "out/a.png"), b"data", ".png", str(tmp_path / "out/.partial"))
    assert files(tmp_path) == [f"photos/{name}" for name in files(photos)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "none.tflite"], "none.tflite: no such file"),
        (["--model", "setup.py"], "expected a .tflite, .onnx or .keras file or a SavedModel"),
        (["--model", "none://a/b.tflite"], "none://a/b.tflite"),
        (["--input", "none/*.jpg"], "none/*.jpg: matches no files"),
        (["--input", "{photos}/*.png", "{photos}/*.tif"], "*.tif: matches no files"),
        (["--output", "{photos}/a.png"], "a.png: cannot be written to"),
        (["--output", "{photos}"], "photos: holds the photos"),
        (["--output", "{photos}/.."], "holds the photos"),
        (["--size", "512"], "runs at 48x64 pixels only"),
        (["--workers", "2", "--runner", "FlinkRunner"], "--workers is for the local runner"),
        (["--theads", "2"], "--theads: neither this command nor Beam has this option"),
        (["--direct_num_workers", "2"], "--direct_num_workers: use --workers N instead"),
        (["--num_workers", "two"], "invalid int value: 'two'"),
        (["--runner", "NoRunner"], "Unexpected pipeline runner: NoRunner"),
    ],
)
def test_what_cannot_be_run_as_given(run, photos, tmp_path, options, message):
    given = {"--input": [photos / "*.png"], "--output": [tmp_path / "out"]}
    name, *values = [option.format(photos=photos) for option in options]
    given[name] = values
    before = files(photos)
    arguments = [word for option, words in given.items() for word in (option, *words)]
    status, out, err = run(*arguments)
    err = [line for line in err if not line.startswith(("INFO:", "WARNING:"))]  # Beam's
    assert (status, out, len(err)) == (2, [], 1)
    assert err[0].startswith("error: ")
    assert message in err[0]
    assert files(photos) == before
    assert files(tmp_path / "out") == []


def test_without_beam(run, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    status, _, err = run("--input", photos / "*.png", "--output", tmp_path / "out")
    assert (status, err) == (2, ['error: apache_beam is not installed: pip install -e ".[beam]"'])


def test_help_is_quick():
    code = """
import contextlib, sys
from kmatting.batch.__main__ import main
with contextlib.suppress(SystemExit):
    main(["--help"])
loaded = [name for name in ("apache_beam", "tensorflow", "numba") if name in sys.modules]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("other", ["a.webp", "a.JPG"])
def test_a_file_of_another_photo_is_not_taken_for_that_of_this(run, tmp_path, other):
    folder = tmp_path / "photos"
    folder.mkdir()
    arguments = ["--input", folder / "a.png", "--output", tmp_path / "out"]
    Image.new("RGB", (20, 15), "red").save(folder / other)
    assert run("--input", folder / other, "--output", tmp_path / "out")[0] == 0
    Image.new("RGB", (20, 15), "red").save(folder / "a.png")
    status, out, _ = run(*arguments)
    assert (status, counts(out[0])) == (1, [1, 0, 0, 1])
    (reason,) = errors(tmp_path / "out").values()
    assert reason.startswith(f"{folder / other} and {folder / 'a.png'} would both be written to")
    assert run(*arguments, "--keep-suffix")[0] == 0
    assert run(*arguments, "--keep-suffix")[0] == 0
    (folder / other).unlink()
    status, out, _ = run(*arguments)
    assert (status, counts(out[0])) == (0, [1, 0, 1, 0])


class TestFileSystems:
    """Files that are on no disk, with and without the detour that a rename is."""

    @pytest.fixture
    def memory(self):
        from batch_memory_files import FILES

        FILES.clear()
        yield FILES
        FILES.clear()

    @pytest.mark.parametrize("stores", [("memory",), ()])
    def test_all_is_remote(self, run, photos, memory, stores, monkeypatch):
        monkeypatch.setattr("kmatting.batch.storage._OBJECT_STORES", stores)
        memory["memory://models/red.tflite"] = (red_model.folder() / "red.tflite").read_bytes()
        for name in ("a.png", "deep/c.png"):
            memory[f"memory://bucket/{name}"] = (photos / name).read_bytes()
        memory["memory://bucket/bad.png"] = b""
        before = set(memory)
        options = ["--model", "memory://models/red.tflite", "--input", "memory://bucket/**.png"]
        for done, skipped in ((2, 0), (0, 2)):
            status, out, _ = run(*options, "--output", "memory://mattes/x/")
            assert (status, counts(out[0])) == (1, [3, done, skipped, 1])
        assert set(memory) - before == {
            f"memory://mattes/x/{name}"
            for name in ("a.alpha.png", "deep/c.alpha.png", "errors.jsonl")
        }
        assert read_alpha(memory["memory://mattes/x/deep/c.alpha.png"])[0, 0] == pytest.approx(
            102, abs=1
        )
        assert json.loads(memory["memory://mattes/x/errors.jsonl"]) == {
            "photo": "memory://bucket/bad.png",
            "reason": "empty file.",
        }

    def test_namesakes_in_a_store(self, memory):
        for name in ("a.png", "a.JPG", "a.alpha.png", "ab.png", "a.txt", "deep/a.webp"):
            memory[f"memory://bucket/{name}"] = b""
        assert namesakes("memory://bucket/a.png", (".jpg", ".png", ".webp")) == [
            "memory://bucket/a.JPG"
        ]

    def test_a_model_of_several_files_is_fetched(self, memory, tmp_path):
        for name in ("saved_model.pb", "variables/variables.index"):
            memory[f"memory://models/mine/{name}"] = name.encode()
        memory["memory://models/mine-too/saved_model.pb"] = b"another"
        memory["memory://models/mine/assets/"] = b""
        with local_copy("memory://models/mine") as path:
            assert path.name == "mine"
            assert files(path.parent) == ["mine/saved_model.pb", "mine/variables/variables.index"]
            assert (path / "saved_model.pb").read_bytes() == b"saved_model.pb"
        assert not path.parent.exists()
        with pytest.raises(ValueError, match="no such file"), local_copy("memory://models/none"):
            pass

    def test_a_remote_model_that_is_none(self, run, photos, memory, tmp_path):
        memory["memory://models/bad.tflite"] = b"bad"
        options = ["--input", photos / "*.png", "--output", tmp_path / "out"]
        status, _, err = run("--model", "memory://models/bad.tflite", *options)
        assert (status, len(err)) == (2, 1)
        assert err[0].startswith("error: memory://models/bad.tflite: cannot be loaded as a TFLite")


def test_common_folder():
    def common(*folders):
        return common_folder([Glob(folder, "*") for folder in folders])

    assert common("/photos") == "/photos"
    assert common("/photos/a", "/photos/b/c") == "/photos"
    assert common("/photos/a", "/photos/ab") == "/photos"
    assert common("gs://bucket", "gs://bucket/a") == "gs://bucket"
    assert common("/a", "/b") == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/none/a*/**.jpg", Glob("/none", "a*/**.jpg")),
        ("/none/a.jpg", Glob("/none", name="a.jpg")),
        ("/*.jpg", Glob("", "*.jpg")),
        ("gs://bucket/[ab]*", Glob("gs://bucket", "[ab]*")),
        ("gs://bucket/a/b?.jpg", Glob("gs://bucket/a", "b?.jpg")),
        ("gs://bucket/a.jpg", Glob("gs://bucket", name="a.jpg")),
    ],
)
def test_read_glob(text, expected):
    assert read_glob(text) == expected


def test_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert absolute("a/../b/*.jpg") == str(tmp_path / "b/*.jpg")
    assert absolute("gs://bucket/a/") == "gs://bucket/a"


def test_clear_partial(tmp_path):
    folder = Path(partial_folder(str(tmp_path)))
    clear_partial(str(tmp_path))  # nothing there
    folder.mkdir()
    (folder / "a.png").touch()
    shutil.copytree(folder, folder / "deep")
    (tmp_path / "kept.png").touch()
    clear_partial(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["kept.png"]
