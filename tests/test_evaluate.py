"""The evaluate command, on mattes in folders and on models."""

import csv
import json
import re
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from kmatting import evaluate
from kmatting.errors import ImageError
from kmatting.images import read_alpha, write_image
from kmatting.scoring import metrics, sheet
from kmatting.scoring import run as scoring

SHAPES = {"ape": (40, 52), "bee": (61, 33), "cat": (48, 48)}


def make_alpha(shape, seed):
    """A soft disc, somewhere."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    centre = random.uniform(0.3, 0.7, 2) * shape
    distance = np.hypot(y - centre[0], x - centre[1])
    return np.rint(np.clip((12 - distance) / 4 + 0.5, 0, 1) * 255).astype(np.uint8)


@pytest.fixture
def folders(tmp_path):
    """Folders alphas, predictions and images of three cases, two of them with a thin part."""
    for seed, (name, shape) in enumerate(SHAPES.items()):
        alpha = make_alpha(shape, seed)
        if name != "ape":
            alpha[:, shape[1] // 2] = 255
        write_image(tmp_path / "alphas" / f"{name}.png", alpha)
        write_image(tmp_path / "predictions" / f"{name}.png", make_alpha(shape, seed + 10))
        write_image(tmp_path / "images" / f"{name}.jpg", np.dstack([alpha, alpha // 2, alpha]))
    return tmp_path


def run(folder, *options):
    """Scores folder/predictions against folder/alphas; a word with a slash is in the folder."""
    options = (str(folder / option) if "/" in option else option for option in options)
    return evaluate.main(
        ["--predictions", f"{folder}/predictions", "--alphas", f"{folder}/alphas", *options]
    )


def expected_scores(folder, unknown_of=metrics.unknown_band):
    scores = []
    for name in SHAPES:
        truth = read_alpha(folder / "alphas" / f"{name}.png")
        prediction = read_alpha(folder / "predictions" / f"{name}.png", exact=True)
        score = metrics.score(truth, prediction, unknown_of(truth))
        scores.append({key: None if np.isnan(value) else value for key, value in score.items()})
    return scores


def mean_of(values):
    """The mean of those that are known."""
    return pytest.approx(np.mean([value for value in values if value is not None]))


def read_report(folder):
    return json.loads((folder / "report.json").read_text())


def test_animations_are_named_in_one_line(folders):
    alpha = Image.open(folders / "alphas/ape.png").convert("L")
    (folders / "alphas/ape.png").unlink()
    path = folders / "alphas/ape.gif"
    alpha.save(path, save_all=True, append_images=[Image.new("L", alpha.size)])
    options = ["--predictions", f"{folders}/predictions", "--alphas", f"{folders}/alphas"]
    command = [sys.executable, "-m", "kmatting.evaluate", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    line = f"warning: {path}: holds several frames, only the first is read."
    assert line in re.split("[\r\n]", done.stderr)
    assert done.stderr.count("holds several") == 1  # though it is read twice


# Scoring files.


def test_report_holds_each_image_and_the_mean(folders, capsys):
    assert run(folders, "--images", "./images", "--output", "./report") == 0
    expected = expected_scores(folders)
    report = read_report(folders / "report")
    assert [row["name"] for row in report["per_image"]] == list(SHAPES)
    for row, scores in zip(report["per_image"], expected, strict=True):
        assert (row["height"], row["width"]) == SHAPES[row["name"]]
        assert {figure: row[figure] for figure in scores} == scores
    for figure, value in report["mean"].items():
        assert value == mean_of([scores[figure] for scores in expected])
    assert expected[0]["thin_lost"] is None
    assert 0 < report["mean"]["thin_lost"] <= 1

    with (folders / "report" / "report.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["name"] for row in table] == list(SHAPES)
    assert float(table[1]["connectivity_unknown"]) == expected[1]["connectivity_unknown"]

    mean = report["mean"]
    title, _, names, whole, band, _, unknown, hint, *_ = capsys.readouterr().out.splitlines()
    assert title.endswith("/alphas: 3 images")
    captions = " ".join(metric.caption for metric in metrics.METRICS)
    assert " ".join(names.split()) == f"mean images {captions}"
    assert whole.split()[:4] == ["whole", "image", "3", f"{mean['sad']:.4f}"]
    assert band.split()[:3] == ["unknown", "band", "3"]
    assert f"{mean['mse_unknown']:.6f}" in band
    assert "dilated by 10 px" in unknown and "of the pixels" in unknown
    assert "kmatting evaluate --help" in hint


def test_help_defines_every_figure(capsys):
    with pytest.raises(SystemExit):
        evaluate.main(["--help"])
    text = capsys.readouterr().out
    for figure in (*metrics.METRICS, metrics.DTSSD):
        assert f"{figure.caption} " in text and figure.meaning in text
    for statement in ("8 bits", "sigma 1.4", "step 0.1, theta 0.15", "at the size of the true one"):
        assert statement in text
    assert not re.search(r"\{\w+\}", text.partition("figures:")[2])


def test_the_sheet_leaves_out_figures_that_a_case_lacks():
    row = {metric.name: 0.5 for metric in metrics.METRICS}
    assert any(text.startswith("thin lost") for text in sheet._figures(row))
    captions = sheet._figures({**row, "thin_lost": float("nan")})
    assert len(captions) == len(metrics.METRICS) - 1
    assert not any("nan" in text for text in captions)


def test_groups_have_rows_of_their_own(folders, capsys):
    (folders / "groups.csv").write_text(
        "\ufeffgroup,name,more\nfur,ape.jpg,1\nfur,cat,\nglass,bee,2\n"
    )
    assert run(folders, "--groups", "./groups.csv", "--output", "./report") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[3:9]] == [
        "whole",
        "fur",
        "glass",
        "unknown",
        "fur",
        "glass",
    ]
    report = read_report(folders / "report")
    scores = dict(zip(SHAPES, expected_scores(folders), strict=True))
    fur, glass = report["groups"]["fur"], report["groups"]["glass"]
    assert (fur["images"], glass["images"], report["images"]) == (2, 1, 3)
    assert glass["mean"] == pytest.approx(scores["bee"])
    for figure in scores["ape"]:
        assert fur["mean"][figure] == mean_of([scores[name][figure] for name in ("ape", "cat")])
    assert lines[4].split()[:3] == ["fur", "2", f"{fur['mean']['sad']:.4f}"]
    assert lines[8].split()[:3] == ["glass", "1", f"{glass['mean']['sad_unknown']:.4f}"]
    with (folders / "report" / "report.csv").open(newline="") as file:
        assert [row["group"] for row in csv.DictReader(file)] == ["fur", "glass", "fur"]


def test_groups_that_leave_images_out_are_noted(folders, capsys):
    (folders / "groups.csv").write_text("name,group\nape,fur\ndog,fur\n")
    assert run(folders, "--groups", "./groups.csv") == 0
    out, err = capsys.readouterr()
    assert "no group for 2 images: bee, cat" in err
    assert "1 without an alpha: dog" in err
    assert "  (no group)  " in out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name,kind\nape,fur\n", "expected columns name and group, received name, kind"),
        (b"", "expected columns name and group, received nothing"),
        (b"name,group\nape,fur\nape.png,hair\n", "ape.png is in two groups, fur and hair"),
        (b"name,group\n\xff,fur\n", "not a CSV file in UTF-8"),
        (b'name,group\n"ape"x,fur\n', "not a CSV file in UTF-8"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_wrong_list_of_groups_is_refused(folders, capsys, content, message):
    if content is not None:
        (folders / "groups.csv").write_bytes(content)
    assert run(folders, "--groups", "./groups.csv") == 2
    assert message in capsys.readouterr().err


def test_sheet_shows_image_truth_prediction_and_difference(folders):
    assert run(folders, "--images", "./images", "--output", "./report") == 0
    with_images = Image.open(folders / "report" / "sheet.png")
    assert run(folders, "--output", "./report") == 0
    without = Image.open(folders / "report" / "sheet.png")
    assert with_images.width > without.width
    truth, prediction = np.array([[[0, 255, 255, 100]], [[0, 255, 0, 151]]], np.uint8)
    white, blue, red = [255] * 3, [0, 0, 255], [255, 204, 204]  # the last: 51 too much
    difference = sheet._difference_picture(truth, prediction)
    assert difference[0].tolist() == [white, white, blue, red]


@pytest.mark.parametrize("count", [1, 2, 8, 9, 10, 11, 50, 51])
def test_sheet_has_the_worst_the_median_and_the_best_once_each(count):
    ranks = sheet._shown_ranks(count)
    assert len(ranks) == min(count, 9)
    assert sorted(set(ranks)) == ranks
    assert {0, (count - 1) // 2, count - 1} <= set(ranks)


def test_sheet_ranks_by_mad(folders, monkeypatch):
    captions = []
    monkeypatch.setattr(
        sheet, "draw_panel", lambda *args, **_: captions.extend(args[2]) or np.zeros((1, 1))
    )
    monkeypatch.setattr(scoring, "write_image", lambda *_: None)
    write_image(folders / "predictions" / "bee.png", read_alpha(folders / "alphas" / "bee.png"))
    write_image(folders / "predictions" / "cat.png", np.full(SHAPES["cat"], 255, np.uint8))
    assert run(folders, "--output", "./report") == 0
    assert [caption.split()[4 if "(" in caption else 3] for caption in captions] == [
        "cat",
        "ape",
        "bee",
    ]
    assert "MAD 0.0000" in captions[2]


def test_perfect_predictions_score_exactly_0(folders, capsys):
    alphas = str(folders / "alphas")
    assert evaluate.main(["--predictions", alphas, "--alphas", alphas]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [float(cell) for cell in lines[3].split()[2:]] == [3, 0, 0, 0, 0, 0, 1, 0]
    assert [float(cell) for cell in lines[4].split()[2:]] == [3, 0, 0, 0, 0, 0, 1, 0]


def test_given_trimaps_are_the_unknown_band(folders):
    for name, shape in SHAPES.items():
        trimap = np.zeros(shape, np.uint8)
        trimap[:, 5:20] = 128
        trimap[:, 20:] = 255
        write_image(folders / "trimaps" / f"{name}.png", trimap)
    assert run(folders, "--trimaps", "./trimaps", "--output", "./report") == 0

    def unknown_of(truth):
        columns = np.arange(truth.shape[1])
        return np.broadcast_to((columns >= 5) & (columns < 20), truth.shape)

    report = read_report(folders / "report")
    assert "trimaps" in report["protocol"]["unknown"]
    for row, scores in zip(report["per_image"], expected_scores(folders, unknown_of), strict=True):
        assert {figure: row[figure] for figure in scores} == scores


def test_band_width_is_used_and_stated(folders):
    assert run(folders, "--band", "3", "--output", "./report") == 0
    report = read_report(folders / "report")
    assert "dilated by 3 px" in report["protocol"]["unknown"]
    scores = expected_scores(folders, lambda truth: metrics.unknown_band(truth, 3))
    assert report["per_image"][0]["sad_unknown"] == scores[0]["sad_unknown"]


def test_an_image_without_unknown_pixels_is_left_out_of_the_bands_mean(folders, capsys):
    write_image(folders / "alphas" / "bee.png", np.zeros(SHAPES["bee"], np.uint8))
    assert run(folders, "--output", "./report") == 0
    report = read_report(folders / "report")
    assert report["images_with_unknown"] == 2
    counts = [line.split()[2] for line in capsys.readouterr().out.splitlines()[3:5]]
    assert counts == ["3", "2"]
    rows = {row["name"]: row for row in report["per_image"]}
    assert rows["bee"]["sad"] > 0
    assert rows["bee"]["sad_unknown"] is None
    assert report["mean"]["mse_unknown"] == pytest.approx(
        (rows["ape"]["mse_unknown"] + rows["cat"]["mse_unknown"]) / 2
    )
    with (folders / "report" / "report.csv").open(newline="") as file:
        assert [row["mse_unknown"] == "" for row in csv.DictReader(file)] == [False, True, False]


def test_16_bit_predictions_are_rounded_to_8_bits(folders):
    assert run(folders, "--output", "./eight") == 0
    for name in SHAPES:
        levels = read_alpha(folders / "predictions" / f"{name}.png")
        write_image(folders / "predictions" / f"{name}.png", levels * np.uint16(257))
    assert run(folders, "--output", "./sixteen") == 0
    assert read_report(folders / "sixteen")["mean"] == read_report(folders / "eight")["mean"]


def test_predictions_of_another_size_are_refused_unless_resized(folders, capsys):
    small = Image.open(folders / "predictions" / "ape.png").resize((26, 20))
    write_image(folders / "predictions" / "ape.png", small)
    assert run(folders) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "ape.png: is 26x20, but the true alpha is 52x40" in error
    assert "--resize-predictions" in error
    assert run(folders, "--resize-predictions", "--output", "./report") == 0
    report = read_report(folders / "report")
    assert "bilinear" in report["protocol"]["resized"]
    assert (report["per_image"][0]["height"], report["per_image"][0]["width"]) == (40, 52)


# What is wrong is said at once.


def test_all_unmatched_stems_are_reported_at_once(folders, capsys):
    (folders / "predictions" / "ape.png").unlink()
    (folders / "predictions" / "cat.png").rename(folders / "predictions" / "cat_alpha.png")
    write_image(folders / "alphas" / "bee.bmp", make_alpha(SHAPES["bee"], 0))
    (folders / "images" / "bee.jpg").unlink()
    assert run(folders, "--images", "./images", "--output", "./report") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    for part in (
        "error: ",
        "no prediction for 2 of 3 alphas: ape, cat",
        "no image for 1 of 3 alphas: bee",
        "bee.bmp and bee.png have the same stem",
        "1 without an alpha: cat_alpha",
    ):
        assert part in captured.err
    assert not (folders / "report").exists()


def test_all_bad_files_are_reported_at_once(folders, capsys):
    data = (folders / "predictions" / "ape.png").read_bytes()
    (folders / "predictions" / "ape.png").write_bytes(data[: len(data) // 2])
    (folders / "alphas" / "bee.png").write_bytes(b"")
    for name, shape in SHAPES.items():
        write_image(folders / "trimaps" / f"{name}.png", np.zeros(shape, np.uint8))
    smooth = np.arange(48 * 48).reshape(48, 48) // 9
    write_image(folders / "trimaps" / "cat.png", smooth.astype(np.uint8))
    write_image(folders / "trimaps" / "ape.png", np.zeros((7, 9), np.uint8))
    assert run(folders, "--trimaps", "./trimaps", "--output", "./report") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "4 problems" in captured.err
    for part in (
        "predictions/ape.png: damaged or truncated",
        "alphas/bee.png: empty file",
        "trimaps/ape.png: is 9x7, but the true alpha is 52x40",
        "trimaps/cat.png: Expected a trimap of 0, one grey level",
    ):
        assert part in captured.err
    assert not (folders / "report").exists()


def test_many_problems_are_cut_short(folders, capsys):
    for number in range(30):
        write_image(folders / "alphas" / f"{number:02}.png", np.zeros((2, 2), np.uint8))
        (folders / "predictions" / f"{number:02}.png").write_bytes(b"no image")
    assert run(folders) == 2
    error = capsys.readouterr().err
    assert "30 problems" in error
    assert "... and 10 more" in error
    assert len(error.splitlines()) == 22


def test_predictions_without_an_alpha_are_left_out_with_a_note(folders, capsys):
    write_image(folders / "predictions" / "dog.png", np.zeros((2, 2), np.uint8))
    assert run(folders) == 0
    captured = capsys.readouterr()
    assert "1 without an alpha: dog; not scored" in captured.err
    assert "3 images" in captured.out


def test_predictions_of_the_predict_command(folders):
    expected = expected_scores(folders)
    for name in SHAPES:
        path = folders / "predictions" / f"{name}.png"
        path.rename(path.with_name(f"{name}.alpha.png"))
    write_image(folders / "predictions/ape.cutout.png", np.zeros((2, 2, 4), np.uint8))
    assert run(folders, "--output", "./report") == 0
    rows = read_report(folders / "report")["per_image"]
    assert [row["sad"] for row in rows] == [row["sad"] for row in expected]


def test_folders_in_folders(folders, capsys):
    for kind in ("alphas", "predictions"):
        (folders / kind / "deep").mkdir()
        path = folders / kind / "cat.png"
        path.rename(folders / kind / "deep" / path.name)
        (folders / kind / "x.psd").touch()
    assert run(folders) == 0
    captured = capsys.readouterr()
    assert "2 images" in captured.out
    left_out = "left out 1 .psd: not photos that can be read"
    assert captured.err.splitlines() == [
        f"note: {folders / kind}: {left_out}; did not search 1 folder in it (--recursive does)"
        for kind in ("alphas", "predictions")
    ]
    assert run(folders, "--recursive", "--output", "./report") == 0
    rows = read_report(folders / "report")["per_image"]
    assert [row["name"] for row in rows] == ["ape", "bee", "deep/cat"]


def test_masks_of_0_and_1_are_understood_as_truth_and_refused_as_predictions(folders, capsys):
    masks = {name: (make_alpha(shape, 0) > 127).astype(np.uint8) for name, shape in SHAPES.items()}
    for name, mask in masks.items():
        write_image(folders / "alphas" / f"{name}.png", mask)
        write_image(folders / "predictions" / f"{name}.png", mask * np.uint8(255))
    assert run(folders, "--output", "./report") == 0
    assert read_report(folders / "report")["mean"]["iou"] == 1
    for name, mask in masks.items():
        write_image(folders / "predictions" / f"{name}.png", mask)
    capsys.readouterr()
    assert run(folders) == 2
    assert "predictions: no matte is above level 1, expected 255" in capsys.readouterr().err


def test_empty_predictions_are_scored_with_a_warning(folders, capsys):
    for name, shape in SHAPES.items():
        write_image(folders / "predictions" / f"{name}.png", np.zeros(shape, np.uint8))
    assert run(folders) == 0
    assert "warning: " in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_known_first(folders, capsys, monkeypatch):
    monkeypatch.setattr(scoring, "find_cases", lambda *_: pytest.fail("files were read"))
    (folders / "file").touch()
    assert run(folders, "--output", "./file") == 2
    assert "file: expected a folder" in capsys.readouterr().err


def test_missing_and_empty_folders_are_named(folders, capsys):
    (folders / "empty").mkdir()
    assert evaluate.main(["--predictions", f"{folders}/no", "--alphas", f"{folders}/alphas"]) == 2
    assert "no: expected a folder of images, but it does not exist" in capsys.readouterr().err
    assert (
        evaluate.main(["--predictions", f"{folders}/alphas", "--alphas", f"{folders}/empty"]) == 2
    )
    assert "empty: no images there" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["report.csv", "report.json", "sheet.png", "all.zip"])
def test_a_report_is_not_called_as_a_file(folders, capsys, name):
    """It would become a folder of that name."""
    assert run(folders, "--output", f"./{name}") == 2
    assert f"{name}: names a .{name.rpartition('.')[2]} file" in capsys.readouterr().err
    assert not (folders / name).exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give either"),
        (["--alphas", "a"], "give either"),
        (["--predictions", "p"], "--predictions needs --alphas"),
        (["--model", "m"], "give either"),
        (["--model", "m", "--data", "i", "a", "--alphas", "b"], "--data names the alphas"),
        (["--model", "m", "--predictions", "p", "--alphas", "a"], "and no --model"),
        (["--predictions", "p", "--data", "i", "a"], "give either"),
        (["--predictions", "p", "--alphas", "a", "--threads", "2"], "and no --model"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message, capsys):
    assert evaluate.main(options) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "m", "--data", "i"], "--data: expected 2 arguments"),
        (["--predictions", "p", "--alphas", "a", "--band", "-1"], "--band"),
        (["--predictions", "p", "--alphas", "a", "--workers", "0"], "--workers"),
    ],
)
def test_wrong_options_are_refused(options, message, capsys):
    with pytest.raises(SystemExit) as exit_info:
        evaluate.main(options)
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


def test_tensorflow_is_not_imported_to_score_files(folders):
    code = (
        "import sys; from kmatting.evaluate import main; status = main(sys.argv[1:]); "
        "heavy = {'tensorflow', 'keras', 'scipy', 'pydantic', 'kmatting.inference.matter'}; "
        "print(sorted(heavy & set(sys.modules))); "
        "sys.exit(status)"
    )
    options = ["--predictions", folders / "predictions", "--alphas", folders / "alphas"]
    result = subprocess.run(
        [sys.executable, "-c", code, *options, "--output", folders / "report"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines()[-1] == "[]"


# Scoring a model.


@pytest.fixture
def fake_matter(monkeypatch):
    """Stands in for the matter module: alpha is the red channel, slightly off the 8-bit levels."""
    calls = []

    class Matter:
        def __init__(self, path, size=None, threads=None, quality="fast"):
            calls.append((str(path), size, threads, quality))

        def __call__(self, source):
            if Matter.interrupt:
                raise KeyboardInterrupt
            if Matter.fails_for is not None and Matter.fails_for in str(source):
                raise Matter.error
            red = np.asarray(Image.open(source))[..., 0]
            alpha = np.clip(red.astype(np.float32) / 255 + 0.001, 0, 1)
            return types.SimpleNamespace(alpha=alpha)

    Matter.interrupt = False
    Matter.fails_for = None
    Matter.error = ImageError("the model returned numbers that are not finite.")
    Matter.calls = calls
    module = types.ModuleType("kmatting.inference.matter")
    module.Matter = Matter
    monkeypatch.setitem(sys.modules, "kmatting.inference.matter", module)
    return Matter


def run_model(folder, *options):
    data = ["--data", f"{folder}/images", f"{folder}/alphas"]
    return evaluate.main(["--model", "m.tflite", *data, "--output", f"{folder}/report", *options])


def test_a_model_is_scored_at_the_photos_own_size(folders, fake_matter):
    options = ["--size", "320", "--threads", "2", "--quality", "high"]
    assert run_model(folders, *options) == 0
    assert fake_matter.calls == [("m.tflite", 320, 2, "high")]
    report = read_report(folders / "report")
    assert report["predictions"] == "m.tflite at size 320, quality high"
    for row in report["per_image"]:
        truth = read_alpha(folders / "alphas" / f"{row['name']}.png")
        red = np.asarray(Image.open(folders / "images" / f"{row['name']}.jpg"))[..., 0]
        assert row["sad"] == metrics.sad(truth, red)
    assert (folders / "report" / "sheet.png").exists()


def test_photos_of_another_size_than_their_alphas_are_refused(folders, fake_matter, capsys):
    Image.new("RGB", (20, 30)).save(folders / "images" / "cat.jpg")
    assert run_model(folders) == 2
    assert "cat.jpg: is 20x30, but the true alpha is 48x48" in capsys.readouterr().err
    assert not (folders / "report").exists()
    assert run_model(folders, "--resize-predictions") == 0


def test_an_image_that_cannot_be_scored_is_named(folders, fake_matter, capsys):
    """Its absence from the means is never silent."""
    fake_matter.fails_for = "bee"
    assert run_model(folders) == 1
    captured = capsys.readouterr()
    assert captured.err == "error: bee: the model returned numbers that are not finite.\n"
    assert "2 of 3 images; 1 could not be scored" in captured.out
    report = read_report(folders / "report")
    assert [row["name"] for row in report["per_image"]] == ["ape", "cat"]
    assert report["failed"] == {"bee": "the model returned numbers that are not finite."}


def test_no_image_can_be_scored(folders, fake_matter, capsys):
    fake_matter.fails_for = ""
    assert run_model(folders) == 2
    assert capsys.readouterr().err.endswith("error: no image could be scored.\n")
    assert not (folders / "report").exists()


def test_an_image_that_meets_a_bug_is_an_internal_error(folders, fake_matter, capsys):
    fake_matter.fails_for, fake_matter.error = "bee", IndexError("a wrong index")
    assert run_model(folders) == 70
    out, err = capsys.readouterr()
    assert err.startswith("Traceback (most recent call last):\n")
    assert "this is a bug of kmatting (kmatting/scoring/run.py, line " in err
    assert err.endswith("error: bee: internal error (IndexError: a wrong index)\n")
    assert "2 of 3 images; 1 could not be scored" in out
    report = read_report(folders / "report")
    assert [row["name"] for row in report["per_image"]] == ["ape", "cat"]
    assert report["internal_errors"] == 1


def test_a_bug_in_every_image_is_no_error_of_the_user(folders, fake_matter, capsys):
    fake_matter.fails_for, fake_matter.error = "", ValueError("a wrong shape")
    assert run_model(folders) == 70
    assert "Traceback" in capsys.readouterr().err
    assert not (folders / "report").exists()


def test_interruption_writes_nothing(folders, fake_matter, capsys):
    fake_matter.interrupt = True
    assert run_model(folders) == 130
    assert "interrupted" in capsys.readouterr().err
    assert not (folders / "report").exists()


def test_a_real_keras_model_end_to_end(folders, tmp_path):
    import keras

    image = keras.Input((None, None, 3))
    convolution = keras.layers.Conv2D(1, 1, activation="sigmoid", dtype="float32")
    model = keras.Model(image, convolution(image))
    # Red above one half is foreground: nearly the alpha that the images were made from.
    convolution.set_weights(
        [np.array([20, 0, 0], np.float32).reshape(1, 1, 3, 1), np.array([-10.0])]
    )
    model.save(tmp_path / "model.keras")
    data = [f"{folders}/images", f"{folders}/alphas"]
    options = ["--data", *data, "--output", f"{folders}/report"]
    assert evaluate.main(["--model", str(tmp_path / "model.keras"), *options]) == 0
    report = read_report(folders / "report")
    assert report["images"] == 3
    assert report["mean"]["iou"] > 0.8
    assert report["mean"]["mad"] < 0.05


# Videos.


def write_folder(folder, mattes):
    for number, matte in enumerate(mattes):
        write_image(folder / f"{number:03d}.png", matte)
    return folder


@pytest.fixture
def videos(tmp_path):
    """A true and a predicted video: the prediction flickers in its third frame."""
    truth = [make_alpha((40, 52), 0)] * 4
    prediction = [truth[0], truth[0], truth[0] // 2, truth[0]]
    return (
        write_folder(tmp_path / "predicted", prediction),
        write_folder(tmp_path / "true", truth),
        prediction,
        truth,
    )


def test_a_video_is_scored_by_frame_and_by_its_flicker(videos, tmp_path, capsys):
    predicted, true, prediction, truth = videos
    pytest.importorskip("av")
    command = ["--video", str(predicted), str(true), "--output", str(tmp_path / "report")]
    assert evaluate.main(command) == 0
    report = read_report(tmp_path / "report")
    rows = report["per_image"]
    assert [row["name"] for row in rows] == [f"frame {number}" for number in range(4)]
    assert [row["mad"] for row in rows] == [
        metrics.mad(*pair) for pair in zip(truth, prediction, strict=True)
    ]
    jump = metrics.dtssd(truth[2], prediction[2], truth[1], prediction[1])
    assert jump > 10
    assert [row["dtssd"] for row in rows] == [None, 0, jump, jump]
    assert report["mean"]["dtssd"] == pytest.approx(2 * jump / 3)
    out = capsys.readouterr().out
    assert "4 frames" in out and "dtSSD" in out and f"{2 * jump / 3:.4f}" in out


def test_videos_that_do_not_match_are_refused(videos, tmp_path, capsys):
    predicted, true, prediction, _ = videos
    pytest.importorskip("av")
    (predicted / "003.png").unlink()
    assert evaluate.main(["--video", str(predicted), str(true)]) == 2
    assert f"{predicted}: has 3 frames, but {true} has more." in capsys.readouterr().err
    small = write_folder(tmp_path / "small", [matte[:30] for matte in prediction])
    assert evaluate.main(["--video", str(small), str(true)]) == 2
    assert "is 52x30, but the truth is 52x40" in capsys.readouterr().err
    assert evaluate.main(["--video", str(small), str(true), "--resize-predictions"]) == 0


def test_video_stands_alone(videos, capsys):
    predicted, true, *_ = videos
    for more in (["--alphas", "a"], ["--model", "m"], ["--data", "a", "b"], ["--trimaps", "t"]):
        with pytest.raises(SystemExit):
            evaluate.main(["--video", str(predicted), str(true), *more])
        assert "--video can only be combined with" in capsys.readouterr().err
