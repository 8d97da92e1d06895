"""Training on several machines: real processes that talk over the loopback interface."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml
from tiny_train import build_tiny

import kmatting.layers
import kmatting.training.keras_metrics
import kmatting.training.losses
import kmatting.training.optimizer  # noqa: F401  these register what checkpoints hold
from kmatting import models
from kmatting.config import Config, TrainingConfig
from kmatting.data.pipeline import build
from kmatting.errors import ConfigError
from kmatting.terminal import counted
from kmatting.train import train
from kmatting.training.devices import Cluster, make_strategy, read_cluster
from kmatting.training.run_folder import read_state

TESTS = Path(__file__).parent
TRAIN = TESTS / "helpers" / "tiny_train.py"
CONFIG = {
    "model": {"name": "model1", "encoder_weights": "none"},
    "data": {
        "train": [{"kind": "synthetic", "count": 10}],
        "validation": [{"kind": "synthetic", "count": 5}],
        "size": 32,
    },
    "training": {"epochs": 4, "batch_size": 4, "learning_rate": 0.01, "panel_samples": 1},
}
# Sums over two workers and over two devices of one process are the same numbers, in another order.
TOLERANCE = 1e-6


def start(index, ports, *arguments):
    """Starts one of two workers."""
    cluster = {"worker": [f"localhost:{port}" for port in ports]}
    variables = {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task(index)})}
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent), **variables}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def task(index):
    return {"type": "worker", "index": index}


def end(processes):
    """Waits for processes; returns (exit code, output, errors) of each."""
    try:
        texts = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *text) for process, text in zip(processes, texts, strict=True)]


@pytest.fixture
def ports():
    """Two free ports."""
    with socket.socket() as one, socket.socket() as other:
        for free in (one, other):
            free.bind(("localhost", 0))
        return one.getsockname()[1], other.getsockname()[1]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return path


@pytest.fixture(scope="module")
def one_process(config):
    """The run of two replicas in one process; not to be changed by tests."""
    return train_alone(config, config.parent / "one_process", "training.cpu_replicas=2")


def train_alone(config, folder, *settings):
    result = subprocess.run(
        [sys.executable, TRAIN, "--config", config, "--output", folder, "--set", *settings],
        env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    return folder


def variables_of(folder):
    """Reads all variables of a checkpoint, those of the optimizer and of batch norm too."""
    model = keras.saving.load_model(folder / "last.keras")
    return {
        variable.path: np.asarray(variable)
        for variable in (*model.variables, *model.optimizer.variables)
    }


def assert_same_variables(one, other):
    found, expected = variables_of(one), variables_of(other)
    assert any("moving_variance" in name for name in found)
    for (name, value), right in zip(found.items(), expected.values(), strict=True):
        np.testing.assert_allclose(value, right, atol=TOLERANCE, err_msg=name)


def figures_of(folder):
    rows = (folder / "log.csv").read_text().splitlines()
    names = rows[0].split(",")
    keep = [names.index(name) for name in ("epoch", "loss", "sad", "val_loss", "val_mad")]
    return [[float(row.split(",")[column]) for column in keep] for row in rows[1:]]


def test_two_workers_end_as_two_replicas_of_one_process(one_process, config, ports, tmp_path):
    """10 and 5 samples in batches of 4: neither fills its last batch."""
    folders = tmp_path / "chief", tmp_path / "other"
    workers = [
        start(index, ports, TRAIN, "--config", config, "--output", folders[index])
        for index in (0, 1)
    ]
    (code, output, errors), (other_code, other_output, other_errors) = end(workers)
    assert (code, other_code) == (0, 0), errors + other_errors
    assert f"localhost:{ports[1]} waits for localhost:{ports[0]}" in other_output
    assert "10 samples to train on, 5 to validate on, 2 replicas" in output
    assert "Epoch 4/4" in output
    assert "Epoch" not in other_output
    assert not folders[1].exists(), "only the chief writes"
    assert_same_variables(folders[0], one_process)
    np.testing.assert_allclose(figures_of(folders[0]), figures_of(one_process), rtol=1e-5)


def test_after_a_kill_all_go_on_from_the_last_whole_epoch(one_process, config, ports, tmp_path):
    folder = tmp_path / "run"
    workers = [
        start(index, ports, TRAIN, "--config", config, "--output", folder) for index in (0, 1)
    ]
    try:
        deadline = time.monotonic() + 240
        while not (folder / "last.keras").is_file():
            assert time.monotonic() < deadline
            assert all(worker.poll() is None for worker in workers)
            time.sleep(0.01)
    finally:
        workers[1].send_signal(signal.SIGKILL)
    (code, _, errors), _ = end(workers)
    epochs = read_state(folder / "last.keras").epoch
    assert epochs < 4, "the run ended before the kill"
    assert code == 2
    assert "another worker ended or cannot be reached" in errors
    assert f"{counted(epochs, 'epoch')} complete; resume with" in errors
    assert "Traceback" not in errors

    workers = [start(index, ports, TRAIN, "--resume", "--output", folder) for index in (0, 1)]
    (code, output, errors), (other_code, _, other_errors) = end(workers)
    assert (code, other_code) == (0, 0), errors + other_errors
    assert f"Epoch {epochs}/4" not in output
    assert f"Epoch {epochs + 1}/4" in output
    assert_same_variables(folder, one_process)
    np.testing.assert_allclose(figures_of(folder), figures_of(one_process), rtol=1e-5)


def test_workers_that_differ_say_so_and_end(config, ports, tmp_path):
    workers = [
        start(index, ports, TRAIN, "--config", config, "--output", tmp_path / "run", *settings)
        for index, settings in enumerate([(), ("--set", "seed=5")])
    ]
    for code, _, errors in end(workers):
        assert code == 2
        assert "error: The workers do not agree on: config, data." in errors
        assert "Traceback" not in errors
    assert not (tmp_path / "run").exists()


def test_keras_still_needs_help(ports):
    """When this fails, Keras trains without help: remove `let_keras_fit` from replicas.py."""
    script = TESTS / "helpers" / "multiworker_keras.py"
    for code, output, errors in end([start(index, ports, script) for index in (0, 1)]):
        assert code == 0, errors
        outcomes = json.loads(output.splitlines()[-1])
        assert "PerReplica" in outcomes["none"]
        assert "PerReplica" in outcomes["figures"]
        assert "Invalid reduction dimension 0 for input with 0 dimensions" in outcomes["build"]
        assert outcomes["both"] == 1.0


def test_moving_averages_are_those_of_all_replicas(config, tmp_path, monkeypatch):
    """After one step the mean that two halves of the batch give is that of the whole batch."""
    settings = ["data.train.0.count=4", "training.epochs=1", "data.validation=0"]
    monkeypatch.setattr(models, "build_model", build_tiny)
    one = train(config, tmp_path / "one", set=settings)
    two = train_alone(config, tmp_path / "two", *settings, "training.cpu_replicas=2")
    name = "conv1_bn/moving_mean"
    expected = variables_of(one)[name]
    assert np.abs(expected).max() > 1e-4
    # Sums of float32 in another order differ by 1e-6; half of the batch alone, by 1e-2.
    np.testing.assert_allclose(variables_of(two)[name], expected, rtol=1e-5)


def test_the_parts_of_the_workers_make_the_whole_batches():
    data = Config(**CONFIG).data
    whole = build(data, 3, 6)
    parts = [build(data, 3, 6, worker, 3) for worker in range(3)]
    assert len({part.description() for part in (whole, *parts)}) == 1
    for batches in (
        [itertools.islice(data.train(3), 3) for data in (whole, *parts)],
        [data.validation() for data in (whole, *parts)],
    ):
        for expected, *found in zip(*batches, strict=True):
            for tensors in zip(expected, *found, strict=True):
                assert [len(tensor) for tensor in tensors] == [6, 2, 2, 2]
                np.testing.assert_array_equal(np.concatenate(tensors[1:]), tensors[0])


@pytest.mark.parametrize(
    ("value", "cluster"),
    [
        (None, Cluster()),
        ("", Cluster()),
        (
            {"cluster": {"worker": ["a:1", "b:2"]}, "task": task(1)},
            Cluster(("a:1", "b:2"), 1),
        ),
        (
            {"cluster": {"chief": ["c:3"], "worker": ["a:1", "b:2"]}, "task": task(1)},
            Cluster(("c:3", "a:1", "b:2"), 2),
        ),
        (
            {
                "cluster": {"chief": ["c:3"], "worker": ["a:1"]},
                "task": {"type": "chief", "index": 0},
            },
            Cluster(("c:3", "a:1"), 0),
        ),
    ],
)
def test_the_cluster_is_read(monkeypatch, value, cluster):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if value is not None:
        monkeypatch.setenv("TF_CONFIG", json.dumps(value) if value else value)
    assert read_cluster() == cluster


@pytest.mark.parametrize(
    "value",
    [
        "{",
        "[]",
        '"worker"',
        "{}",
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "0"}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:2"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": [1, 2]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "b:2"]}}',
    ],
)
def test_a_wrong_cluster_is_refused(monkeypatch, value):
    monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(ConfigError, match="TF_CONFIG: expected"):
        read_cluster()


@pytest.mark.parametrize("choice", [{"devices": ["GPU:0"]}, {"cpu_replicas": 2}])
def test_devices_of_a_cluster_are_not_chosen_by_the_config(choice):
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES"):
        make_strategy(TrainingConfig(**choice), Cluster(("a:1", "b:2"), 0))
