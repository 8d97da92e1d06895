"""renders/photos.py: photos for open weights, from COCO and of clothes."""

import hashlib
import json
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from renders import fetch, free, photos, picture, plan  # noqa: E402

FIELDS = {"name", "pack", "path", "sha256", "title", "author", "licence", "url", "mask"}
PLACE = "coco/annotations/instances.json"
ANNOTATIONS = [
    # Corners are rounded, and both end points of a row are inside.
    {
        "id": 7,
        "segmentation": [[2.4, 3.1, 9.6, 3.1, 9.6, 7.8, 2.4, 7.8], [20, 1, 22, 1, 22, 2, 20, 2]],
    },
    {"id": 8, "segmentation": [[8, 6, 15, 6, 15, 12, 8, 12]]},
    {"id": 9, "segmentation": [[0, 0, 29, 0, 29, 19, 0, 19]]},
]
RING = [2, 3, 12, 3, 12, 11, 2, 11]
HOLE = [5, 6, 9, 6, 9, 8, 5, 8]


def noise(*size):
    return np.random.default_rng(0).integers(0, 256, size, np.uint8)


def shirt():
    """A photo (H, W, 3) of an ellipse on plain ground, and its matte of 0 and 1."""
    down, across = np.mgrid[:240, :180]
    matte = ((down - 120) / 75) ** 2 + ((across - 90) / 50) ** 2 <= 1
    photo = np.where(matte[..., None], (40, 60, 150), (205, 200, 190)) + noise(240, 180, 3) // 16
    return photo.astype(np.uint8), matte.astype(np.uint8)


def entry(path, packs, **other):
    """Lists a photo of the pack as photos.json does."""
    return {
        "name": path.stem,
        "pack": path.parent.name,
        "path": str(path.relative_to(packs)),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "title": f"A {path.stem}",
        "author": "Zoe",
        "licence": "CC-BY-2.0",
        "url": "https://example.org/zoe",
        **other,
    }


@pytest.fixture
def packs(tmp_path):
    """A pack of one photo with annotations and one of a thing on plain ground."""
    packs = tmp_path / "packs"
    (packs / PLACE).parent.mkdir(parents=True)
    (packs / PLACE).write_text(json.dumps({"annotations": ANNOTATIONS}))
    (packs / "clothes").mkdir()
    Image.fromarray(noise(20, 30, 3)).save(packs / "coco/coco_1.jpg", quality=80)
    Image.fromarray(shirt()[0]).save(packs / "clothes/cloth_1.jpg", quality=95)
    return packs


@pytest.fixture
def listed(packs, monkeypatch):
    """The list of both photos and two groups of one more, in the place of photos.json."""
    mask = {"annotations": PLACE, "ids": [7, 8]}
    entries = [
        entry(packs / "coco/coco_1.jpg", packs, mask=mask),
        entry(packs / "clothes/cloth_1.jpg", packs, mask="grabcut", licence="CC0-1.0"),
        entry(packs / "coco/coco_1.jpg", packs, name="drawn_1", mask={"polygons": [RING, HOLE]}),
        entry(packs / "coco/coco_1.jpg", packs, name="scene_1", mask=None),
    ]
    monkeypatch.setattr(photos, "listed", lambda: entries)
    digest = hashlib.sha256((packs / PLACE).read_bytes()).hexdigest()
    monkeypatch.setattr(photos, "digests", lambda: {PLACE: digest})
    return entries


def run(group, packs, out, monkeypatch):
    arguments = ["photos", "--packs", str(packs), "--out", str(out), "--only", group]
    monkeypatch.setattr(sys, "argv", arguments)
    photos.main()


def grey(path):
    with Image.open(path) as matte:
        assert matte.mode == "L"
        return np.array(matte)


# The list that ships.


