"""Makes photos for training from what `renders.fetch --photos` brought, as `photos.json` lists.

    python -m renders.photos --packs PACKS --out OUT --only GROUP

OUT/image has the photos, OUT/alpha their mattes, 0 or 255 alone; `log.jsonl` in both has a line
per file. Runs where kmatting is installed: it needs OpenCV. It takes two minutes for all groups,
and gives the same files each time.

| group | photos | mattes |
| --- | --- | --- |
| `coco` | of COCO, CC BY 2.0 | its annotations' outlines |
| `cloth` | clothes on plain ground, CC0 | GrabCut, which learned from nothing, chosen by eye |
| `drawn` | of COCO, CC BY 2.0 | outlines that `open` drew before its third stage, chosen by eye |
| `drawn3` | of COCO, CC BY 2.0 | outlines that `open` drew behind its third stage |
| `flower` | TensorFlow's flower photos, CC BY 2.0 | as `drawn` |
| `scene` | of COCO, CC BY 2.0: streets, rooms, crowds | none: they go behind subjects |
| `empty` | of COCO, CC BY 2.0: no subject | none |
| `wide` | Budgie Backgrounds, CC0: cities, hills, water, patterns | none |
"""

from __future__ import annotations

import argparse
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from kmatting.files import whole_file

from . import fetch, picture, plan

# Whose outlines these are.
ANNOTATED = {"author": "COCO Consortium", "licence": "CC-BY-4.0"}
DRAWN = {"author": "the authors of kmatting", "licence": "CC0-1.0"}
ORIENTATION = 0x0112  # EXIF's name for how a photo is turned
SMALL = 300  # long side in pixels of the copy that is parted first
FRAME = 0.03  # of the short side: ground all around the thing
PART = 0.12  # of the largest part; what is smaller belongs to the ground
HOLE = 0.004  # of the photo; what is smaller is no hole but a print or a button
AGREE = 0.97  # IoU with the small copy's matte; a finer one with less has run away


def listed(path: Path = plan.PHOTOS) -> list[dict]:
    """Returns the list of photos."""
    return plan.sources(path)["photos"]


def group(entry: dict) -> str:
    """Returns the group of a photo of the list: how its name begins."""
    return entry["name"].partition("_")[0]


@lru_cache
def digests(path: Path = plan.PHOTOS) -> dict[str, str]:
    """Returns the SHA-256 of each file of annotations, by its place in the packs."""
    packs = plan.sources(path)["packs"]
    return {one["path"]: one["sha256"] for pack in packs for one in pack.get("annotations", [])}


@lru_cache
def outlines(place: str, packs: Path) -> dict[int, list[list[float]]]:
    """Returns the polygons of each annotation of a file in COCO's format, by its id."""
    fetch.expect(place, packs, digests()[place])
    found = json.loads((packs / place).read_text(encoding="utf-8"))["annotations"]
    return {one["id"]: one["segmentation"] for one in found}


def drawn(polygons: list[list[float]], size: tuple[int, int], holes: bool = False) -> np.ndarray:
    """Returns a matte (H, W), uint8, of all that lies in one of the polygons.

    With `holes`, a polygon inside another is a hole.
    """
    matte = np.zeros(size, np.uint8)
    points = [np.round(np.array(one).reshape(-1, 2)).astype(np.int32) for one in polygons]
    for together in [points] if holes else [[one] for one in points]:
        cv2.fillPoly(matte, together, 255)
    return matte


def parted(photo: np.ndarray, guess: np.ndarray, rounds: int) -> np.ndarray:
    """Returns what GrabCut takes for the thing, as 0 and 1, from its four kinds of guesses."""
    marks = guess.copy()
    cv2.setRNGSeed(1)  # the colours are clustered from a random start
    cv2.grabCut(
        photo, marks, None, np.zeros((1, 65)), np.zeros((1, 65)), rounds, cv2.GC_INIT_WITH_MASK
    )
    return ((marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD)).astype(np.uint8)


