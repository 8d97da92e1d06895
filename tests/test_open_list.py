"""saved_models/open-data.csv: what open was trained on is free, credited, and of no benchmark."""

import csv
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from renders import free, photos, plan  # noqa: E402

RENDERS = ("renders", "people", "more", "scans", "strands")
PHOTOS = ("photos", "clothes", "drawn", "drawn3", "flowers", "scene", "empty", "wide")
UNLISTED = 7  # photos of COCO that photos.json no longer has


@pytest.fixture(scope="module")
def rows():
    path = ROOT / "saved_models" / "open-data.csv"
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def within(rows, *folders):
    """The rows of some folders, with the stems of their files."""
    places = [f"data/free/{folder}/" for folder in folders]
    return [(Path(r["file"]).stem, r) for r in rows if r["file"].startswith(tuple(places))]


def terms(row):
    return row["title"], row["author"], row["licence"]


def test_the_list_is_as_renders_free_writes_it(rows):
    for row in rows:
        assert tuple(row) == free.COLUMNS and None not in row.values(), row


def test_each_file_is_there_once_and_free(rows):
    assert len(rows) == len({row["file"] for row in rows}) >= 3500
    for row in rows:
        assert re.fullmatch(r"[0-9a-f]{64}", row["sha256"]), row
        assert row["licence"] in plan.LICENCES, row
        assert row["title"] and row["author"], row
    known = within(rows, *RENDERS, *PHOTOS, "backgrounds")
    assert len(known) == len(rows)


def test_renders_have_the_terms_of_their_models_and_none_is_held_out(rows):
    models = {f"{m.kind}-{m.name}": m for m in plan.models(plan.sources())}
    of_models = 0
    for stem, row in within(rows, *RENDERS):
        thing, seed = stem.rsplit("-", 1)
        if model := models.get(thing):
            of_models += 1
            assert terms(row) == (model.title, model.author, model.licence), row
            held_out = plan.held_out(model.name)
        else:
            kind, name = thing.split("-", 1)
            assert terms(row) == (f"{name} ({kind})", "the authors of kmatting", "CC0-1.0"), row
            held_out = plan.held_out(f"{name}-{int(seed)}")
        assert not held_out, row
    assert of_models >= 1100


def test_backgrounds_have_the_terms_of_their_panoramas_and_none_is_the_benchmark_s(rows):
    panoramas = {p["name"]: p for p in plan.sources()["panoramas"]}
    seen = set()
    for stem, row in within(rows, "backgrounds"):
        panorama = panoramas[stem.rpartition("-")[0]]
        seen.add(panorama["name"])
        title = f"view of the panorama {panorama['name']}, polyhaven.com"
        assert terms(row) == (title, panorama["author"], panorama["licence"]), row
    assert len(seen) >= 30
    assert not [name for name in seen if plan.benchmark_only(name)]


def test_photos_and_mattes_have_the_terms_of_photos_json(rows):
    listed = {entry["name"]: entry for entry in photos.listed()}
    unlisted = set()
    for stem, row in within(rows, *PHOTOS):
        if stem not in listed:
            unlisted.add(stem)
            continue
        entry = listed[stem]
        of_file = photos.terms_of_matte(entry) if "/alpha/" in row["file"] else entry
        assert terms(row) == (entry["title"], of_file["author"], of_file["licence"]), row
        assert row["url"] == entry["url"], row
    assert len(unlisted) == UNLISTED and all(name.startswith("coco_") for name in unlisted)
