"""Makes photos with a matte from what `renders.fetch --photos` brought, as `photos.json` lists.

    python -m renders.photos --packs PACKS --out OUT [--only NAME]

OUT/image has the photos, OUT/alpha their mattes, 0 or 255 alone; `log.jsonl` in both has a line
per file. Photos from COCO have its annotations' outlines. Clothes lie on plain ground: GrabCut
parts them from it, which learned from nothing, and the good ones were chosen by eye. Runs where
kmatting is installed: it needs OpenCV. It takes two minutes, and gives the same files each time.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from kmatting.files import whole_file

from . import fetch, picture, plan

ANNOTATED = {"author": "COCO Consortium", "licence": "CC-BY-4.0"}  # whose outlines these are
ORIENTATION = 0x0112  # EXIF's name for how a photo is turned
SMALL = 300  # long side in pixels of the copy that is parted first
FRAME = 0.03  # of the short side: ground all around the thing
PART = 0.12  # of the largest part; what is smaller belongs to the ground
HOLE = 0.004  # of the photo; what is smaller is no hole but a print or a button
AGREE = 0.97  # IoU with the small copy's matte; a finer one with less has run away


def listed(path: Path = plan.PHOTOS) -> list[dict]:
    """Returns the list of photos."""
    return plan.sources(path)["photos"]


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


def drawn(polygons: list[list[float]], size: tuple[int, int]) -> np.ndarray:
    """Returns a matte (H, W), uint8, of all that lies in one of the polygons."""
    matte = np.zeros(size, np.uint8)
    for polygon in polygons:
        points = np.round(np.array(polygon).reshape(-1, 2)).astype(np.int32)
        cv2.fillPoly(matte, [points], 255)
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
    """Returns the matte of a photo of the list."""
    photo = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    how = entry["mask"]
    if how == "grabcut":
        return grabcut(photo)
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


def make(entry: dict, packs: Path, out: Path) -> tuple[dict, dict]:
    """Writes a photo and its matte, and returns their lines of the logs."""
    fetch.expect(entry["path"], packs, entry["sha256"])
    jpeg = upright(packs / entry["path"])
    name, terms = entry["name"], {key: entry[key] for key in ("author", "licence")}
    image = out / "image" / f"{name}.jpg"
    save(with_terms(jpeg, **terms), image)
    of_matte = terms if entry["mask"] == "grabcut" else ANNOTATED
    alpha = out / "alpha" / f"{name}.png"
    stated = {"Title": entry["title"], "Author": of_matte["author"], "Licence": of_matte["licence"]}
    picture.save(matte(entry, packs, jpeg), alpha, stated)
    rest = {key: entry[key] for key in ("url", "pack", "path", "mask")}
    return (
        {"file": image.name, "title": entry["title"], **terms, **rest},
        {"file": alpha.name, "title": entry["title"], **of_matte, **rest},
    )


def log(lines: Iterable[dict], path: Path) -> None:
    """Writes lines to a log, in the place of those on the same files."""
    before = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    of_file = {line["file"]: line for line in [*map(json.loads, before), *lines]}
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in of_file.values())
    save(text.encode(), path)


def main() -> None:
    """Writes the photos, their mattes and the logs of both folders."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="how the name begins: coco_ or cloth_")
    options = parser.parse_args()
    wanted = [entry for entry in listed() if entry["name"].startswith(options.only)]
    if not wanted:
        raise SystemExit(f"--only {options.only}: no name in photos.json begins so")
    made = [make(entry, options.packs, options.out) for entry in tqdm(wanted, unit="photo")]
    for folder, lines in zip(("image", "alpha"), zip(*made, strict=True), strict=True):
        log(lines, options.out / folder / "log.jsonl")


if __name__ == "__main__":
    main()
