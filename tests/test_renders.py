"""renders/: sources, the split, pictures, the example set that comes with the repository."""

import csv
import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from renders import catalogue, fetch, picture, plan, sheet  # noqa: E402

EXAMPLES = ROOT / "examples" / "data"
NUMBERS = [409, 98, 607]


@pytest.fixture(scope="module")
def listed():
    return plan.sources()


def test_each_source_names_author_terms_and_place(listed):
    packs = {pack["name"]: pack for pack in listed["packs"]}
    models = [plan.Model(**entry) for entry in listed["models"]]
    assert len(models) >= 500
    for model in models:
        assert model.licence in plan.LICENCES, model
        assert model.author and model.title and model.pack in packs, model
        assert re.fullmatch(r"[0-9a-f]{64}", model.sha256), model
        assert re.fullmatch(r"[A-Za-z0-9_]+", model.name), model
    assert len({m.name for m in models}) == len(models)
    for pack in packs.values():
        assert pack["from"] and pack["licence"]
        assert "commit" in pack or "Debian" in pack["from"] or "PyPI" in pack["from"]


def test_panoramas_are_cc0(listed):
    assert len(listed["panoramas"]) >= 40
    assert {p["licence"] for p in listed["panoramas"]} == {"CC0-1.0"}
    assert all(re.fullmatch(r"[0-9a-f]{64}", p["sha256"]) for p in listed["panoramas"])


def test_licences_are_cc0_and_cc_by():
    assert all(re.fullmatch(r"CC0-1\.0|CC-BY-[0-9.]+(-US)?", name) for name in plan.LICENCES)


def test_held_out_models_are_about_one_in_seven(listed):
    names = [m["name"] for m in listed["models"]]
    share = sum(map(plan.held_out, names)) / len(names)
    assert 0.11 < share < 0.19
    # The split may never move: a benchmark would hold what training saw.
    assert plan.held_out("scopia_bicycle") == (
        int(hashlib.sha256(b"scopia_bicycle").hexdigest()[:8], 16) % 100 < 15
    )


def test_panoramas_of_the_benchmark_light_no_training(listed):
    seen = set(plan.panoramas(listed, Path("packs")))
    unseen = set(plan.panoramas(listed, Path("packs"), unseen=True))
    assert seen and unseen and not seen & unseen
    assert len(seen | unseen) == len(listed["panoramas"])


def test_thin_models_come_first(listed):
    made = [m for m in plan.models(listed) if m.kind != plan.SCAN]
    thin = [bool(plan.THIN.search(f"{m.title} {m.name}")) for m in made]
    assert thin == sorted(thin, reverse=True)


def test_scans_come_last_so_that_the_first_pictures_stay_what_they_were(listed):
    scans = [m.kind == plan.SCAN for m in plan.models(listed)]
    assert scans == sorted(scans) and 80 <= sum(scans) < len(scans)


def test_a_job_has_the_same_name_and_numbers_everywhere():
    job = plan.Job("hair", "long", 7)
    assert job.file == "hair-long-007.png"
    assert job.rng().integers(1000, size=3).tolist() == NUMBERS
    assert plan.Job("hair", "long", 8).rng().integers(1000, size=3).tolist() != NUMBERS


def test_straight_gives_back_colour_and_alpha():
    linear = np.array([0.5, 0.2, 0.05])
    alpha = np.tile(np.linspace(0, 1, 32), (32, 1)).astype(np.float32)
    rgba = picture.straight(linear * alpha[..., None], alpha)
    assert np.array_equal(rgba[..., 3], np.round(alpha * 255))
    expected = np.round(picture.to_srgb(linear) * 255)
    assert np.abs(rgba[:, 8:, :3] - expected).max() <= 1
    # Under what is transparent lies the colour of its neighbourhood, not black.
    assert np.abs(rgba[..., :3].astype(int) - expected).max() <= 3


def test_srgb_of_known_values():
    values = picture.to_srgb(np.array([-1, 0, 0.0031308, 0.2140, 1, 7.0]))
    assert np.allclose(values, [0, 0, 0.04045, 0.5, 1, 1], atol=1e-3)


def test_a_saved_picture_is_whole_and_leaves_nothing_beside(tmp_path):
    rgba = np.random.default_rng(0).integers(0, 256, (9, 7, 4), np.uint8)
    picture.save(rgba, tmp_path / "new" / "one.png", {"Author": "Zoë", "Licence": "CC0-1.0"})
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["one.png"]
    with Image.open(tmp_path / "new" / "one.png") as saved:
        assert np.array_equal(np.array(saved), rgba)
        assert saved.text == {"Author": "Zoë", "Licence": "CC0-1.0"}


