"""Makes the benchmark: photos of 1024 px with exact alpha and foreground colours, in groups.

    python -m renders.benchmark --packs PACKS --out BENCHMARK

Models, seeds and panoramas are those that `renders.plan` keeps from all training. Each photo's
background is a view of the panorama that also lights the thing.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from renders import fur, glass, holes, objects, people, picture, plan, stage, thin
from renders.examples import view
from renders.render import HEAVY, hushed

SCENES = 240
SIZE = 1024
FIRST_SEED = 900_000  # training's seeds lie below
MADE = {
    "hair": (people.build, [s for s in people.STYLES if s != "buzz"]),
    "fur": (fur.build, fur.KINDS),
    "thin": (thin.build, thin.KINDS),
    "mesh": (holes.build, holes.KINDS),
    "glass": (glass.build, glass.KINDS),
}
GROUPS = (*MADE, "defocus", "motion", "plain")


@dataclass(frozen=True)
class Scene:
    """One photo of the benchmark."""

    group: str
    job: plan.Job
    model: plan.Model | None

    @property
    def name(self) -> str:
        """Stem of the photo's files."""
        return f"{self.group}-{self.job.name}-{self.job.seed - FIRST_SEED:03d}"

    @property
    def files(self) -> tuple[str, str, str]:
        """Places of the photo, of its alpha and of its foreground."""
        name = self.name
        return f"images/{name}.jpg", f"alphas/{name}.png", f"foregrounds/{name}.png"

    @property
    def terms(self) -> tuple[str, str, str]:
        """Title, author and licence of what is shown."""
        if self.model:
            return self.model.title, self.model.author, self.model.licence
        return self.job.name, "the authors of kmatting", "CC0-1.0"


def scenes(listed: dict, packs: Path) -> Iterator[Scene]:
    """Yields the scenes, the groups in turn, so that the first N are a small benchmark."""
    unseen = [m for m in plan.models(listed) if plan.held_out(m.name) and m.kind != plan.SCAN]
    unseen = [m for m in unseen if (packs / m.path).stat().st_size <= HEAVY]
    for index in range(SCENES):
        group, turn = GROUPS[index % len(GROUPS)], index // len(GROUPS)
        if group in MADE:
            names = list(MADE[group][1])
            yield Scene(group, plan.Job(group, names[turn % len(names)], FIRST_SEED + index), None)
        else:
            start = len(unseen) * (GROUPS.index(group) - len(MADE)) // 3
            model = unseen[(start + turn) % len(unseen)]
            yield Scene(group, plan.Job(group, model.name, FIRST_SEED + index), model)


def render(
    scene: Scene, packs: Path, lit_by: list[Path], samples: int, alpha_samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the thing, straight RGBA (H, W, 4), and its background (H, W, 3), uint8."""
    rng = scene.job.rng()
    stage_scene = stage.empty()
    look: dict = {}
    if scene.model:
        objects.load(packs / scene.model.path)
        objects.mend(rng)
    else:
        look = MADE[scene.group][0](rng, packs, scene.job.name)
    look["focus"] = stage.normalise(stage_scene, look.get("focus"))
    panorama = lit_by[int(rng.integers(len(lit_by)))]
    stage.light(stage_scene, panorama, rng)
    eye = stage.camera(stage_scene, rng, SIZE, **look)
    strength = float(rng.uniform(0.01, 0.04))
    if scene.group == "defocus":
        stage.defocus(eye, rng, strength)
    elif scene.group == "motion":
        stage.motion(stage_scene, rng, strength)
    rgba = stage.render(stage_scene, samples, alpha_samples, scene.job.seed)
    size = (rgba.shape[1], rgba.shape[0])
    photo = view(
        panorama,
        float(rng.uniform(0, 360)),
        float(rng.uniform(-12, 12)),
        float(rng.uniform(55, 95)),
        size,
    )
    return rgba, photo


def composite(rgba: np.ndarray, background: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns the photo (H, W, 3), uint8: image = alpha * foreground + (1 - alpha) * background.

    A little grain over all of it, or the background, taken from a small panorama, is too smooth.
    """
    alpha = rgba[..., 3:] / 255
    photo = alpha * rgba[..., :3] + (1 - alpha) * background
    photo = photo + rng.normal(0, rng.uniform(0.5, 3), photo.shape)
    return np.round(np.clip(photo, 0, 255)).astype(np.uint8)


def main() -> None:
    """Renders the scenes that are not there yet, then writes the list."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=SCENES, help="how many, from the first on")
    parser.add_argument("--samples", type=int, default=12)
    parser.add_argument("--alpha-samples", type=int, default=128)
    options = parser.parse_args()
    listed = plan.sources()
    lit_by = plan.panoramas(listed, options.packs, unseen=True)
    chosen = list(scenes(listed, options.packs))[: options.scenes]
    for scene in tqdm(chosen, unit="scene", mininterval=10):
        image, alpha, truth = (options.out / file for file in scene.files)
        if truth.exists():
            continue
        start = time.process_time()
        with hushed():
            rgba, background = render(
                scene, options.packs, lit_by, options.samples, options.alpha_samples
            )
        photo = composite(rgba, background, scene.job.rng())
        for path in (image, alpha):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(image, quality=95, subsampling=0)
        Image.fromarray(rgba[..., 3]).save(alpha)
        title, author, licence = scene.terms
        picture.save(rgba, truth, {"Title": title, "Author": author, "Licence": licence})
        tqdm.write(f"{scene.name}: {time.process_time() - start:.0f} processor seconds")
        _list(chosen, options.out)
    _list(chosen, options.out)  # one before may have stopped between a scene and its row


def _list(chosen: list[Scene], out: Path) -> None:
    """Writes list.csv of the scenes that are there: files, group, and terms of what is shown."""
    beside = out / "list.part"
    with beside.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        columns = ["name", "group", "image", "alpha", "foreground", "title", "author", "licence"]
        table.writerow(columns)
        for scene in chosen:
            if (out / scene.files[2]).exists():
                table.writerow([scene.name, scene.group, *scene.files, *scene.terms])
    beside.replace(out / "list.csv")


if __name__ == "__main__":
    main()
