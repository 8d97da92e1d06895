import io
import zipfile

import h5py
import numpy as np
import pytest
from export_models import tiny_model

from kmatting import load_model
from kmatting.config import ModelConfig
from kmatting.data.synthetic import sample
from kmatting.errors import ConfigError
from kmatting.export import main
from kmatting.exporting import keras_file
from kmatting.models import build_model
from kmatting.networks.metadata import read_size
from kmatting.training.run_folder import write_state


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    model = tiny_model(tmp_path_factory.mktemp("model") / "tiny.keras")
    write_state(model.file, 1, 0.1, (64, 96))
    return model


@pytest.fixture(scope="module")
def half(model, tmp_path_factory):
    output = tmp_path_factory.mktemp("keras")
    command = ["--model", str(model.file), "--format", "keras", "--output", str(output)]
    assert main([*command, "--name", "half"]) == 0
    return output / "half.keras"


def stored_types(path):
    """Returns the types of the arrays in a `.keras` file."""
    types = set()
    with zipfile.ZipFile(path) as archive:
        weights = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
    weights.visititems(lambda _, item: types.add(getattr(item, "dtype", None)))
    return {str(dtype) for dtype in types if dtype}


def test_plain_keras_loads_the_half_size_in_float32(model, half):
    import keras

    loaded = keras.saving.load_model(half, compile=False)
    assert {str(weight.dtype) for weight in loaded.weights} == {"float32"}
    expected = [weight.numpy().astype(np.float16) for weight in model.weights]
    for weight, value in zip(loaded.weights, expected, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)
    assert stored_types(model.file) == {"float32"}
    assert stored_types(half) == {"float16"}


def test_alphas_and_size_stay(model, half):
    photo = sample(3, 0, (64, 96))[0][None] / np.float32(255)
    np.testing.assert_allclose(load_model(half)(photo), model(photo), atol=5e-3)
    assert read_size(half) == (64, 96)


def test_weights_too_large_for_float16_are_refused(model, tmp_path):
    layer = model.get_layer("logit")
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel, bias + 1e6])
    try:
        with pytest.raises(ValueError, match="do not fit into float16"):
            keras_file.export_keras(model, tmp_path / "large.keras", [], {})
    finally:
        layer.set_weights([kernel, bias])
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_other_alphas_is_not_written(model, tmp_path, monkeypatch):
    monkeypatch.setattr(keras_file, "_cast", lambda name, values: values * np.float32(0.5))
    with pytest.raises(ValueError, match="not written"):
        keras_file.export_keras(model, tmp_path / "other.keras", [sample(3, 0, (64, 96))[0]], {})
    assert list(tmp_path.iterdir()) == []


def test_training_can_start_from_the_shipped_network(monkeypatch, tmp_path):
    monkeypatch.setattr(
        "kmatting.networks.shipped.shipped_model", lambda suffix: tmp_path / "x.keras"
    )
    config = ModelConfig(
        name="model2", encoder="efficientnet_lite0", encoder_weights="none", weights="shipped"
    )
    with pytest.raises(ConfigError, match=r"x\.keras"):
        build_model(config)
