"""An error of ours never looks like the user's."""

import errno

import pytest
from PIL import Image

import kmatting
from kmatting import evaluate, predict, shard, synthetic
from kmatting.bugs import MOST_IN_A_ROW, BugCounter, attempt, is_expected
from kmatting.errors import Error, ImageError


def failing(error):
    def function(*arguments):
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ImageError("bad"), True),
        (MemoryError(), True),
        (PermissionError(errno.EACCES, "denied", "a.jpg"), True),
        (OSError(errno.ENOSPC, "full"), True),
        (OSError("no number and no path"), False),
        (ValueError("bad"), False),
        (IndexError(), False),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "bad"), False),
    ],
)
def test_what_is_a_bug(error, expected):
    assert is_expected(error) is expected


def test_an_item_of_many_fails_with_its_reason(capsys):
    bugs = BugCounter()
    assert bugs.problem("a result") is None
    assert bugs.problem(None) is None
    assert bugs.problem(attempt(failing(Error("a.jpg: bad")), 1)) == "a.jpg: bad"
    assert bugs.problem(MemoryError()) == "not enough memory"
    assert bugs.status(1) == 1
    assert capsys.readouterr().err == ""


def test_the_first_bug_has_its_traceback_and_the_others_continue(capsys):
    bugs = BugCounter()
    assert bugs.problem(attempt(failing(ValueError("wrong\nslice")))) == (
        "internal error (ValueError: wrong slice)"
    )
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "internal error: this is a bug of kmatting (kmatting/bugs.py, line " in err
    assert bugs.problem(attempt(failing(IndexError()))) == "internal error (IndexError)"
    assert capsys.readouterr().err == ""
    assert bugs.status(0) == bugs.status(1) == 70


def test_ten_bugs_in_a_row_end_the_run():
    bugs = BugCounter()
    for _ in range(MOST_IN_A_ROW - 1):
        bugs.problem(KeyError("x"))
    bugs.problem("a result")
    for _ in range(MOST_IN_A_ROW - 1):
        bugs.problem(KeyError("x"))
    with pytest.raises(KeyError) as stop:
        bugs.problem(KeyError("the tenth"))
    assert stop.value.args == ("the tenth",)
    assert "10 in a row" in stop.value.__notes__[0]


def test_attempt_returns_results_and_lets_interruptions_through():
    assert attempt(max, 1, 2) == 2
    with pytest.raises(KeyboardInterrupt):
        attempt(failing(KeyboardInterrupt()))


# Bugs planted in each layer, met by each command.

PLANTED = [ValueError("planted\nhere"), IndexError("planted here")]
PLACES = {
    "decode": "kmatting.images.photos.opacity_of",
    "refine": "kmatting.inference.matter.refine",
    "foreground": "kmatting.pictures.matte.estimate_foreground",
    "metrics": "kmatting.scoring.cases.score",
    "loader": "kmatting.data.pairs.read_training_alpha",
    "frames": "kmatting.video.mattes.refine",
}


@pytest.fixture(params=PLANTED, ids=lambda error: type(error).__name__)
def plant(request, monkeypatch):
    """Returns a function that plants a bug in a layer."""

    def plant(layer):
        monkeypatch.setattr(PLACES[layer], failing(request.param))

    return plant


@pytest.fixture
def pairs(tmp_path):
    """Folders `image` and `alpha` of three pairs."""
    options = ["--output", str(tmp_path), "--count", "3", "--size", "48"]
    assert synthetic.main(options) == 0
    return tmp_path / "image", tmp_path / "alpha"


def assert_bug(status, err):
    """The traceback and the request are there, and no line that blames a file for it."""
    assert status == 70
    assert "Traceback (most recent call last):" in err
    assert "planted" in err
    assert "this is a bug of kmatting" in err
    lines = [line for line in err.splitlines() if line.startswith(("error: ", "warning: "))]
    assert all("internal error" in line for line in lines), lines


@pytest.mark.parametrize("layer", ["decode", "refine", "foreground"])
def test_a_bug_met_by_predict(plant, pairs, tmp_path, capsys, layer):
    plant(layer)
    one = [str(pairs[0] / "00000.png"), "-o", str(tmp_path / "out.png")]
    assert_bug(predict.main(one), capsys.readouterr().err)
    assert not (tmp_path / "out.png").exists()
    status = predict.main([str(pairs[0]), "-o", str(tmp_path / "out")])
    out, err = capsys.readouterr()
    assert_bug(status, err)
    assert err.count("Traceback") == 1
    assert err.count("internal error (") == 3
    assert out.startswith("0 of 3 photos done")


@pytest.mark.parametrize("layer", ["decode", "refine", "metrics"])
def test_a_bug_met_by_evaluate(plant, pairs, tmp_path, capsys, layer):
    plant(layer)
    assert_bug(evaluate.main(["--data", *map(str, pairs)]), capsys.readouterr().err)


def test_a_bug_met_by_the_loader(plant, pairs, tmp_path, capsys):
    plant("loader")
    status = shard.main(["pack", *map(str, pairs), str(tmp_path / "shards")])
    assert_bug(status, capsys.readouterr().err)
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize("layer", ["decode", "refine"])
def test_a_bug_met_in_python_is_raised_as_it_is(plant, pairs, layer):
    plant(layer)
    with pytest.raises((ValueError, IndexError), match="planted") as raised:
        kmatting.remove(pairs[0] / "00000.png")
    assert not isinstance(raised.value, Error)


def test_a_bug_met_by_video(plant, pairs, tmp_path, capsys):
    pytest.importorskip("av")
    from kmatting.video import __main__ as video

    frames = [Image.open(path) for path in sorted(pairs[0].iterdir())]
    frames[0].save(tmp_path / "in.gif", save_all=True, append_images=frames[1:])
    plant("frames")
    status = video.main([str(tmp_path / "in.gif"), "-o", str(tmp_path / "out.webp")])
    assert_bug(status, capsys.readouterr().err)


def test_a_bug_met_by_train(plant, pairs, tmp_path, capsys):
    pytest.importorskip("tensorflow")
    from kmatting import train

    (tmp_path / "config.yaml").write_text(
        f"data: {{train: [{{images: {pairs[0]}, alphas: {pairs[1]}}}]}}"
    )
    plant("loader")
    options = ["--config", str(tmp_path / "config.yaml"), "--output", str(tmp_path / "run")]
    assert_bug(train.main(options), capsys.readouterr().err)


def test_a_bug_met_by_the_loader_in_a_thread(monkeypatch):
    pytest.importorskip("pydantic")
    from kmatting.config import DataConfig
    from kmatting.data.pipeline import build

    monkeypatch.setattr("kmatting.data.synthetic.sample", failing(IndexError("planted")))
    config = DataConfig(train=[{"kind": "synthetic", "count": 8}], validation=0.0, size=32)
    data = build(config, 0, 4)
    with pytest.raises(IndexError, match="planted") as raised:
        next(iter(data.train()))
    assert not is_expected(raised.value)


def test_a_bug_met_by_export(monkeypatch, tmp_path, capsys):
    pytest.importorskip("tensorflow")
    from kmatting import export

    monkeypatch.setattr("kmatting.exporting.checkpoint._in_float32", failing(PLANTED[0]))
    status = export.main(["--format", "tflite", "--output", str(tmp_path / "out")])
    assert_bug(status, capsys.readouterr().err)
    assert not list(tmp_path.glob("out/**/*"))
