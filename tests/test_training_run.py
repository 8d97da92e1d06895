"""Trains a tiny network in this process: settings, checkpoints, resuming, damaged files."""

import csv
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_train import build_tiny

from kmatting import models
from kmatting.config import Config, TrainingConfig, save_config
from kmatting.errors import CheckpointError, ConfigError
from kmatting.networks.metadata import METADATA
from kmatting.train import main, train
from kmatting.training import network
from kmatting.training.callbacks import Checkpoint, CSVLog
from kmatting.training.compiling import compile_model
from kmatting.training.ending import ends_data_threads
from kmatting.training.losses import MattingLoss
from kmatting.training.network import make_network
from kmatting.training.optimizer import FusedAdam, make_optimizer
from kmatting.training.run_folder import find_checkpoint, lock, open_run, read_state, write_state

DATA = {
    "train": [{"kind": "synthetic", "count": 8}],
    "validation": [{"kind": "synthetic", "count": 4}],
    "size": 32,
}


def config_of(model=(), **training):
    training = {"epochs": 2, "batch_size": 4, "learning_rate": 0.01, "panel_samples": 1, **training}
    model = {"encoder_weights": "none", **dict(model)}
    return Config.model_validate({"model": model, "data": DATA, "training": training})


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(models, "build_model", build_tiny)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A complete run of two epochs with averaged weights; tests must not change it."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "build_model", build_tiny)
        train(config_of(average=0.5), folder)
    return folder


def weights_of(path):
    with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as file:
        arrays = {}
        h5py.File(file).visititems(
            lambda name, item: arrays.update(
                {name: np.array(item)} if isinstance(item, h5py.Dataset) else {}
            )
        )
    return arrays


def averages_of(optimizer):
    return [variable for variable in optimizer.variables if variable.name.endswith("average")]


def rows_of(folder):
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class TestCheckpoints:
    def test_a_resumed_run_ends_as_an_uninterrupted_one(self, finished, tmp_path):
        train(config_of(epochs=1, average=0.5), tmp_path)
        train(config_of(epochs=2, average=0.5), tmp_path, resume=True)
        assert [row["epoch"] for row in rows_of(tmp_path)] == ["1", "2"]
        assert read_state(tmp_path / "last.keras").epoch == 2
        expected = weights_of(finished / "last.keras")
        for name, array in weights_of(tmp_path / "last.keras").items():
            np.testing.assert_allclose(array, expected[name], atol=1e-6, err_msg=name)

    def test_averaged_weights_are_validated_and_saved_as_the_best(self, finished):
        last = keras.saving.load_model(finished / "last.keras")
        best = keras.saving.load_model(finished / "best.keras")
        averages = averages_of(last.optimizer)
        for average, saved, trained in zip(
            averages, best.trainable_variables, last.trainable_variables, strict=True
        ):
            np.testing.assert_allclose(saved, average, atol=1e-6)
            assert np.abs(np.subtract(saved, trained)).max() > 1e-5

        from kmatting.data.pipeline import build
        from kmatting.training.feeding import to_floats
        from kmatting.training.keras_metrics import MAD

        batch = to_floats(next(iter(build(config_of().data, 0, 4).validation())))
        metric = MAD()
        metric.update_state(batch[1], best(batch[0], training=False))
        assert float(rows_of(finished)[-1]["val_mad"]) == pytest.approx(float(metric.result()))

    def test_the_average_follows_its_definition(self):
        config = TrainingConfig(average=0.9, learning_rate=0.1)
        variable = keras.Variable([1.0, 2.0])
        optimizer = make_optimizer(config, 1)
        optimizer.build([variable])
        path = []
        for _ in range(3):
            optimizer.apply([keras.ops.ones(2)], [variable])
            path.append(variable.numpy())
        expected = 0.9 * (0.9 * path[0] + 0.1 * path[1]) + 0.1 * path[2]
        (average,) = averages_of(optimizer)
        np.testing.assert_allclose(average, expected, rtol=1e-6)
        optimizer.finalize_variable_values([variable])
        np.testing.assert_array_equal(variable, path[2])

    @pytest.fixture
    def checkpoint(self, tmp_path):
        model = build_tiny(config_of().model)
        config = TrainingConfig()
        compile_model(model, make_optimizer(config, 1), config)
        callback = Checkpoint(tmp_path, (32, 48))
        callback.set_model(model)
        return callback

    def test_best_is_the_epoch_with_the_lowest_validation_mad(self, checkpoint):
        layer = checkpoint.model.get_layer("conv1_bn")
        for epoch, mad in enumerate([0.5, 0.3, 0.4, float("nan")]):
            layer.beta.assign(np.full(4, epoch))
            checkpoint.on_epoch_end(epoch, {"val_mad": mad})
        best, last = checkpoint.folder / "best.keras", checkpoint.folder / "last.keras"
        for path, epoch in ((best, 1), (last, 3)):
            model = keras.saving.load_model(path, compile=False)
            np.testing.assert_array_equal(model.get_layer("conv1_bn").beta, np.full(4, epoch))
            assert read_state(path).epoch == epoch + 1
            assert read_state(path).best == 0.3
            assert read_state(path).size == (32, 48)

    def test_a_resumed_run_remembers_the_best(self, checkpoint):
        checkpoint.on_epoch_end(0, {"val_mad": 0.3})
        before = (checkpoint.folder / "best.keras").read_bytes()
        best = read_state(checkpoint.folder / "last.keras").best
        resumed = Checkpoint(checkpoint.folder, (32, 48), best)
        resumed.set_model(checkpoint.model)
        resumed.on_epoch_end(1, {"val_mad": 0.4})
        assert (checkpoint.folder / "best.keras").read_bytes() == before

    def test_without_validation_the_last_is_the_best(self, checkpoint):
        checkpoint.on_epoch_end(0, {})
        checkpoint.on_epoch_end(1, {})
        assert read_state(checkpoint.folder / "best.keras").epoch == 2

    def test_only_last_holds_the_optimizer(self, finished):
        parts = {}
        for name in ("last", "best"):
            parts[name] = {key.split("/")[0] for key in weights_of(finished / f"{name}.keras")}
        assert "optimizer" in parts["last"]
        assert "optimizer" not in parts["best"]