def framed(size: tuple[int, int]) -> np.ndarray:
    """Returns the first guess: ground along the edges of the photo, perhaps the thing inside."""
    guess = np.full(size, cv2.GC_BGD, np.uint8)
    edge = max(2, int(FRAME * min(size)))
    guess[edge:-edge, edge:-edge] = cv2.GC_PR_FGD
    return guess


def disc(radius: int) -> np.ndarray:
    """Returns a round brush for OpenCV."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def without_specks(matte: np.ndarray) -> np.ndarray:
    """Returns a matte of 0 and 1 without thin lines and small parts."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        cv2.morphologyEx(matte, cv2.MORPH_OPEN, disc(1))
    )
    areas = stats[:, cv2.CC_STAT_AREA]
    kept = [part for part in range(1, count) if areas[part] >= PART * areas[1:].max()]
    return np.isin(labels, kept).astype(np.uint8)


def filled(matte: np.ndarray) -> np.ndarray:
    """Returns a matte of 0 and 1 without the small holes that touch no edge of the photo."""
    height, width = matte.shape
    count, labels, stats, _ = cv2.connectedComponentsWithStats(1 - matte)
    whole = matte.copy()
    for hole in range(1, count):
        x, y, across, down, area = stats[hole]
        inside = x > 0 and y > 0 and x + across < width and y + down < height
        if inside and area < HOLE * matte.size:
            whole[labels == hole] = 1
    return whole


def clean(matte: np.ndarray) -> np.ndarray:
    """Returns a matte of 0 and 1 without specks and small holes."""
    return filled(without_specks(matte))


def iou(first: np.ndarray, second: np.ndarray) -> float:
    """Returns how well two mattes of 0 and 1 agree, from 0 to 1."""
    either = (first | second).sum()
    return float((first & second).sum() / either) if either else 0.0


