"""The hook that PyInstaller finds. A whole app is built by hand: see docs/deploy.md."""

import importlib
import importlib.util
import inspect
import runpy
from pathlib import Path

import pytest
import setuptools

import kmatting
from kmatting.networks import shipped
from kmatting.networks.formats import MODEL_FILES

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def hook(monkeypatch):
    """What the hook says, found as PyInstaller finds it: by the entry point of setup.py."""
    metadata = {}
    monkeypatch.setattr(setuptools, "setup", metadata.update)
    runpy.run_path(str(ROOT / "setup.py"))
    (entry,) = metadata["entry_points"]["pyinstaller40"]
    name, _, target = entry.partition(" = ")
    assert name == "hook-dirs"
    module, _, function = target.partition(":")
    assert module in metadata["packages"]
    (folder,) = getattr(importlib.import_module(module), function)()
    return runpy.run_path(str(Path(folder) / "hook-kmatting.py"))


def test_an_app_holds_the_model_where_it_is_looked_for(hook, monkeypatch, tmp_path):
    for source, folder in hook["datas"]:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / Path(source).name).write_bytes(Path(source).read_bytes())
    frozen = tmp_path / "kmatting" / "networks" / "shipped.py"
    monkeypatch.setattr(shipped, "__file__", str(frozen))
    for name in shipped.SHIPPED:
        model = shipped.shipped_model(name=name)
        assert model.parent == tmp_path / "kmatting" / "saved_models"
    assert "commercial" in (model.parent / "README.md").read_text()


def test_an_app_holds_what_is_imported_by_name(hook):
    named = hook["hiddenimports"]
    public = [getattr(kmatting, each) for each in kmatting.__all__ if each[0] != "_"]
    # Not the commands: they would bring TensorFlow into an app that cuts out photos.
    homes = {each.__module__ for each in public if not inspect.ismodule(each)}
    assert len(homes) > 4
    assert homes <= set(named)
    assert set(MODEL_FILES.values()) <= set(named)
    for each in named:
        assert importlib.util.find_spec(each), each