class TestStart:
    def test_resuming_needs_no_start_weights(self, tmp_path, monkeypatch):
        asked = []

        def build(config):
            asked.append((config.weights, config.encoder_weights))
            return build_tiny(config)

        monkeypatch.setattr(models, "build_model", build)
        model = {"weights": tmp_path / "start.keras", "encoder_weights": "imagenet"}
        train(config_of(model, epochs=1), tmp_path / "run")
        train(config_of(model, epochs=2), tmp_path / "run", resume=True)
        assert asked == [(tmp_path / "start.keras", "imagenet"), (None, "none")]

    def test_a_start_that_failed_does_not_block_the_next(self, tmp_path):
        path = tmp_path / "config.yaml"
        save_config(config_of(), path)
        folder = tmp_path / "run"
        with lock(folder):
            save_config(config_of(epochs=9), folder / "config.yaml")
        for resume in (False, True):
            config, _ = open_run(path, ["training.epochs=1"], folder, resume)
            assert config.training.epochs == 1
        train(config, folder)
        with pytest.raises(ConfigError, match="holds a run already"):
            open_run(path, [], folder, False)
        with pytest.raises(ConfigError, match="differs from the config of the run"):
            open_run(path, [], folder, True)

    def test_a_run_that_came_first_is_not_overwritten(self, finished):
        before = (finished / "last.keras").read_bytes()
        with pytest.raises(ConfigError, match="holds a run already"):
            train(config_of(), finished)
        assert (finished / "last.keras").read_bytes() == before

    def test_a_folder_in_use_is_refused(self, tmp_path, capsys):
        path = tmp_path / "config.yaml"
        save_config(config_of(epochs=1), path)
        arguments = ["--config", str(path), "--output", str(tmp_path / "run")]
        with lock(tmp_path / "run"):
            assert main(arguments) == 2
        assert "another process is training in this folder" in capsys.readouterr().err
        assert find_checkpoint(tmp_path / "run", resume=False) is None
        assert main(arguments) == 0

    def test_a_killed_process_leaves_no_lock(self, tmp_path):
        code = (
            "import sys, time, pathlib\nfrom kmatting.training.run_folder import lock\n"
            "with lock(pathlib.Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, tmp_path],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        ) as process:
            assert process.stdout.readline() == b"locked\n"
            with pytest.raises(ConfigError), lock(tmp_path):
                pass
            process.send_signal(signal.SIGKILL)
        with lock(tmp_path):
            pass


class TestDamage:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("[1, 2]", "expected an object"),
            ("{", "damaged kmatting.json"),
            ("{}", "not a checkpoint of a run"),
            ('{"epoch": "three"}', "epoch: Input should be a valid integer"),
            ('{"epoch": true}', "epoch: Input should be a valid integer"),
            ('{"epoch": -1}', "epoch: Input should be greater than or equal to 0"),
            ('{"epoch": 1, "best": NaN}', "best: Input should be a finite number"),
            ('{"epoch": 1, "size": [1, 2, 3]}', "size: "),
            ('{"epoch": 1, "extra": 0}', "extra: Extra inputs are not permitted"),
            ('{"epoch": 1}\0', "damaged kmatting.json"),
            (b"\xff", "damaged kmatting.json"),
        ],
    )
    def test_a_damaged_state_is_named(self, tmp_path, content, message):
        path = tmp_path / "last.keras"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(METADATA, content)
        with pytest.raises(CheckpointError, match=r"last\.keras: ") as caught:
            read_state(path)
        assert message in str(caught.value)

    def test_two_states_are_none(self, tmp_path):
        with pytest.warns(UserWarning, match="Duplicate name"):
            for epoch in (1, 2):
                write_state(tmp_path / "last.keras", epoch, 0.5, (32, 32))
        with pytest.raises(
            CheckpointError, match=r"damaged kmatting\.json \(it is there 2 times\)"
        ):
            read_state(tmp_path / "last.keras")

    def test_a_checkpoint_of_another_network_is_named_in_a_line(self, tmp_path):
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(64)])
        model.save(tmp_path / "last.keras")
        strategy = tf.distribute.get_strategy()
        with pytest.raises(CheckpointError, match="network or optimizer: layer conv1_") as caught:
            make_network(config_of(), strategy, 1, tmp_path / "last.keras")
        assert len(str(caught.value)) < 300

    def test_the_state_of_another_optimizer_is_not_dropped_in_silence(self, finished):
        strategy = tf.distribute.get_strategy()
        make_network(config_of(average=0.5), strategy, 1, finished / "last.keras")
        with pytest.raises(CheckpointError, match="Skipping variable loading for optimizer"):
            make_network(config_of(), strategy, 1, finished / "last.keras")

    @pytest.mark.parametrize("content", [b"\xff\xfe", b"loss\n1\n", b"epoch\nmany\n", b"\0"])
    def test_a_damaged_log_is_named(self, tmp_path, content):
        (tmp_path / "log.csv").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"log\.csv: not the log of a run"):
            CSVLog(tmp_path / "log.csv", 1)


