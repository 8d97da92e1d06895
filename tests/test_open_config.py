"""Open weights: their config names free data alone, and the list of it is complete."""

import csv
import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from kmatting.config import load_config

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from renders import backgrounds, free, picture, plan  # noqa: E402

CONFIG = ROOT / "configs" / "open-1.yaml"
LATER = ROOT / "configs" / "open-2.yaml"
THIRD = ROOT / "configs" / "open-3.yaml"
LAST = ROOT / "configs" / "open.yaml"
PAIRS = {"kind": "pairs", "images": "data/free/renders", "alphas": "data/masks"}
SHARDS = {"kind": "shards", "shards": "data/free/renders"}
PAGE = "https://example.org/city"
RESEARCH = {"kind": "backgrounds", "images": "data/backgrounds"}


def test_the_configs_name_free_data_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # who trained here has the runs
    first = load_config(CONFIG)
    assert free.refused(first) == []
    assert first.model.weights is None
    assert {str(folder) for folder, _ in free.named_folders(first)} == {
        "data/free/renders",
        "data/free/backgrounds",
    }
    for path, run in ((LATER, "open-1"), (THIRD, "open-2"), (LAST, "open-3")):
        config = load_config(path)
        weights = f"runs/{run}/best.keras"
        assert config.model.weights == Path(weights)
        (line,) = free.refused(config)  # nothing was trained here
        assert line.startswith(f"model.weights: {weights}: expected none, or those in a run's")