def test_each_photo_names_author_terms_and_place():
    entries = photos.listed()
    packs = {pack["name"]: pack for pack in plan.sources(plan.PHOTOS)["packs"]}
    assert len(entries) >= 300
    for one in entries:
        assert one.keys() == FIELDS, one
        bare = photos.group(one) in {"scene", "empty", "wide"}
        assert [key for key in FIELDS if not one[key]] == (["mask"] if bare else []), one
        assert one["licence"] in {"CC0-1.0", "CC-BY-2.0"} & plan.LICENCES, one
        assert re.fullmatch(r"[0-9a-f]{64}", one["sha256"]), one
        numbered = r"(coco|cloth|drawn|drawn3|flower|scene|empty)_[0-9a-f-]+"
        assert re.fullmatch(rf"{numbered}|wide_[a-z]+", one["name"]), one
        assert one["author"].isascii(), one  # EXIF holds nothing else
        assert one["path"].startswith(one["pack"] + "/") and one["url"].startswith("https://"), one
    for key in ("name", "path", "sha256"):
        assert len({one[key] for one in entries}) == len(entries)
    assert {one["pack"] for one in entries} == packs.keys()
    assert all(re.fullmatch(r"[0-9a-f]{40}", pack["commit"]) for pack in packs.values())


def test_fetch_brings_each_photo_and_its_annotations():
    brought = [
        f"{pack['name']}/{path}"
        for pack in plan.sources(plan.PHOTOS)["packs"]
        for path in pack.get("paths", [])
    ]
    for one in photos.listed():
        needed = [one["path"]]
        if photos.group(one) == "coco":
            assert one["mask"].keys() == {"annotations", "ids"} and one["mask"]["ids"]
            needed.append(one["mask"]["annotations"])
        for path in needed:
            assert any(path == place or path.startswith(place + "/") for place in brought), path


def test_each_file_of_annotations_has_its_digest():
    masks = [one["mask"] for one in photos.listed() if photos.group(one) == "coco"]
    assert photos.digests().keys() == {mask["annotations"] for mask in masks}
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in photos.digests().values())


def test_each_outline_has_points_inside_its_photo():
    drawn = [one for one in photos.listed() if photos.group(one) in {"drawn", "flower"}]
    assert len(drawn) >= 100
    for one in drawn:
        assert one["mask"].keys() == {"polygons"}
        for polygon in one["mask"]["polygons"]:
            assert len(polygon) >= 6 and len(polygon) % 2 == 0, one["name"]
            # No photo has a longer side.
            assert 0 <= min(polygon) <= max(polygon) < 640, one["name"]


@pytest.mark.parametrize(("more", "came"), [([], ["hdri"]), (["--photos"], ["hdri", "coco"])])
def test_fetch_brings_photos_only_where_asked(tmp_path, monkeypatch, more, came):
    lists = {
        None: {"packs": [{"name": "hdri"}], "panoramas": [], "models": []},
        plan.PHOTOS: {"packs": [{"name": "coco"}]},
    }
    monkeypatch.setattr(plan, "sources", lambda path=None: lists[path])
    monkeypatch.setattr(sys, "argv", ["fetch", str(tmp_path), *more])
    asked = []
    monkeypatch.setattr(fetch, "git", lambda pack, packs, clone: asked.append(pack["name"]))
    fetch.main()
    assert asked == came


# The mattes.


def test_a_matte_is_the_union_of_its_polygons(packs, listed):
    matte = photos.matte(listed[0], packs, (packs / listed[0]["path"]).read_bytes())
    expected = np.zeros((20, 30), np.uint8)
    expected[3:9, 2:11] = 255
    expected[1:3, 20:23] = 255
    expected[6:13, 8:16] = 255
    np.testing.assert_array_equal(matte, expected)


def test_a_polygon_in_another_is_a_hole(packs, listed):
    matte = photos.matte(listed[2], packs, (packs / listed[2]["path"]).read_bytes())
    expected = np.zeros((20, 30), np.uint8)
    expected[3:12, 2:13] = 255
    expected[7:8, 6:9] = 0  # outlines belong to the subject
    np.testing.assert_array_equal(matte, expected)