def test_a_model_s_own_licence_file_wins(tmp_path):
    assert catalogue.terms(tmp_path, "CC0-1.0") == "CC0-1.0"
    licence = tmp_path / "1 - License.html"
    licence.write_text("<p>Creative Commons\n <b>Attribution 3.0</b></p> You are free to share")
    assert catalogue.terms(tmp_path, "CC0-1.0") == "CC-BY-3.0"
    licence.write_text("Creative Commons Zero (Public Domain)")
    assert catalogue.terms(tmp_path, "CC-BY-3.0") == "CC0-1.0"
    for refused in (
        "Creative Commons Attribution-ShareAlike 3.0",
        "Creative Commons Attribution 3.0 ShareAlike",
        "GPL",
    ):
        licence.write_text(refused)
        with pytest.raises(ValueError, match="found neither"):
            catalogue.terms(tmp_path, "CC0-1.0")


def test_fetch_refuses_a_file_that_is_another(tmp_path):
    path = tmp_path / "pack" / "model.obj"
    path.parent.mkdir()
    with pytest.raises(SystemExit, match=r"model\.obj is missing: delete .*/pack and run"):
        fetch.expect("pack/model.obj", tmp_path, "0" * 64)
    path.write_bytes(b"v 0 0 0")
    with pytest.raises(SystemExit, match="expected sha256 0000"):
        fetch.expect("pack/model.obj", tmp_path, "0" * 64)
    fetch.expect("pack/model.obj", tmp_path, hashlib.sha256(b"v 0 0 0").hexdigest())


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def cut_off(function, times):
    """Returns a function that is interrupted after some calls."""
    left = iter(range(times))

    def called(*arguments, **named):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return function(*arguments, **named)

    return called


def fetched(tmp_path, monkeypatch, pack, models=()):
    """Runs renders.fetch for one pack."""
    listed = {"packs": [pack], "panoramas": [], "models": list(models)}
    monkeypatch.setattr(plan, "sources", lambda: listed)
    clone = f"{pack['name']}={tmp_path / 'clone'}"
    monkeypatch.setattr(sys, "argv", ["fetch", str(tmp_path / "packs"), "--git", clone])
    fetch.main()
    return files(tmp_path / "packs")


@pytest.fixture
def repository(tmp_path):
    """A pack of two files and its clone."""
    clone = tmp_path / "clone"
    (clone / "hdri").mkdir(parents=True)

    def git(*words):
        of = ["-c", "user.name=Zoe", "-c", "user.email=zoe@example.org"]
        return subprocess.check_output(["git", "-C", str(clone), *of, *words], text=True).strip()

    git("init", "--quiet")
    for name in ("a.exr", "b.exr"):
        (clone / "hdri" / name).write_text(name)
    git("add", ".")
    git("commit", "--quiet", "--no-gpg-sign", "--message", "both")
    blob = git("rev-parse", "HEAD:hdri/a.exr")
    pack = {"name": "sky", "from": "nowhere", "commit": git("rev-parse", "HEAD"), "paths": ["hdri"]}
    return pack, clone / ".git" / "objects" / blob[:2] / blob[2:]


def test_a_repository_that_was_cut_off_is_fetched_again(repository, tmp_path, monkeypatch):
    pack, _ = repository
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(subprocess, "run", cut_off(subprocess.run, 2))
        fetched(tmp_path, patched, pack)
    assert files(tmp_path / "packs") == ["sky.part/hdri/a.exr"]
    (tmp_path / "packs/sky.part/old.exr").touch()
    assert fetched(tmp_path, monkeypatch, pack) == ["sky/hdri/a.exr", "sky/hdri/b.exr"]
    assert [p.name for p in (tmp_path / "packs").iterdir()] == ["sky"]


def test_files_that_a_snapshot_lacks_are_named(repository, tmp_path, monkeypatch, capsys):
    pack, blob = repository
    blob.unlink()
    assert fetched(tmp_path, monkeypatch, pack) == ["sky/hdri/b.exr"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" could")[0] for line in lines if " could" in line] == ["sky/hdri/a.exr"]
    assert "could not be read: fatal: " in lines[0]