def test_weights_of_a_run_are_refused_or_not_by_what_it_saw(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    of_run = Path("runs/open-1/config.yaml")
    of_later = Path("runs/open-2/config.yaml")
    of_third = Path("runs/open-3/config.yaml")
    for path, source in ((of_run, CONFIG), (of_later, LATER), (of_third, THIRD)):
        path.parent.mkdir(parents=True)
        shutil.copy(source, path)
    last = load_config(LAST)
    assert free.refused(last) == []
    for earlier in (CONFIG, LATER, THIRD):
        assert free.named_folders(last) >= free.named_folders(load_config(earlier))
    of_run.write_text(CONFIG.read_text().replace("data/free/renders", "data/things"))
    lines = free.refused(last)
    assert len(lines) == 2
    assert lines[0] == (
        f"{of_third}: {of_later}: {of_run}: foregrounds: data/things: expected a folder in "
        "data/free"
    )
    of_run.write_text(CONFIG.read_text().replace("skips: true", "skips: true\n  weights: shipped"))
    (line,) = free.refused(last)
    assert line.startswith(
        f"{of_third}: {of_later}: {of_run}: model.weights: shipped: expected none"
    )


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model.weights", "shipped", "model.weights: shipped"),
        ("model.weights", "data/free/best.keras", "model.weights: data/free/best.keras"),
        ("model.encoder_weights", "mine.weights.h5", "model.encoder_weights: mine.weights.h5"),
        ("data.train.0.foregrounds", "data/things/image", "foregrounds: data/things/image"),
        ("data.train.0.foregrounds", "data/free/../things", "foregrounds: data/free/../things"),
        ("data.train.0.foregrounds", "/data/free/renders", "foregrounds: /data/free/renders"),
        ("data.train.0.alphas", "data/things/alpha", "alphas: data/things/alpha"),
        ("data.train.0.backgrounds", "data/backgrounds", "backgrounds: data/backgrounds"),
        ("data.train.2", RESEARCH, "images: data/backgrounds"),
        ("data.train.2", PAIRS, "alphas: data/masks"),
        ("data.train.2", SHARDS, "a source of the kind shards"),
        ("data.validation", [RESEARCH], "images: data/backgrounds"),
    ],
)
def test_anything_else_is_refused(key, value, said):
    (line,) = free.refused(load_config(CONFIG, {key: value}))
    assert line.startswith(f"{said}: expected")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Folders as `renders.render` and `renders.backgrounds` leave them, in the place of both."""
    monkeypatch.chdir(tmp_path)
    renders, views = Path("data/free/renders"), Path("data/free/backgrounds")
    views.mkdir(parents=True)
    rgba = np.random.default_rng(0).integers(0, 256, (9, 7, 4), np.uint8)
    terms = {"author": "Zoë", "licence": "CC-BY-3.0"}
    picture.save(rgba, renders / "chair.png", {"Author": "Zoë", "Licence": "CC-BY-3.0"})
    write_log(renders, {"file": "lamp.png", "error": "nothing to see"})
    write_log(renders, {"file": "chair.png", "title": "A chair", **terms})
    terms = {"author": "Poly Haven", "licence": "CC0-1.0"}
    picture.save_photo(rgba[..., :3], views / "city-00.jpg", **terms)
    write_log(views, {"file": "city-00.jpg", "title": "A city", **terms, "url": PAGE})
    return renders, views


def write_log(folder, line):
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


def test_the_list_has_each_file_with_its_terms(folders, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["free", str(CONFIG), "list.csv"])
    free.main()
    with Path("list.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [list(row.values()) for row in rows] == [
        [name, hashlib.sha256(Path(name).read_bytes()).hexdigest(), *terms]
        for name, *terms in (
            ("data/free/backgrounds/city-00.jpg", "A city", "Poly Haven", "CC0-1.0", PAGE),
            ("data/free/renders/chair.png", "A chair", "Zoë", "CC-BY-3.0", ""),
        )
    ]
    assert list(rows[0]) == ["file", "sha256", "title", "author", "licence", "url"]


def test_a_list_that_breaks_off_leaves_the_one_before(folders, monkeypatch):
    Path("list.csv").write_text("before")
    monkeypatch.setattr(sys, "argv", ["free", str(CONFIG), "list.csv"])
    writerows = csv.DictWriter.writerows

    def breaks_off(table, rows):
        writerows(table, rows[:1])
        raise OSError("no space left")

    monkeypatch.setattr(csv.DictWriter, "writerows", breaks_off)
    with pytest.raises(OSError, match="no space left"):
        free.main()
    assert sorted(path.name for path in Path().iterdir()) == ["data", "list.csv"]
    assert Path("list.csv").read_text() == "before"


@pytest.mark.parametrize("missing", [True, False])
def test_no_list_without_the_photos_of_a_folder(folders, monkeypatch, missing):
    _, views = folders
    (views / "city-00.jpg").unlink()
    if missing:
        shutil.rmtree(views)
    monkeypatch.setattr(sys, "argv", ["free", str(CONFIG), "list.csv"])
    with pytest.raises(SystemExit, match="free/backgrounds: expected a folder of images, but it"):
        free.main()
    assert not Path("list.csv").exists()


def test_no_list_of_a_config_that_is_refused(folders, monkeypatch):
    Path("open.yaml").write_text(CONFIG.read_text().replace("data/free/b", "data/b"))
    monkeypatch.setattr(sys, "argv", ["free", "open.yaml", "list.csv"])
    with pytest.raises(SystemExit, match="data/backgrounds: expected a folder in data/free"):
        free.main()
    assert not Path("list.csv").exists()


def test_what_no_log_tells_of_is_refused(folders):
    renders, _ = folders
    rgba = np.zeros((4, 4, 4), np.uint8)
    picture.save(rgba, renders / "lamp.png", {"Author": "Zoë", "Licence": "CC0-1.0"})
    with pytest.raises(SystemExit, match=r"lamp\.png: not in the log"):
        free.rows(renders)
    (renders / "log.jsonl").unlink()
    with pytest.raises(SystemExit, match=r"log\.jsonl is missing"):
        free.rows(renders)


@pytest.mark.parametrize("licence", ["CC-BY-SA-3.0", "CC-BY-NC-4.0", "GPL-3.0", "research only"])
def test_other_licences_are_refused(folders, licence):
    _, views = folders
    terms = {"author": "Poly Haven", "licence": licence}
    picture.save_photo(np.zeros((4, 4, 3), np.uint8), views / "sea-00.jpg", **terms)
    write_log(views, {"file": "sea-00.jpg", "title": "The sea", **terms})
    with pytest.raises(SystemExit, match=f"sea-00.jpg: {licence} is not free"):
        free.rows(views)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_file_under_another_s_name_is_refused(folders, suffix):
    folder = folders[suffix == ".jpg"]
    (path,) = folder.glob(f"*{suffix}")
    rgba = np.zeros((4, 4, 4), np.uint8)
    if suffix == ".png":
        picture.save(rgba, path, {"Author": "Zoë", "Licence": "CC0-1.0"})
    else:
        picture.save_photo(rgba[..., :3], path, author="Someone", licence="CC0-1.0")
    with pytest.raises(SystemExit, match=f"{path.name}: expected the terms"):
        free.rows(folder)


# The views of panoramas that the backgrounds are.


def test_views_go_all_around_and_are_the_same_everywhere():
    drawn = [backgrounds.drawn("city", index) for index in range(backgrounds.VIEWS)]
    assert [int(view.turn // 30) for view in drawn] == list(range(12))
    assert len({view.height for view in drawn}) == 12
    assert drawn[3] == backgrounds.View(
        turn=110.45114079097704, height=2.30068511040659, field=87.5154843635003
    )


def test_a_view_shows_what_lies_in_its_field():
    view = backgrounds.View(turn=10, height=0, field=80)
    assert view.shows(10) and view.shows(57) and view.shows(323)
    assert not view.shows(59) and not view.shows(321) and not view.shows(190)


def test_panoramas_with_a_subject_are_in_the_sources():
    assert backgrounds.SUBJECTS.keys() <= {p["name"] for p in plan.sources()["panoramas"]}


def test_sky_and_black_are_bare_and_a_floor_is_not():
    down, across = np.mgrid[:480, :640]
    sky = np.repeat((100 + down // 4)[..., None], 3, 2).astype(np.uint8)
    assert backgrounds.bare(sky)
    assert backgrounds.bare(np.zeros_like(sky))
    floor = np.random.default_rng(0).integers(0, 256, sky.shape, np.uint8)
    low = down[..., None] >= 400
    assert backgrounds.bare(np.where(low & (across[..., None] < 320), floor, sky))
    assert not backgrounds.bare(np.where(low, floor, sky))