def test_other_annotations_are_refused(packs, listed, tmp_path, monkeypatch):
    (packs / PLACE).write_text(json.dumps({"annotations": ANNOTATIONS[1:]}))
    with pytest.raises(SystemExit, match=r"instances\.json: expected sha256"):
        run("coco", packs, tmp_path / "out", monkeypatch)


def test_an_annotation_that_is_missing_is_named(packs, listed, tmp_path, monkeypatch):
    listed[0]["mask"]["ids"] = [7, 10]
    with pytest.raises(SystemExit, match=r"instances\.json: no annotation has the id 10$"):
        run("coco", packs, tmp_path / "out", monkeypatch)


def test_grabcut_finds_a_thing_on_plain_ground():
    photo, matte = shirt()
    found = photos.grabcut(cv2.cvtColor(photo, cv2.COLOR_RGB2BGR))
    assert set(np.unique(found)) == {0, 255}
    assert photos.iou(found // 255, matte) > 0.97


def test_chance_decides_nothing():
    down, across = np.mgrid[:60, :60]
    patches = np.kron(noise(6, 6, 3), np.ones((10, 10, 1)))  # many ways to cluster these colours
    inside = ((down - 30) / 20) ** 2 + ((across - 30) / 14) ** 2 <= 1
    photo = np.where(inside[..., None], patches, patches * 0.3 + 150).astype(np.uint8)
    found = set()
    for seed in range(4):
        cv2.setRNGSeed(seed * 7 + 1)
        found.add(photos.parted(photo, photos.framed((60, 60)), rounds=1).tobytes())
    assert len(found) == 1


def test_a_finer_matte_that_runs_away_is_not_taken(monkeypatch):
    photo, matte = shirt()
    monkeypatch.setattr(photos, "rough", lambda photo: matte)
    monkeypatch.setattr(
        photos, "parted", lambda *_, rounds: matte * (np.arange(240) < 120)[:, None]
    )
    np.testing.assert_array_equal(photos.grabcut(photo), matte * 255)


def test_specks_and_small_holes_go_and_large_ones_stay():
    matte = np.zeros((100, 100), np.uint8)
    matte[10:70, 10:70] = 1
    matte[[10, 10, 69, 69], [10, 69, 10, 69]] = 0  # the brush is round
    whole = matte.copy()
    matte[20:25, 20:25] = 0  # a button
    matte[40:60, 40:60] = whole[40:60, 40:60] = 0  # between an arm and the body
    matte[80:90, 80:90] = 1  # a speck
    matte[30, 70:95] = whole[30, 70] = 1  # a thread, of which the round brush keeps a stub
    np.testing.assert_array_equal(photos.clean(matte), whole)
    assert not photos.clean(np.zeros((9, 9), np.uint8)).any()


# The files.


@pytest.mark.parametrize(
    ("group", "of_photo", "of_matte", "size"),
    [
        ("coco", ("Zoe", "CC-BY-2.0"), ("COCO Consortium", "CC-BY-4.0"), (20, 30)),
        ("cloth", ("Zoe", "CC0-1.0"), ("Zoe", "CC0-1.0"), (240, 180)),
        ("drawn", ("Zoe", "CC-BY-2.0"), ("the authors of kmatting", "CC0-1.0"), (20, 30)),
    ],
)
def test_the_files_state_their_terms_and_pass_the_check(
    group, of_photo, of_matte, size, packs, listed, tmp_path, monkeypatch
):
    run(group, packs, tmp_path, monkeypatch)
    title = "A cloth_1" if group == "cloth" else "A coco_1"
    for folder, name, terms in (
        ("image", f"{group}_1.jpg", of_photo),
        ("alpha", f"{group}_1.png", of_matte),
    ):
        (row,) = free.rows(tmp_path / folder)
        assert row["file"] == (tmp_path / folder / name).as_posix()
        assert (row["title"], row["author"], row["licence"]) == (title, *terms)
        line = json.loads((tmp_path / folder / "log.jsonl").read_text(encoding="utf-8"))
        (listing,) = (one for one in listed if one["name"] == f"{group}_1")
        assert line.items() >= {key: listing[key] for key in ("url", "pack", "path")}.items()
    matte = grey(tmp_path / "alpha" / f"{group}_1.png")
    assert matte.shape == size and set(np.unique(matte)) == {0, 255}


def test_a_photo_without_a_matte_comes_alone(packs, listed, tmp_path, monkeypatch):
    run("scene", packs, tmp_path, monkeypatch)
    (row,) = free.rows(tmp_path / "image")
    assert (row["author"], row["licence"]) == ("Zoe", "CC-BY-2.0")
    assert not (tmp_path / "alpha").exists()


def test_an_unknown_group_is_refused(packs, listed, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run("dog", packs, tmp_path / "out", monkeypatch)
    assert "choose from" in (said := capsys.readouterr().err) and "cloth" in said
    assert not (tmp_path / "out").exists()


def test_one_part_after_the_other_gives_one_log(packs, listed, tmp_path, monkeypatch):
    listed[1]["title"] = "An older title"
    for group in ("cloth", "coco"):
        run(group, packs, tmp_path / "out", monkeypatch)
    listed[1]["title"] = "A shirt"
    run("cloth", packs, tmp_path / "out", monkeypatch)
    for folder in ("image", "alpha"):
        assert len((tmp_path / "out" / folder / "log.jsonl").read_text().splitlines()) == 2
        titles = {row["title"] for row in free.rows(tmp_path / "out" / folder)}
        assert titles == {"A coco_1", "A shirt"}


def test_a_log_that_breaks_off_leaves_the_one_before(packs, listed, tmp_path, monkeypatch):
    run("coco", packs, tmp_path / "out", monkeypatch)
    path = tmp_path / "out/image/log.jsonl"
    before = path.read_text()

    def breaks_off(file, *_, **__):
        file.open("wb").close()
        raise OSError("no space left")

    for writes in ("write_bytes", "write_text"):
        monkeypatch.setattr(Path, writes, breaks_off)
    with pytest.raises(OSError, match="no space left"):
        photos.log([{"file": "coco_2.jpg"}], path)
    assert path.read_text() == before


def test_another_photo_is_refused(packs, listed, tmp_path, monkeypatch):
    Image.fromarray(noise(20, 30, 3)).save(packs / "coco/coco_1.jpg", quality=81)
    with pytest.raises(SystemExit, match=r"coco_1\.jpg: expected sha256"):
        run("coco", packs, tmp_path / "out", monkeypatch)
    assert not (tmp_path / "out").exists()


def test_a_turned_photo_is_refused(packs, tmp_path):
    path = packs / "coco/coco_2.jpg"
    exif = Image.Exif()
    exif[photos.ORIENTATION] = 6
    Image.fromarray(noise(20, 30, 3)).save(path, exif=exif)
    with pytest.raises(SystemExit, match=r"coco_2\.jpg: expected a photo that stands upright"):
        list(photos.make(entry(path, packs, mask="grabcut"), packs, tmp_path / "out"))


def test_terms_replace_the_exif_and_nothing_else(tmp_path):
    path = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[picture.ARTIST] = "Someone"
    Image.fromarray(noise(20, 30, 3)).save(path, exif=exif, icc_profile=b"profile" * 9)
    with Image.open(path) as photo:
        before = np.array(photo)
    jpeg = photos.with_terms(path.read_bytes(), "Zoe", "CC0-1.0")
    assert jpeg.count(b"Exif\0\0") == 1
    path.write_bytes(jpeg)
    assert picture.stated(path) == ("Zoe", "CC0-1.0")
    with Image.open(path) as photo:
        assert photo.info["icc_profile"] == b"profile" * 9
        np.testing.assert_array_equal(np.array(photo), before)


def test_no_link_is_followed(tmp_path):
    (tmp_path / "original.jpg").write_bytes(b"original")
    (tmp_path / "photo.jpg").symlink_to(tmp_path / "original.jpg")
    photos.save(b"new", tmp_path / "photo.jpg")
    assert (tmp_path / "original.jpg").read_bytes() == b"original"
    assert (tmp_path / "photo.jpg").read_bytes() == b"new"