class TestSettingsArrive:
    def test_loss_and_jit(self):
        model = build_tiny(config_of().model)
        config = TrainingConfig(loss={"l1": 2, "cross_entropy": 3, "iou": 4}, jit=True)
        compile_model(model, FusedAdam(), config)
        assert isinstance(model.loss, MattingLoss)
        assert model.loss.weights == {"l1": 2, "ssim": 1, "cross_entropy": 3, "iou": 4}
        assert model.jit_compile is True
        compile_model(model, FusedAdam(), TrainingConfig())
        assert model.jit_compile is False

    def test_optimizer_of_the_network(self):
        config = config_of(beta_1=0.25, clip_norm=0.125, average=0.75, precision="float32")
        optimizer = make_network(config, tf.distribute.get_strategy(), 1).optimizer
        assert (optimizer.beta_1, optimizer.clip_norm) == (0.25, 0.125)
        assert (optimizer.use_ema, optimizer.ema_momentum) == (True, 0.75)
        assert not make_optimizer(TrainingConfig(), 1).use_ema

    @pytest.mark.parametrize("share", [1.0, 0.1])
    def test_the_encoder_learns_at_its_share_of_the_rate(self, share):
        model = make_network(config_of(encoder_rate=share), tf.distribute.get_strategy(), 1)
        before = {weight.path: weight.numpy() for weight in model.trainable_variables}
        batch = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
        model.fit(batch, batch[..., :1], batch_size=2, verbose=0)
        encoder = {id(v) for layer in models.encoder_layers(model) for v in layer.weights}
        # Adam's first step is the learning rate, wherever the gradient is not zero.
        steps = {False: 0.0, True: 0.0}
        for weight in model.trainable_variables:
            step = np.abs(weight.numpy() - before[weight.path]).max()
            steps[id(weight) in encoder] = max(steps[id(weight) in encoder], step)
        assert steps[False] == pytest.approx(0.01, rel=0.01)
        assert steps[True] == pytest.approx(0.01 * share, rel=0.01)

    @pytest.mark.parametrize("recompute", [False, True])
    def test_recompute(self, monkeypatch, recompute):
        recomputed = []
        monkeypatch.setattr(network.models, "recompute_dense_blocks", recomputed.append)
        model = make_network(config_of(recompute=recompute), tf.distribute.get_strategy(), 1)
        assert recomputed == ([model] if recompute else [])

    def test_every_term_in_use_is_logged(self, tmp_path):
        train(config_of(epochs=1, loss={"cross_entropy": 0.5, "iou": 0.25}), tmp_path)
        (row,) = rows_of(tmp_path)
        for part in ("", "val_"):
            weights = {"l1": 1, "ssim": 1, "cross_entropy": 0.5, "iou": 0.25}
            terms = {name: float(row[f"{part}{name}_loss"]) for name in weights}
            expected = sum(weight * terms[name] for name, weight in weights.items())
            assert float(row[f"{part}loss"]) == pytest.approx(expected, rel=1e-4)


def test_an_error_keeps_no_iterator_alive():
    class Iterator:
        alive = 0

        def __init__(self):
            Iterator.alive += 1
            self.cycle = self

        def __del__(self):
            Iterator.alive -= 1

    def raise_error():
        raise RuntimeError("a fault")

    def keras_fit():
        iterator = Iterator()
        raise_error()
        return iterator

    @ends_data_threads
    def fit():
        try:
            keras_fit()
        except RuntimeError as error:  # Keras leaves its own functions out of tracebacks
            raise error.with_traceback(error.__traceback__.tb_next.tb_next) from None

    with pytest.raises(RuntimeError) as caught:
        fit()
    assert Iterator.alive == 0
    names = [frame.name for frame in caught.traceback]
    assert names[-2:] == ["fit", "raise_error"]
