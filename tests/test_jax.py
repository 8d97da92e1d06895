"""Training on Keras's JAX backend, where TensorFlow is not installed."""

import io
import shutil
import zipfile
from importlib.util import find_spec

import h5py
import numpy as np
import pytest
from keras import ops
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_train import BASE, log_of, run

from kmatting.training import loss_terms

yaml = pytest.importorskip("yaml")
pytestmark = pytest.mark.skipif(find_spec("jax") is None, reason="JAX is not installed")
ON_JAX = {"KERAS_BACKEND": "jax", "TINY_HIDES": "tensorflow"}
CONFIG = {
    **BASE,
    "training": {
        **BASE["training"],
        "epochs": 2,
        "average": 0.9,
        "clip_norm": 1,
        "encoder_rate": 0.5,
    },
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs, begun as one on TensorFlow; the second epoch ran on either backend."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    begun, config = folder / "begun", folder / "config.yaml"
    stopped = run("--config", config, "--output", begun, TINY_STOPS="1")
    assert stopped.returncode == 130, stopped.stderr
    assert len(log_of(begun)) == 1
    ends = {}
    for end, variables in (("tensorflow", {}), ("jax", ON_JAX)):
        ends[end] = folder / end
        shutil.copytree(begun, ends[end])
        result = run("--resume", "--output", ends[end], **variables)
        assert result.returncode == 0, result.stderr
    return ends


@pytest.mark.slow
def test_a_run_continues_alike_on_either_backend(runs):
    first, second = log_of(runs["tensorflow"]), log_of(runs["jax"])
    assert [row["epoch"] for row in second] == ["1", "2"]
    for name in first[1]:
        if name != "images_per_second":
            assert float(second[1][name]) == pytest.approx(float(first[1][name]), rel=1e-4), name


@pytest.mark.slow
def test_a_stopped_run_on_jax_continues_exactly(tmp_path):
    """With frozen layers, which thaw in the second epoch."""
    freezing = {"freeze_encoder_epochs": 1, "freeze_batch_norm": True}
    config = {**CONFIG, "model": {**CONFIG["model"], **freezing}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    begin = "--config", tmp_path / "config.yaml", "--output"
    assert run(*begin, whole, **ON_JAX).returncode == 0
    assert run(*begin, stopped, TINY_STOPS="1", **ON_JAX).returncode == 130
    assert run("--resume", "--output", stopped, **ON_JAX).returncode == 0
    found = weights_of(stopped)
    for name, array in weights_of(whole).items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.slow
def test_a_run_begun_on_jax_continues_alike_on_either_backend(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    stayed, moved = tmp_path / "stayed", tmp_path / "moved"
    begin = "--config", tmp_path / "config.yaml", "--output"
    assert run(*begin, stayed, TINY_STOPS="1", **ON_JAX).returncode == 130
    shutil.copytree(stayed, moved)
    assert run("--resume", "--output", stayed, **ON_JAX).returncode == 0
    assert run("--resume", "--output", moved).returncode == 0
    found = weights_of(moved)
    for name, array in weights_of(stayed).items():
        # The gradient of a bias before a batch norm is zero but for rounding, which Adam enlarges.
        if name != "layers/conv2d/vars/1":
            np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-4, err_msg=name)


def weights_of(folder):
    """The arrays of a run's last network, by name."""
    arrays = {}

    def keep(name, item):
        if isinstance(item, h5py.Dataset) and name.startswith("layers/"):
            arrays[name] = item[()]

    with zipfile.ZipFile(folder / "last.keras") as archive:
        h5py.File(io.BytesIO(archive.read("model.weights.h5"))).visititems(keep)
    assert len(arrays) > 8
    return arrays


@pytest.mark.slow
def test_a_run_on_jax_is_complete(runs):
    folder = runs["jax"]
    for name in ("best.keras", "last.keras", "panel.png", "panels/epoch_0002.png", "config.yaml"):
        assert (folder / name).is_file(), name
    assert '"jax"' in (folder / "run.json").read_text()
    events = EventAccumulator(str(folder / "tensorboard" / "validation"), {"scalars": 0})
    events.Reload()
    assert [point.step for point in events.Scalars("epoch_loss")][-1] == 1


def test_two_devices_share_each_batch(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    two = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", **ON_JAX}
    result = run("--config", tmp_path / "config.yaml", "--output", tmp_path / "run", **two)
    assert result.returncode == 0, result.stderr
    assert "2 replicas" in result.stdout


def test_ssim_of_keras_is_that_of_tensorflow(monkeypatch):
    random = np.random.default_rng(0)
    truth, prediction = random.random((2, 3, 24, 32, 1), np.float32)
    expected = ops.convert_to_numpy(loss_terms.ssim(truth, prediction))
    monkeypatch.setattr("keras.backend.backend", lambda: "another")
    found = ops.convert_to_numpy(loss_terms.ssim(truth, prediction))
    np.testing.assert_allclose(found, expected, atol=1e-5)
