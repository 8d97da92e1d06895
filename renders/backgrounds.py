"""Makes photos without a subject: flat views of the CC0 panoramas that light training.

    python -m renders.backgrounds --packs PACKS --out OUT

The benchmark's panoramas are left out. `OUT/log.jsonl` has one line per view. It takes a minute,
and gives the same views each time.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from . import picture, plan

VIEWS = 12  # of each panorama, one for each twelfth of the way around
SIZE = (640, 480)
SUBJECTS = {"courtyard": 203}  # where an animal lies in a panorama, in degrees
NEAR = 8  # degrees from its middle to its edge
DETAIL = 2  # levels from pixel to pixel; a part of a photo with less is bare
BARE = 1 / 8  # photos with a smaller share of other parts show only sky, or nothing


@dataclass(frozen=True)
class View:
    """Where a lens points and how much it sees, in degrees."""

    turn: float
    height: float
    field: float

    def shows(self, turn: float) -> bool:
        """Returns whether something at this turn may be in the frame."""
        away = abs((self.turn - turn + 180) % 360 - 180)
        return away < self.field / 2 + NEAR


def drawn(name: str, index: int) -> View:
    """Returns a view of a panorama of this name, the same on each machine."""
    rng = plan.Job("view", name, index).rng()
    return View(
        turn=(index + float(rng.random())) * 360 / VIEWS,
        height=float(rng.uniform(-25, 15)),
        # The panoramas are 1,024 pixels around: a narrow view would be blurred.
        field=float(rng.uniform(80, 115)),
    )


def bare(photo: np.ndarray) -> bool:
    """Returns whether a photo (H, W, 3), uint8, shows nothing: clear sky, or black."""
    small = Image.fromarray(photo).convert("L").resize((161, 120), Image.Resampling.BOX)
    steps = np.abs(np.diff(np.asarray(small, float), axis=1))
    parts = steps.reshape(6, 20, 8, 20).mean((1, 3))
    return bool((parts > DETAIL).mean() < BARE)


def main() -> None:
    """Writes the views and their log."""
    from .examples import view  # needs bpy, the rest of this module does not

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    entries = [p for p in plan.sources()["panoramas"] if not plan.benchmark_only(p["name"])]
    lines = []
    for entry in tqdm(entries, unit="panorama"):
        name = entry["name"]
        for index in range(VIEWS):
            one = drawn(name, index)
            path = options.out / f"{name}-{index:02d}.jpg"
            path.unlink(missing_ok=True)
            if name in SUBJECTS and one.shows(SUBJECTS[name]):
                continue
            photo = view(options.packs / entry["path"], one.turn, one.height, one.field, SIZE)
            if bare(photo):
                continue
            terms = {"author": entry["author"], "licence": entry["licence"]}
            picture.save_photo(photo, path, **terms)
            title = f"view of the panorama {name}, polyhaven.com"
            lines.append({"file": path.name, "title": title, **terms, "panorama": name})
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (options.out / "log.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