def rough(photo: np.ndarray) -> np.ndarray:
    """Returns a matte of 0 and 1 of a photo's size, found on a small copy."""
    height, width = photo.shape[:2]
    scale = SMALL / max(height, width)
    small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    matte = clean(parted(small, framed(small.shape[:2]), rounds=4))
    large = cv2.resize(matte.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return (large > 0.5).astype(np.uint8)


def band(matte: np.ndarray) -> np.ndarray:
    """Returns the second guess: the outline may move by three pixels of the small copy."""
    radius = max(3, round(max(matte.shape) / SMALL * 3))
    guess = np.where(matte > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    guess[cv2.erode(matte, disc(radius)) > 0] = cv2.GC_FGD
    guess[cv2.dilate(matte, disc(radius)) == 0] = cv2.GC_BGD
    return guess


def smooth(matte: np.ndarray) -> np.ndarray:
    """Returns a matte of 0 and 1 with single pixels along its outline levelled."""
    level = cv2.medianBlur(matte * 255, 3)
    return (cv2.GaussianBlur(level, (0, 0), 1.0) > 127).astype(np.uint8)


def grabcut(photo: np.ndarray) -> np.ndarray:
    """Returns a matte (H, W), uint8, of the thing on plain ground that a BGR photo shows."""
    matte = rough(photo)
    guess = band(matte)
    if (guess == cv2.GC_FGD).sum() >= 500:  # else too little is sure to learn colours from
        fine = clean(smooth(parted(photo, guess, rounds=2)))
        matte = fine if iou(fine, matte) > AGREE else matte
    return matte * 255


def matte(entry: dict, packs: Path, jpeg: bytes) -> np.ndarray:
    """Returns the matte of a photo of the list that has one."""
    photo = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    how = entry["mask"]
    if how == "grabcut":
        return grabcut(photo)
    if "polygons" in how:
        return drawn(how["polygons"], photo.shape[:2], holes=True)
    known = outlines(how["annotations"], packs)
    if missing := [number for number in how["ids"] if number not in known]:
        raise SystemExit(f"{packs / how['annotations']}: no annotation has the id {missing[0]}")
    polygons = [polygon for number in how["ids"] for polygon in known[number]]
    return drawn(polygons, photo.shape[:2])


def segments(jpeg: bytes) -> Iterator[bytes]:
    """Yields the parts of a JPEG after its first two bytes; the last is all from the scan on."""
    start = 2
    while jpeg[start + 1] != 0xDA:
        end = start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big")
        yield jpeg[start:end]
        start = end
    yield jpeg[start:]


def with_terms(jpeg: bytes, author: str, licence: str) -> bytes:
    """Returns a JPEG with its terms in EXIF in the place of what was there, pixels untouched."""
    exif = Image.Exif()
    exif[picture.ARTIST], exif[picture.COPYRIGHT] = author, licence
    block = exif.tobytes()
    head = b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block
    kept = [part for part in segments(jpeg) if part[4:10] != b"Exif\0\0"]
    return b"".join([jpeg[:2], head, *kept])


def upright(path: Path) -> bytes:
    """Returns a JPEG; ends the program if its EXIF, which goes, says to turn it."""
    jpeg = path.read_bytes()
    with Image.open(io.BytesIO(jpeg)) as photo:
        if photo.getexif().get(ORIENTATION, 1) != 1:
            raise SystemExit(f"{path}: expected a photo that stands upright, received a turned one")
    return jpeg


def save(content: bytes, path: Path) -> None:
    """Writes a file whole or not at all; follows no link."""
    with whole_file(path) as partial:
        partial.write_bytes(content)


def terms_of_matte(entry: dict) -> dict[str, str]:
    """Returns the author and the licence of a photo's matte."""
    if entry["mask"] == "grabcut":
        return {key: entry[key] for key in ("author", "licence")}
    return DRAWN if "polygons" in entry["mask"] else ANNOTATED


def make(entry: dict, packs: Path, out: Path) -> Iterator[tuple[Path, dict]]:
    """Writes a photo, and its matte if it has one.

    Yields the folder of each file and the line of its log.
    """
    fetch.expect(entry["path"], packs, entry["sha256"])
    jpeg = upright(packs / entry["path"])
    name, terms = entry["name"], {key: entry[key] for key in ("author", "licence")}
    image = out / "image" / f"{name}.jpg"
    save(with_terms(jpeg, **terms), image)
    title = {"title": entry["title"]}
    rest = {key: entry[key] for key in ("url", "pack", "path")}
    yield image.parent, {"file": image.name, **title, **terms, **rest}
    if entry["mask"] is None:
        return
    terms = terms_of_matte(entry)
    alpha = out / "alpha" / f"{name}.png"
    stated = {"Title": entry["title"], "Author": terms["author"], "Licence": terms["licence"]}
    picture.save(matte(entry, packs, jpeg), alpha, stated)
    yield alpha.parent, {"file": alpha.name, **title, **terms, **rest}


def log(lines: Iterable[dict], path: Path) -> None:
    """Writes lines to a log, in the place of those on the same files."""
    before = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    of_file = {line["file"]: line for line in [*map(json.loads, before), *lines]}
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in of_file.values())
    save(text.encode(), path)


def main() -> None:
    """Writes the photos of a group, their mattes and the logs of the folders."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    entries = listed()
    groups = sorted({group(entry) for entry in entries})
    parser.add_argument("--only", choices=groups, required=True, help="the group to make")
    options = parser.parse_args()
    wanted = [entry for entry in entries if group(entry) == options.only]
    lines = defaultdict(list)
    for entry in tqdm(wanted, unit="photo"):
        for folder, line in make(entry, options.packs, options.out):
            lines[folder].append(line)
    for folder in lines:
        log(lines[folder], folder / "log.jsonl")


if __name__ == "__main__":
    main()
