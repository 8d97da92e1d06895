"""The terms of the weights travel: from the shipped files into exports and fine-tuned networks."""

import json
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from export_models import tiny_model

from kmatting import Matter
from kmatting.errors import ModelError
from kmatting.export import export
from kmatting.exporting.terms import main
from kmatting.networks.metadata import model_without_archive, read_metadata
from kmatting.networks.shipped import SHIPPED, shipped_model
from kmatting.training.run_folder import starting_licence, write_state

TERMS = "only on Sundays"


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A network whose file states its terms."""
    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    tiny_model(path)
    write_state(path, 1, 0.1, (32, 48))
    assert main([TERMS, str(path)]) == 0
    return path


@pytest.mark.parametrize("suffix", [".keras", ".tflite"])
@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_files_state_them(name, suffix):
    licence = read_metadata(shipped_model(suffix, name))["licence"]
    assert ("Apache-2.0" if name == "open" else "not for commercial use") in licence
    assert starting_licence(Path(name)) == Matter(name).licence == licence


def test_the_model_without_a_name_states_its_terms():
    assert starting_licence(Path("shipped")) == Matter().licence == Matter("general").licence


def test_every_format_carries_them_on(network, network_alone, tmp_path):
    """Whatever was typed: the file is named here, as it is without --model."""
    (tflite,) = export("tflite", network, tmp_path, size=[(32, 32), (32, 48)])
    (keras,) = export("keras", network, tmp_path / "mine.keras")
    (onnx,) = export("onnx", network, tmp_path)
    (saved,) = export("saved_model", network, tmp_path)
    for path in (tflite, keras, saved):
        assert read_metadata(path)["licence"] == TERMS
    about = onnxruntime.InferenceSession(onnx).get_modelmeta().custom_metadata_map
    assert json.loads(about["kmatting.json"])["licence"] == TERMS
    for path in (tflite, keras, onnx, saved):
        assert Matter(path).licence == TERMS
    assert starting_licence(keras) == TERMS  # of a run that is fine-tuned from it


def test_a_model_without_terms_states_none(tmp_path):
    tiny_model(tmp_path / "tiny.keras")
    assert Matter(tmp_path / "tiny.keras").licence is None
    assert starting_licence(tmp_path / "tiny.keras") is None
    assert starting_licence(None) is None


def test_the_weights_stay_as_they_are(network, tmp_path):
    copy = tmp_path / "copy.keras"
    copy.write_bytes(network.read_bytes())
    assert main(["other terms", str(copy)]) == 0
    with zipfile.ZipFile(network) as before, zipfile.ZipFile(copy) as after:
        assert after.namelist() == before.namelist()
        changed = [name for name in after.namelist() if after.read(name) != before.read(name)]
    assert changed == ["kmatting.json"]
    assert read_metadata(copy) == {**read_metadata(network), "licence": "other terms"}

    shipped = tmp_path / "shipped.tflite"
    shipped.write_bytes(shipped_model().read_bytes())
    assert main([Matter().licence, str(shipped)]) == 0
    assert shipped.read_bytes() == shipped_model().read_bytes()  # nothing is added twice
    assert main(["other terms", str(shipped)]) == 0
    photo = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    np.testing.assert_array_equal(Matter(shipped)(photo).alpha, Matter()(photo).alpha)
    assert b"other terms" in model_without_archive(shipped.read_bytes())  # for MediaPipe


def test_damaged_terms_are_named(network, tmp_path):
    path = tmp_path / "bad.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("kmatting.json", '{"licence": 5}')
    with pytest.raises(ModelError, match=r"bad\.keras: damaged .* expected licence to be a text"):
        read_metadata(path)
