"""Keras as the user has set it up."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("keras")


def load(tmp_path, code, settings=None, **environment):
    """Runs code in a process of its own, with Keras's settings; returns what it printed."""
    (tmp_path / "keras.json").write_text(json.dumps(settings or {}))
    inherited = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", f"from kmatting.keras_setup import import_keras\n{code}"],
        capture_output=True,
        text=True,
        env={**inherited, "KERAS_HOME": str(tmp_path), **environment},
    )
    return done.stdout + done.stderr.splitlines()[-1] if done.returncode else done.stdout


SHOW = "keras = import_keras({}); c = keras.config; print(c.image_data_format(), c.floatx())"
OTHERS = {"image_data_format": "channels_first", "floatx": "float64", "backend": "jax"}


def test_settings_of_the_user_are_overruled(tmp_path):
    code = SHOW.format("tensorflow=True") + "; print(c.backend())"
    assert load(tmp_path, code, OTHERS) == "channels_last float32\ntensorflow\n"


@pytest.mark.parametrize(
    ("backend", "arguments", "words"),
    [
        ("nonsense", "", ["KERAS_BACKEND is nonsense", "cannot be loaded"]),
        ("jax", "tensorflow=True", ["KERAS_BACKEND is jax", "needs TensorFlow"]),
    ],
)
def test_another_backend_is_refused_by_name(tmp_path, backend, arguments, words):
    if backend == "jax":
        pytest.importorskip("jax")
    text = load(tmp_path, f"import_keras({arguments})", KERAS_BACKEND=backend)
    assert text.startswith("kmatting.errors.UsageError: ")
    assert all(word in text for word in words)


def test_what_a_program_has_set_is_not_changed(tmp_path):
    code = "import keras\nimport_keras()"
    text = load(tmp_path, code, {"image_data_format": "channels_first"})
    assert "Keras is set to image_data_format channels_first" in text
    assert 'keras.config.set_image_data_format("channels_last")' in text


def test_jax_is_the_backend_where_tensorflow_is_missing(tmp_path):
    pytest.importorskip("jax")
    code = (
        "import kmatting.keras_setup as setup; find = setup.find_spec;"
        "setup.find_spec = lambda name: None if name == 'tensorflow' else find(name);"
        "print(import_keras().config.backend())"
    )
    assert load(tmp_path, code, {"backend": "tensorflow"}) == "jax\n"
