"""The public functions: names, arguments, types; what they do is tested where they live."""

import importlib
import inspect
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import kmatting
from kmatting import cli
from kmatting.config import load_config
from kmatting.errors import ConfigError, LostWorkerError, UsageError
from kmatting.networks.shipped import SHIPPED

ROOT = Path(__file__).resolve().parent.parent
FUNCTIONS = ("train", "evaluate", "export")
MODEL_FILES = (
    "LICENSE",
    "README.md",
    *(f"{name}.{suffix}" for name in SHIPPED for suffix in ("keras", "tflite")),
)

# What a user's program looks like; `mypy --strict` has to accept it.
SCRIPT = """
from pathlib import Path

import kmatting

run: Path = kmatting.train("config.yaml", "runs/mine", set={"training.epochs": 1})
report = kmatting.evaluate(("photos", "mattes"), model=run / "best.keras", size=256)
mad: float = report["mean"]["mad"]
files: list[Path] = kmatting.export("tflite", run, size=256)
matter = kmatting.Matter(files[0])
try:
    matte: kmatting.Matte = matter("photo.jpg")
    matte.save("cutout.png", crop="10%")
except kmatting.Error as error:
    print(error)
kmatting.remove("photo.jpg").save("cutout.png")
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text("data: {train: [{kind: synthetic, count: 8}]}")
    return path


@pytest.fixture
def trained(monkeypatch):
    """Takes the place of training; holds what it was called with."""
    calls = []
    monkeypatch.setattr("kmatting.train._train", lambda *arguments: calls.append(arguments))
    return calls


def test_all_names_exist():
    assert dir(kmatting) == sorted(kmatting.__all__)
    for name in kmatting.__all__:
        assert getattr(kmatting, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'trane'"):
        _ = kmatting.trane


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    "imports",
    [
        "import kmatting; f = kmatting.{0}",
        "import kmatting.{0}; f = kmatting.{0}",
        "from kmatting.{0} import main; import kmatting; f = kmatting.{0}",
        "from kmatting import {0} as f; import kmatting.{0}; assert kmatting.{0} is f",
    ],
)
def test_a_command_is_a_function_and_a_module(name, imports):
    code = f"{imports.format(name)}; assert callable(f) and callable(f.main) and f.{name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_call_reaches_the_function(name, monkeypatch):
    module = getattr(kmatting, name)
    assert inspect.signature(module) == inspect.signature(getattr(module, name))
    monkeypatch.setattr(module, name, lambda *args, **kwargs: (args, kwargs))
    assert module("a", b=1) == (("a",), {"b": 1})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_are_the_options_of_the_command(name):
    """Every option of the command can be given to the function."""
    help_text = subprocess.run(
        [sys.executable, "-m", "kmatting", name, "--help"], capture_output=True, text=True
    ).stdout
    arguments = inspect.signature(getattr(kmatting, name)).parameters
    others = {"help"}
    if name == "evaluate":
        others |= {"video"}  # a function of its own
    if name == "export":  # its **options, which it checks
        others |= {"version", "max_size", "rembg", "size", "variant", "calibration", "limit"}
    options = {
        line.split()[0].removeprefix("--").rstrip(",").replace("-", "_")
        for line in help_text.splitlines()
        if line.startswith("  --")
    }
    assert options - others - set(arguments) == set()


def test_train_takes_the_options(config, trained, tmp_path):
    folder = kmatting.train(config, str(tmp_path / "run"), set={"training.epochs": 3})
    assert folder == tmp_path / "run"
    (settings, _, resume) = trained[0]
    assert settings == load_config(config, ["training.epochs=3"])
    assert not resume

    kmatting.train(settings, folder, resume=True)
    assert trained[1] == (settings, folder, True)


def test_the_command_calls_the_function(config, trained, tmp_path):
    arguments = ["--config", str(config), "--output", str(tmp_path), "--set", "seed=5"]
    assert cli.main(["train", *arguments]) == 0
    assert trained == [(load_config(config, ["seed=5"]), tmp_path, False)]


def test_train_says_what_is_wrong(config, trained, tmp_path):
    with pytest.raises(ConfigError, match="did you mean `epochs`"):
        kmatting.train(config, set={"training.epoch": 3})
    with pytest.raises(ConfigError, match="Expected --config FILE"):
        kmatting.train()
    settings = load_config(config)
    with pytest.raises(UsageError, match="needs `output`"):
        kmatting.train(settings)
    with pytest.raises(UsageError, match="takes no `set`"):
        kmatting.train(settings, tmp_path, set=["seed=5"])
    assert trained == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), LostWorkerError("a worker is gone")])
def test_a_stopped_run_says_how_to_resume(config, tmp_path, monkeypatch, error):
    def stop(*arguments):
        raise error

    monkeypatch.setattr("kmatting.train._train", stop)
    with pytest.raises(type(error)) as raised:
        kmatting.train(config, tmp_path / "run")
    assert "resume with: kmatting train --resume" in raised.value.__notes__[0]


def test_settings_are_values_or_text(config):
    by_text = load_config(config, ["training.learning_rate=1e-3", "data.train.0.count=4"])
    sources = {"data.train": [{"kind": "synthetic", "count": 8}], "data.train.0.count": 4}
    by_value = load_config(config, {"training.learning_rate": 1e-3, **sources})
    assert by_text == by_value
    assert sources["data.train"] == [{"kind": "synthetic", "count": 8}]
    assert load_config(config, "seed=5").seed == 5
    with pytest.raises(ConfigError, match="there is no key data"):
        load_config(config, {"data.size": 64, "data.size.x": 1})


def test_what_setup_names_is_part_of_a_clone():
    """The terms of the weights, for one, lie in a folder of which git ignores most."""
    named = {"LICENSE", *(f"saved_models/{name}" for name in MODEL_FILES)}
    try:
        listed = subprocess.check_output(["git", "ls-files", *named], cwd=ROOT, text=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no clone, or no git")
    assert set(listed.split()) == named


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A Python in which kmatting, NumPy and Pillow are installed, and nothing else."""
    folder = tmp_path_factory.mktemp("user") / "venv"
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    packages = sysconfig.get_path("purelib", vars={"base": folder, "platbase": folder})
    others = [Path(sys.modules[name].__file__).parent for name in ("numpy", "PIL")]
    for package in (ROOT / "kmatting", *others):
        Path(packages, package.name).symlink_to(package)
    return python


def check_types(script, python, folder):
    (folder / "script.py").write_text(script)
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python)]
    return subprocess.run(
        [*command, "--config-file", "", "--cache-dir", str(python.parent.parent), "script.py"],
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="makes links")
def test_types_reach_a_user(installed, tmp_path):
    pytest.importorskip("mypy")
    done = check_types(SCRIPT, installed, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = "import kmatting\nkmatting.export(1)\nkmatting.train(set=3)\nkmatting.Matter()(1).x\n"
    done = check_types(wrong, installed, tmp_path)
    assert [line.split(":")[1] for line in done.stdout.splitlines() if "error:" in line] == [
        *("2", "3", "4", "4")
    ]


def test_each_room_says_what_of_it_is_public():
    names = list(kmatting.__all__)
    for init in Path(kmatting.__file__).parent.glob("*/__init__.py"):
        if init.parent.name.startswith("_") or init.parent.name == "saved_models":
            continue
        room = importlib.import_module(f"kmatting.{init.parent.name}")
        for name in room.__all__:
            assert getattr(room, name) is not None
        names += room.__all__
    assert len(names) < 90, sorted(names)
