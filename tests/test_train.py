"""Trains tiny networks through the command.

What is killed, makes logical devices or has to end by itself is a process of its own.
"""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml
from PIL import Image
from tiny_train import build_tiny, raise_in_second_step

import kmatting.layers
import kmatting.training.keras_metrics
import kmatting.training.losses
import kmatting.training.optimizer  # noqa: F401  these register what checkpoints hold
from kmatting import models
from kmatting.networks.metadata import read_size
from kmatting.train import main
from kmatting.training import callbacks, devices
from kmatting.training.run_folder import read_state

TESTS = Path(__file__).parent
BASE = {
    "model": {"name": "model1", "encoder_weights": "none"},
    "data": {
        "train": [{"kind": "synthetic", "count": 10}],
        "validation": [{"kind": "synthetic", "count": 5}],
        "size": 32,
    },
    "training": {"epochs": 3, "batch_size": 4, "learning_rate": 0.01, "panel_samples": 2},
}


def command(*arguments):
    return [sys.executable, str(TESTS / "helpers" / "tiny_train.py"), *map(str, arguments)]


def run(*arguments, **variables):
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent), **variables}
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, env=environment, timeout=300
    )


@pytest.fixture
def run_here(monkeypatch, capsys):
    """Returns a function that runs the command in this process: its status and its errors."""
    monkeypatch.setattr(models, "build_model", build_tiny)

    def run_here(*arguments):
        status = main([*map(str, arguments)])
        return status, capsys.readouterr().err

    return run_here


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(BASE))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A complete run of three epochs; tests must not change it."""
    folder = tmp_path_factory.mktemp("finished")
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(BASE))
    result = run("--config", path, "--output", folder / "run")
    assert result.returncode == 0, result.stderr
    return folder / "run"


def log_of(run_folder):
    with (run_folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights_of(checkpoint):
    """Reads all variables of a checkpoint, those of the optimizer too."""
    model = keras.saving.load_model(checkpoint)
    return [np.asarray(value) for value in (*model.weights, *model.optimizer.variables)]


def assert_same_weights(one, other, atol):
    for left, right in zip(weights_of(one), weights_of(other), strict=True):
        np.testing.assert_allclose(left, right, atol=atol)


def test_an_epoch_is_reported_in_one_line(capsys, monkeypatch):
    """With the figure that chooses the best one; in a pipe also within the epoch."""
    report = callbacks.Report(epochs=9, steps=100, best=0.05)
    for epoch, mad in ((3, 0.06), (4, 0.04), (5, 0.045)):
        report.on_epoch_begin(epoch)
        monkeypatch.setattr(callbacks, "_SECONDS_PER_LINE", 0 if epoch == 5 else 60)
        report.on_train_batch_end(41, {"loss": 0.5})
        report.on_epoch_end(
            epoch, {"loss": 0.4, "val_loss": 0.3, "val_mad": mad, "images_per_second": 7.12}
        )
    report.on_epoch_begin(6)
    report.on_epoch_end(6, {"loss": 0.2})
    assert capsys.readouterr().out.splitlines() == [
        "Epoch 4/9: loss 0.4000, validation loss 0.3000, validation MAD 0.0600, "
        "7.1 images per second",
        "Epoch 5/9: loss 0.4000, validation loss 0.3000, validation MAD 0.0400 (best), "
        "7.1 images per second",
        "Epoch 6/9: step 42 of 100, loss 0.5000",
        "Epoch 6/9: loss 0.4000, validation loss 0.3000, validation MAD 0.0450, "
        "7.1 images per second",
        "Epoch 7/9: loss 0.2000",
    ]


def test_the_rate_leaves_out_the_step_that_traces_the_graph(monkeypatch):
    clock = iter([0.0, 100.0, 101.0, 102.0])
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: next(clock))
    throughput, logs = callbacks.Throughput(batch_size=8), {}
    throughput.on_epoch_begin(0)
    for batch in range(3):
        throughput.on_train_batch_end(batch)
    throughput.on_epoch_end(0, logs)
    assert logs == {"images_per_second": 8}


class TestAWholeRun:
    def test_says_what_was_run(self, finished):
        saved = yaml.safe_load((finished / "config.yaml").read_text())
        assert saved["training"]["epochs"] == 3
        assert saved["training"]["beta_1"] == 0.5  # defaults are written out
        described = json.loads((finished / "run.json").read_text())
        assert {"kmatting", "tensorflow", "keras", "python", "seed"} <= set(described)

    def test_logs_each_epoch(self, finished):
        rows = log_of(finished)
        assert [row["epoch"] for row in rows] == ["1", "2", "3"]
        names = {"loss", "l1_loss", "ssim_loss", "sad", "mse", "mad"}
        names |= {f"val_{name}" for name in names} | {"learning_rate", "images_per_second"}
        assert names <= set(rows[0])
        for row in rows:
            figures = {name: float(value) for name, value in row.items()}
            assert figures["loss"] == pytest.approx(
                figures["l1_loss"] + figures["ssim_loss"], rel=1e-4
            )
            assert figures["val_loss"] == pytest.approx(
                figures["val_l1_loss"] + figures["val_ssim_loss"], rel=1e-4
            )
            assert figures["val_sad"] == pytest.approx(figures["val_mad"] * 32 * 32 / 1000)

    def test_learns(self, finished):
        rows = log_of(finished)
        assert float(rows[-1]["loss"]) < float(rows[0]["loss"])

    def test_keeps_last_and_best(self, finished):
        state = read_state(finished / "last.keras")
        assert state.epoch == 3
        assert state.best == pytest.approx(min(float(row["val_mad"]) for row in log_of(finished)))
        assert (finished / "best.keras").is_file()
        assert read_size(finished / "last.keras") == read_size(finished / "best.keras") == (32, 32)
        assert not list(finished.glob("*partial*"))

    def test_writes_panels(self, finished):
        names = sorted(path.name for path in (finished / "panels").iterdir())
        assert names == [f"epoch_{epoch:04d}.png" for epoch in (1, 2, 3)]
        assert np.asarray(Image.open(finished / "panel.png")).std() > 10

    def test_writes_tensorboard(self, finished):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        tags = {}
        for part in ("train", "validation", "panel"):
            all_of_each = {"tensors": 0, "scalars": 0, "images": 0}
            events = EventAccumulator(str(finished / "tensorboard" / part), all_of_each)
            events.Reload()
            tags[part] = [*events.Tags()["scalars"], *events.Tags()["tensors"]]
            if part == "panel":
                panels = events.Images("panel")
        figures = {
            f"epoch_{name}" for name in ("loss", "l1_loss", "ssim_loss", "sad", "mse", "mad")
        }
        assert figures <= set(tags["train"])
        assert figures <= set(tags["validation"])
        assert {"epoch_learning_rate", "epoch_images_per_second", "keras"} <= set(tags["train"])
        assert [panel.step for panel in panels] == [0, 1, 2]
        encoded = panels[-1].encoded_image_string
        assert np.asarray(Image.open(io.BytesIO(encoded))).std() > 10

    def test_is_not_overwritten(self, finished, run_here):
        before = (finished / "last.keras").read_bytes()
        status, errors = run_here("--config", finished.parent / "config.yaml", "--output", finished)
        assert status == 2
        assert "holds a run already" in errors
        assert (finished / "last.keras").read_bytes() == before


class TestResume:
    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
    def test_killed_run_ends_as_the_uninterrupted_one(
        self, finished, config, tmp_path, run_here, how
    ):
        folder = tmp_path / "run"
        environment = {**os.environ, "PYTHONPATH": str(TESTS.parent), "TINY_WAITS": "1"}
        process = subprocess.Popen(
            command("--config", config, "--output", folder),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # A shell's background jobs inherit that SIGINT is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        deadline = time.monotonic() + 300
        while not (folder / "last.keras").is_file():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(how)
        _, errors = process.communicate(timeout=60)
        epochs = read_state(folder / "last.keras").epoch
        assert epochs < 3, "the run ended before it was killed"
        if how is signal.SIGINT:
            assert process.returncode == 130
            assert "Traceback" not in errors
            assert f"kmatting train --resume --output {folder}" in errors
        (folder / ".last.0123.partial.keras").write_bytes(b"half a checkpoint")
        status, errors = run_here("--resume", "--output", folder)
        assert status == 0, errors
        assert not list(folder.glob(".*"))
        assert_same_weights(folder / "last.keras", finished / "last.keras", atol=1e-6)
        assert [row["epoch"] for row in log_of(folder)] == ["1", "2", "3"]

    def test_a_finished_run_can_be_prolonged(self, finished, tmp_path, run_here):
        folder = shutil.copytree(finished, tmp_path / "run")
        status, errors = run_here("--resume", "--output", folder, "--set", "training.epochs=4")
        assert status == 0, errors
        assert read_state(folder / "last.keras").epoch == 4
        assert len(log_of(folder)) == 4

    def test_another_config_is_refused(self, finished, config, run_here):
        config.write_text(yaml.safe_dump({**BASE, "seed": 5}))
        status, errors = run_here("--config", config, "--resume", "--output", finished)
        assert status == 2
        assert "differs from the config of the run" in errors

    def test_nothing_to_resume(self, tmp_path, run_here):
        status, errors = run_here("--resume", "--output", tmp_path / "none")
        assert status == 2
        assert "holds no run to resume" in errors

    def test_damaged_checkpoint_is_named(self, finished, tmp_path, run_here):
        folder = shutil.copytree(finished, tmp_path / "run")
        (folder / "last.keras").write_bytes(b"PK")
        status, errors = run_here("--resume", "--output", folder, "--set", "training.epochs=4")
        assert status == 2
        assert "last.keras: not a checkpoint" in errors
        assert "Traceback" not in errors


def test_two_replicas_agree_with_one(finished, config, tmp_path):
    """10 and 5 samples in batches of 4: neither fills its last batch."""
    folder = tmp_path / "run"
    result = run("--config", config, "--output", folder, "--set", "training.cpu_replicas=2")
    assert result.returncode == 0, result.stderr
    assert "2 replicas" in result.stdout
    for one, two in zip(log_of(finished), log_of(folder), strict=True):
        for name in ("loss", "val_loss", "val_mad", "val_sad"):
            assert np.isfinite(float(two[name]))
            # Batch norm sees half of the batch on each replica, so the runs drift apart slowly.
            assert float(two[name]) == pytest.approx(float(one[name]), rel=0.05)
    for name in ("val_loss", "val_mad"):
        first = [float(log_of(which)[0][name]) for which in (finished, folder)]
        assert first[1] == pytest.approx(first[0], rel=0.02)


def test_frozen_encoder_stays_as_it_was(config, tmp_path, run_here):
    folder = tmp_path / "run"
    frozen = ["--set", "model.freeze_encoder_epochs=2"]
    status, errors = run_here("--config", config, "--output", folder, *frozen, "training.epochs=1")
    assert status == 0, errors
    first = keras.saving.load_model(folder / "last.keras", compile=False)
    status, errors = run_here("--resume", "--output", folder, "--set", "training.epochs=2")
    assert status == 0, errors
    second = keras.saving.load_model(folder / "last.keras", compile=False)
    status, errors = run_here("--resume", "--output", folder, "--set", "training.epochs=3")
    assert status == 0, errors
    third = keras.saving.load_model(folder / "last.keras")

    def change(name, one, other):
        pairs = zip(one.get_layer(name).weights, other.get_layer(name).weights, strict=True)
        return max(float(np.abs(np.subtract(*pair)).max()) for pair in pairs)

    assert change("conv1_conv", first, second) == 0
    assert change("conv1_bn", first, second) == 0
    assert change("alpha", first, second) > 0
    assert change("conv1_conv", second, third) > 0
    # Adam counts anew from where the encoder thaws, after two of three epochs.
    states = {each.name: each.numpy() for each in third.optimizer.variables}
    assert states["begin"] == states["iteration"] * 2 // 3 > 0


def test_frozen_batch_norm_stays_as_it_was(config, tmp_path, run_here):
    folder = tmp_path / "run"
    options = ["model.freeze_batch_norm=true", "model.freeze_encoder_epochs=1", "training.epochs=2"]
    status, errors = run_here("--config", config, "--output", folder, "--set", *options)
    assert status == 0, errors
    model = keras.saving.load_model(folder / "last.keras", compile=False)
    for weights, value in zip(model.get_layer("conv1_bn").get_weights(), (1, 0, 0, 1), strict=True):
        assert (weights == value).all()  # as it was made
    assert np.abs(model.get_layer("alpha").get_weights()[1]).max() > 0


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_options_of_training(config, tmp_path, run_here, float32_afterwards, precision):
    options = [
        f"training.precision={precision}",
        "training.clip_norm=1.0",
        "training.schedule.kind=cosine",
        "training.schedule.warmup_epochs=1",
        "training.epochs=2",
        "data.validation=0",
    ]
    status, errors = run_here("--config", config, "--output", tmp_path / "run", "--set", *options)
    assert status == 0, errors
    rows = log_of(tmp_path / "run")
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates[0] == pytest.approx(0.01, rel=0.01)  # warmed up
    assert rates[1] == pytest.approx(0.0001, rel=0.05)  # fallen to one hundredth
    assert "val_loss" not in rows[0]
    resume = "--resume", "--output", tmp_path / "run", "--set", "training.epochs=3"
    status, errors = run_here(*resume)
    assert status == 0, errors


def test_nan_loss_stops_the_run_and_keeps_the_last_epoch(finished, tmp_path, run_here):
    folder = shutil.copytree(finished, tmp_path / "run")
    before = (folder / "last.keras").read_bytes()
    overflow = ["training.loss.l1=1e39", "training.epochs=5"]  # more than float32 holds
    status, errors = run_here("--resume", "--output", folder, "--set", *overflow)
    assert status == 2
    assert "The loss became inf in epoch 4, step 1" in errors
    assert "Traceback" not in errors
    assert (folder / "last.keras").read_bytes() == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.devices=[GPU:7]", "training.devices: GPU:7 not found; this machine has CPU:0"),
        ("training.cpu_replicas=3", "expected a multiple of the 3 replicas, received 4"),
        ("training={cpu_replicas: 2, jit: true}", "training.jit: XLA cannot compile a step over 2"),
        ("training.epoch=3", "did you mean `epochs`?"),
    ],
)
def test_wrong_settings_end_in_one_message(
    config, tmp_path, run_here, monkeypatch, override, message
):
    on_this_machine = devices._on_this_machine

    def with_replicas(training):
        """Only a new process can make logical devices."""
        several = training.cpu_replicas > 1
        return (
            devices.PlainStrategy(training.cpu_replicas) if several else on_this_machine(training)
        )

    monkeypatch.setattr(devices, "_on_this_machine", with_replicas)
    status, errors = run_here("--config", config, "--output", tmp_path / "run", "--set", override)
    assert status == 2
    assert message in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "run").exists()


def test_an_unexpected_error_ends_the_process(config, tmp_path):
    """An exception that keeps a tf.data iterator alive makes the process wait forever."""
    result = run("--config", config, "--output", tmp_path / "run", TINY_RAISES="RuntimeError")
    assert result.returncode == 70
    assert "Traceback" in result.stderr
    assert "RuntimeError: " in result.stderr


def test_too_little_memory_of_the_device_ends_in_one_message(
    config, tmp_path, run_here, monkeypatch
):
    monkeypatch.setenv("TINY_RAISES", "ResourceExhaustedError")
    monkeypatch.setattr(callbacks.Throughput, "on_train_batch_end", raise_in_second_step)
    status, errors = run_here("--config", config, "--output", tmp_path / "run")
    assert status == 2
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert re.search(r"training.batch_size=\d+ at data.size \d+x\d+ does not fit", line)
    assert "(too large). Reduce one of them" in line


def test_bad_data_ends_in_one_message(config, tmp_path, run_here):
    for folder in ("photos", "mattes"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "photos" / "alone.png")
    (tmp_path / "photos" / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    Image.new("L", (40, 40)).save(tmp_path / "mattes" / "torn.png")
    source = {
        "kind": "pairs",
        "images": str(tmp_path / "photos"),
        "alphas": str(tmp_path / "mattes"),
    }
    config.write_text(yaml.safe_dump({**BASE, "data": {"train": [source], "size": 32}}))
    status, errors = run_here("--config", config, "--output", tmp_path / "run")
    assert status == 2
    assert "alone.png" in errors
    assert "torn.jpg" in errors
    assert "Traceback" not in errors


def test_help_is_quick_and_shows_examples():
    code = "import sys, kmatting.train as t\ntry: t.main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert 'tensorflow' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "configs/quickstart.yaml" in result.stdout
