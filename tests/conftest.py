"""Fixtures that several test files share; a network is built once for all of them."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pytest


@pytest.fixture(scope="session", params=["model1", "model2"])
def small_config(request):
    """The config of `small_model`: each network with another family of encoders.

    Model 2 has two resolutions.
    """
    from kmatting.config import ModelConfig

    parts = {
        "model1": {"encoder": "densenet121"},
        "model2": {"encoder": "efficientnet_lite0", "high_level_size": 32},
    }
    return ModelConfig(
        name=request.param, encoder_weights="none", skips=True, **parts[request.param]
    )


@pytest.fixture(scope="session")
def small_model(small_config):
    """An untrained network of `small_config`; tests must not change it."""
    import keras

    from kmatting import models

    keras.utils.set_random_seed(0)
    return models.build_model(small_config)


@pytest.fixture
def network_alone(monkeypatch):
    """Has a SavedModel hold the network alone, see the helper of that name."""
    import network_alone

    monkeypatch.setattr(network_alone.Server, "signatures", network_alone.signatures)


@pytest.fixture
def photos():
    """Returns a function that makes a batch of smooth random photos, float32 in [0, 1]."""

    def make(count, height, width, seed=0):
        from PIL import Image

        rng = np.random.default_rng(seed)
        small = rng.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
        large = [Image.fromarray(photo).resize((width, height)) for photo in small]
        return np.stack([np.asarray(photo) for photo in large]).astype(np.float32) / 255

    return make


@pytest.fixture
def float32_afterwards():
    """Restores Keras's dtype policy after a test that changes it."""
    import keras

    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory):
    """Keeps the user's cache folder as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def no_lines_of_progress(monkeypatch):
    """On a busy machine they would stand among what a test reads."""
    from kmatting import terminal

    monkeypatch.setattr(terminal, "FIRST_LINE", float("inf"))
