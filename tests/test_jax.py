"""Training on Keras's JAX backend, where TensorFlow is not installed."""

import shutil
from importlib.util import find_spec

import numpy as np
import pytest
from keras import ops
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_train import BASE, log_of, run, weights_of

from kmatting.training import loss_terms

yaml = pytest.importorskip("yaml")
pytestmark = pytest.mark.skipif(find_spec("jax") is None, reason="JAX is not installed")
ON_JAX = {"KERAS_BACKEND": "jax", "TINY_HIDES": "tensorflow"}
CONFIG = {**BASE, "training": {**BASE["training"], "epochs": 2, "average": 0.9, "clip_norm": 1}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run whose second epoch ran on TensorFlow, on JAX, or on both backends in turn."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    for name, variables in (("tensorflow", {}), ("jax", ON_JAX)):
        stopped = run(
            "--config",
            folder / "config.yaml",
            "--output",
            folder / f"begun-{name}",
            TINY_STOPS="1",
            **variables,
        )
        assert stopped.returncode == 130, stopped.stderr
        assert len(log_of(folder / f"begun-{name}")) == 1
    ends = {}
    for begun, end, variables in (
        ("tensorflow", "tensorflow", {}),
        ("tensorflow", "jax", ON_JAX),
        ("jax", "tensorflow", {}),
        ("jax", "jax", ON_JAX),
    ):
        place = folder / f"{begun}-{end}"
        shutil.copytree(folder / f"begun-{begun}", place)
        result = run("--resume", "--output", place, **variables)
        assert result.returncode == 0, result.stderr
        ends[begun, end] = place
    return ends


@pytest.mark.slow
@pytest.mark.parametrize("begun", ["tensorflow", "jax"])
def test_a_run_continues_alike_on_either_backend(runs, begun):
    first, second = (log_of(runs[begun, end]) for end in ("tensorflow", "jax"))
    assert [row["epoch"] for row in second] == ["1", "2"]
    for name in first[1]:
        if name != "images_per_second":
            assert float(second[1][name]) == pytest.approx(float(first[1][name]), rel=1e-4), name


@pytest.mark.slow
def test_weights_and_the_state_of_the_optimizer_are_alike(runs):
    one, other = (
        weights_of(runs["tensorflow", end] / "last.keras") for end in ("tensorflow", "jax")
    )
    for left, right in zip(one, other, strict=True):
        np.testing.assert_allclose(right, left, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_run_on_jax_is_complete(runs):
    folder = runs["jax", "jax"]
    for name in ("best.keras", "last.keras", "panel.png", "panels/epoch_0002.png", "config.yaml"):
        assert (folder / name).is_file(), name
    assert '"jax"' in (folder / "run.json").read_text()
    events = EventAccumulator(str(folder / "tensorboard" / "validation"), {"scalars": 0})
    events.Reload()
    assert len(events.Scalars("epoch_loss")) == 2


def test_ssim_of_keras_is_that_of_tensorflow(monkeypatch):
    random = np.random.default_rng(0)
    truth, prediction = random.random((2, 3, 24, 32, 1), np.float32)
    expected = ops.convert_to_numpy(loss_terms.ssim(truth, prediction))
    monkeypatch.setattr("keras.backend.backend", lambda: "another")
    found = ops.convert_to_numpy(loss_terms.ssim(truth, prediction))
    np.testing.assert_allclose(found, expected, atol=1e-5)
