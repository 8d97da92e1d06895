"""Runs the notebooks of examples/ from the first cell to the last, as a reader would."""

import json
import os
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
SECONDS = 1800  # for one cell; generous, since a busy machine takes ten times as long
FILES = {
    "edges": ("shop.jpg", "cutout.png"),
    "finetune": ("cutout.png", "runs/1-epochs-at-96/best.keras", "saved_models"),
}


def name(path):
    return path.stem


def test_all_notebooks_are_known():
    assert {path.stem for path in NOTEBOOKS} == set(FILES)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_outputs_are_cleared_and_the_first_code_installs(path):
    code = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert "%pip install" in "".join(code[0]["source"])


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
@pytest.mark.parametrize("place", ["a clone", "Colab"])
def test_notebooks_run(path, place, tmp_path, monkeypatch):
    if path.stem == "finetune" and place == "Colab":
        pytest.skip("is the same in both")
    # The kernel is a process of its own, which finds this clone and no settings of the user.
    known = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *([known] if known else [])]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    folder = tmp_path / "reader"
    folder.mkdir()
    if place == "a clone":
        (folder / "data").symlink_to(ROOT / "examples/data")
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=SECONDS, resources=resources).execute()
    for file in FILES[path.stem]:
        assert (folder / file).exists(), file
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in outputs)