def test_scans_state_the_terms_of_their_pack_and_failed_ones_are_left_out(tmp_path):
    failed = sorted(catalogue.FAILED)[0]
    for place in (
        *(f"YCB_Dataset/ycb/{name}/textured.obj" for name in ("power_drill", failed)),
        *(f"drake-models/tutorials/models/assets/{n}.gltf" for n in catalogue.POLY_HAVEN),
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(place)
    of_name = {scan["name"]: scan for scan in catalogue.scans(tmp_path)}
    assert len(of_name) == 1 + len(catalogue.POLY_HAVEN)
    drill, sofa = of_name["ycb_power_drill"], of_name["polyhaven_sofa_03"]
    assert drill["licence"] == "CC-BY-4.0" and "Calli" in drill["author"]
    assert drill["title"] == "Power drill"
    assert drill["path"] == "YCB_Dataset/ycb/power_drill/textured.obj"
    assert drill["sha256"] == hashlib.sha256(drill["path"].encode()).hexdigest()
    assert (sofa["author"], sofa["licence"]) == ("Poly Haven", "CC0-1.0")


def test_catalogues_that_were_cut_off_are_fetched_again(tmp_path, monkeypatch):
    names = ["Scopia", "Trees"]
    pack = {"name": fetch.FURNITURE, "from": "Debian, package furniture 1"}
    pack["sha256"] = hashlib.sha256(b"deb").hexdigest()
    digest = hashlib.sha256(b"v 0 0 0").hexdigest()
    places = [f"{name}/{letter}.obj" for name in names for letter in "ab"]
    models = [{"pack": pack["name"], "path": place, "sha256": digest} for place in places]
    ran = []

    def run(words, cwd=None, check=True):
        ran.append(words[0])
        if words[0] == "apt-get":
            (Path(cwd) / "furniture.deb").write_bytes(b"deb")
            return
        for name in names:
            with zipfile.ZipFile(Path(words[-1]) / f"{name}.sh3f", "w") as archive:
                for letter in "ab":
                    archive.writestr(f"{letter}.obj", "v 0 0 0")

    extractall, unpacked = zipfile.ZipFile.extractall, []

    def half_of_the_second(archive, folder):
        if unpacked:
            archive.extract("a.obj", folder)
            raise KeyboardInterrupt
        unpacked.append(extractall(archive, folder))

    monkeypatch.setattr(subprocess, "run", run)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(zipfile.ZipFile, "extractall", half_of_the_second)
        fetched(tmp_path, patched, pack, models)
    assert len(files(tmp_path / "packs")) == 3
    for _ in range(2):
        assert fetched(tmp_path, monkeypatch, pack, models) == places
    assert ran == ["apt-get", "dpkg-deb"] * 2  # not a third time
    assert len(list((tmp_path / "packs").iterdir())) == 2


def test_blender_s_panoramas_that_were_cut_off_are_fetched_again(tmp_path, monkeypatch):
    world = tmp_path / "bpy" / "5.0" / "datafiles" / "studiolights" / "world"
    world.mkdir(parents=True)
    for name in ("a.exr", "b.exr"):
        (world / name).touch()
    found = SimpleNamespace(origin=str(tmp_path / "bpy" / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "copy", cut_off(shutil.copy, 1))
        fetched(tmp_path, patched, {"name": "bpy"})
    assert fetched(tmp_path, monkeypatch, {"name": "bpy"}) == ["bpy/a.exr", "bpy/b.exr"]


def test_sheet_shows_picture_and_alpha(tmp_path):
    Image.new("RGBA", (40, 20), (200, 0, 0, 128)).save(tmp_path / "half.png")
    tile = np.array(sheet.tile(tmp_path / "half.png", 40))
    assert tile.shape == (52, 80, 3)
    assert tile[20, 50].tolist() == [128, 128, 128]
    assert 100 < tile[20, 10, 0] < 200


# The set that comes with the repository.


def credited():
    rows = [
        line for line in (EXAMPLES / "CREDITS.md").read_text().splitlines() if line.startswith("| ")
    ]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_example_files_are_those_credited_and_cc0():
    rows = credited()
    there = {
        str(p.relative_to(EXAMPLES))
        for room in ("foregrounds", "backgrounds")
        for p in (EXAMPLES / room).iterdir()
    }
    assert {row[0] for row in rows} == there
    assert Counter(name.split("/")[0] for name in there) == {"foregrounds": 24, "backgrounds": 8}
    for name, source, author, licence, digest in rows:
        assert source and author and licence == "CC0-1.0", name
        assert hashlib.sha256((EXAMPLES / name).read_bytes()).hexdigest() == digest, name


def test_example_models_are_cc0_and_not_of_the_benchmark(listed):
    models = {m["path"]: m for m in listed["models"]}
    used = [models[row[1].split(", ")[-1]] for row in credited() if "sweethome3d" in row[1]]
    assert len(used) >= 10
    assert {m["licence"] for m in used} == {"CC0-1.0"}
    assert not [m["name"] for m in used if plan.held_out(m["name"])]
    views = [
        row[1].split("panorama ")[1].split(",")[0] for row in credited() if "panorama" in row[1]
    ]
    assert len(views) == 8
    assert not [name for name in views if plan.benchmark_only(name)]


def test_examples_take_at_most_4_mb():
    assert sum(p.stat().st_size for p in EXAMPLES.rglob("*.*")) <= 4_000_000


@pytest.mark.parametrize(
    "path", sorted((EXAMPLES / "foregrounds").glob("*.png")), ids=lambda p: p.stem
)
def test_example_alpha_is_straight_and_soft(path):
    rgba = np.array(Image.open(path))
    assert rgba.ndim == 3 and rgba.shape[2] == 4 and max(rgba.shape) <= 512
    alpha = rgba[..., 3]
    assert alpha.min() == 0
    assert (alpha > 100).mean() > 0.004
    soft = (alpha > 8) & (alpha < 247)
    assert soft.sum() > 200 and len(np.unique(alpha[soft])) > 20
    # Straight: premultiplied colours would be no brighter than alpha.
    assert (rgba[..., :3].max(-1)[soft] > alpha[soft]).any()


needs_bpy = pytest.mark.skipif(
    importlib.util.find_spec("bpy") is None, reason="bpy is not installed"
)


@needs_bpy
def test_the_same_seed_gives_the_same_picture_and_alpha_is_exact():
    from renders import holes, stage

    def made(samples):
        rng = plan.Job("holes", "net", 3).rng()
        scene = stage.empty()
        view = holes.build(rng, Path(), "net")
        view["focus"] = stage.normalise(scene, view.get("focus"))
        stage.grey(scene)
        stage.camera(scene, rng, 96, **view)
        return stage.render(scene, 1, samples, 3)

    first, again, finer = made(32), made(32), made(64)
    assert np.array_equal(first, again)
    difference = np.abs(first[..., 3].astype(int) - finer[..., 3]) / 255
    assert difference.mean() < 0.02
    assert 0.02 < (finer[..., 3] > 127).mean() < 0.9


# What decides which pictures there are: Blender draws nothing here, and need not be there.


@pytest.fixture
def no_bpy(monkeypatch):
    """Lets the modules that draw with bpy be imported without it."""
    if importlib.util.find_spec("bpy") is None:
        for name in ("bpy", "mathutils", "mathutils.bvhtree", "mathutils.kdtree"):
            monkeypatch.setitem(sys.modules, name, MagicMock())


@pytest.fixture
def packs(listed, tmp_path):
    """Empty files in the places of the models."""
    packs = tmp_path / "packs"
    for model in plan.models(listed):
        (packs / model.path).parent.mkdir(parents=True, exist_ok=True)
        (packs / model.path).touch()
    return packs


@pytest.fixture
def rendered(no_bpy, packs, tmp_path, monkeypatch):
    """Runs renders.render with another function in the place of its own; returns its log."""
    from renders import render

    def run(draw, *more, only="hair-", limit=2):
        monkeypatch.setattr(render, "render", draw)
        folders = [f"--{name}={tmp_path / 'out'}" for name in ("out", "held-out")]
        more = [f"--only={only}", f"--limit={limit}", *more]
        monkeypatch.setattr(sys, "argv", ["render", f"--packs={packs}", *folders, *more])
        render.main()
        return log(tmp_path / "out")

    return run


def log(folder):
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return {line["file"]: line for line in map(json.loads, lines)}


def drawn(*_):
    return {"rgba": np.full((4, 4, 4), 200, np.uint8), "panorama": "city.exr", "blur": ""}


def test_a_picture_that_was_stopped_is_made_the_next_time(rendered, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        rendered(cut_off(drawn, 1))
    assert files(tmp_path / "out") == ["hair-short-000.png", "log.jsonl"]
    lines = rendered(drawn)
    assert files(tmp_path / "out") == sorted([*lines, "log.jsonl"])
    assert len(lines) == 2 and lines["hair-short-000.png"]["panorama"] == "city.exr"


def test_a_picture_that_cannot_be_made_is_in_the_log(rendered, tmp_path):
    from renders import objects

    lines = rendered(MagicMock(side_effect=objects.Broken("nothing to see")), limit=1)
    assert lines["hair-short-000.png"]["error"] == "nothing to see"
    assert files(tmp_path / "out") == ["log.jsonl"]


def test_no_picture_is_without_its_line(rendered, tmp_path, monkeypatch):
    monkeypatch.setattr(picture, "save", MagicMock(side_effect=OSError("no space left")))
    with pytest.raises(OSError, match="no space left"):
        rendered(drawn)
    assert files(tmp_path / "out") == ["log.jsonl"]
    assert list(log(tmp_path / "out")) == ["hair-short-000.png"]


def test_pictures_that_blender_fell_over_are_counted(rendered, tmp_path, capfd):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "hair-short-000.png.begun").touch()
    assert "hair-short-000.png" not in rendered(drawn)
    assert capfd.readouterr().out.startswith("1 left out whose NAME.png.begun is there")


@pytest.fixture
def benchmarked(no_bpy, packs, tmp_path, monkeypatch):
    """Runs renders.benchmark for two scenes without drawing; returns its list."""
    from renders.benchmark import __main__ as benchmark

    def run(draw):
        monkeypatch.setattr(benchmark, "render", draw)
        arguments = [f"--packs={packs}", f"--out={tmp_path / 'benchmark'}", "--scenes=2"]
        monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
        benchmark.main()
        with (tmp_path / "benchmark" / "list.csv").open(encoding="utf-8") as file:
            return [row["name"] for row in csv.DictReader(file)]

    return run


def scene_drawn(*_):
    return np.full((4, 4, 4), 200, np.uint8), np.zeros((4, 4, 3), np.uint8)


def test_scans_change_no_scene(no_bpy, listed, packs):
    """The scenes are those that were published before there were scans."""
    from renders.benchmark import __main__ as benchmark

    before = [model for model in listed["models"] if model["kind"] != plan.SCAN]
    assert len(before) < len(listed["models"])
    scenes = list(benchmark.scenes(listed, packs))
    assert scenes == list(benchmark.scenes({**listed, "models": before}, packs))


def test_a_scene_whose_row_is_missing_gets_it(benchmarked, tmp_path):
    rows = benchmarked(scene_drawn)
    assert rows == ["hair-short-000", "fur-bear-001"]
    (tmp_path / "benchmark" / "list.csv").unlink()
    assert benchmarked(None) == rows  # draws nothing


def test_a_benchmark_s_list_that_breaks_off_leaves_the_one_before(
    benchmarked, tmp_path, monkeypatch
):
    from renders.benchmark import __main__ as benchmark

    benchmarked(scene_drawn)
    path = tmp_path / "benchmark" / "list.csv"
    before = path.read_bytes()
    full = property(MagicMock(side_effect=OSError("no space left")))
    with monkeypatch.context() as patched, pytest.raises(OSError, match="no space left"):
        patched.setattr(benchmark.Scene, "terms", full)
        benchmarked(None)
    assert path.read_bytes() == before


def test_the_benchmark_shows_only_what_no_training_saw(
    listed, packs, rendered, benchmarked, tmp_path, monkeypatch
):
    from renders import render
    from renders.benchmark import __main__ as benchmark

    scenes = list(benchmark.scenes(listed, packs))
    assert Counter(s.group for s in scenes) == dict.fromkeys(benchmark.GROUPS, 30)
    assert len({s.name for s in scenes}) == 240
    assert {s.group for s in scenes[:8]} == set(benchmark.GROUPS)
    assert all(plan.held_out(s.model.name) for s in scenes if s.model)

    seeds, models, lit = set(), set(), {"training": set(), "benchmark": set()}

    def write(job, model, folder, panoramas, options):
        lit["training"].update(panoramas)
        if folder.name != "held":
            models.add(model and model.name)
            seeds.update([job.seed] if model is None else [])

    def look(scene, packs, panoramas, *_):
        lit["benchmark"].update(panoramas)
        return scene_drawn()

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "log.jsonl").touch()
    monkeypatch.setattr(render, "write", write)
    rendered(None, f"--held-out={tmp_path / 'held'}", only="", limit=10**9)
    benchmarked(look)
    assert len(models) > 400 and not models & {s.model.name for s in scenes if s.model}
    assert max(seeds) < benchmark.FIRST_SEED
    assert lit["training"] and lit["benchmark"] and not lit["training"] & lit["benchmark"]
