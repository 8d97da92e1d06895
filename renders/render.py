"""Renders foregrounds with exact alpha, by seed.

    python -m renders.render --packs PACKS --out OUT --held-out HELD_OUT

Stops and continues at will: a picture that is there is not made again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from . import fur, glass, holes, objects, people, picture, plan, stage, thin

SCENES = {
    "hair": (people.build, people.STYLES),
    "fur": (fur.build, fur.KINDS),
    "thin": (thin.build, thin.KINDS),
    "holes": (holes.build, holes.KINDS),
    "glass": (glass.build, glass.KINDS),
}
HEAVY = 12_000_000  # bytes of text: minutes for one picture


def jobs(listed: dict, packs: Path, seeds: range) -> Iterator[tuple[plan.Job, plan.Model | None]]:
    """Yields what to render: models, and what is made here, in turns."""
    for seed in seeds:
        grown = procedural(seed)
        for model in plan.models(listed):
            if (packs / model.path).stat().st_size > HEAVY:
                continue
            yield plan.Job(model.kind, model.name, seed), model
            yield next(grown), None


def procedural(round_: int) -> Iterator[plan.Job]:
    """Yields jobs without a model, each kind in turn, hair and fur more often."""
    turn = itertools.cycle(["hair", "fur", "thin", "hair", "holes", "fur", "thin", "glass"])
    names = {kind: itertools.cycle(known) for kind, (_, known) in SCENES.items()}
    for index in itertools.count():
        kind = next(turn)
        yield plan.Job(kind, next(names[kind]), 1000 * round_ + index)


def render(
    job: plan.Job,
    model: plan.Model | None,
    packs: Path,
    panoramas: list[Path],
    options: argparse.Namespace,
) -> dict:
    """Renders one picture. Returns it and what the log says of it."""
    rng = job.rng()
    scene = stage.empty()
    if model:
        objects.load(packs / model.path)
        objects.mend(rng)
        view = {}
    else:
        view = SCENES[job.kind][0](rng, packs, job.name)
    view["focus"] = stage.normalise(scene, view.get("focus"))
    panorama = panoramas[int(rng.integers(len(panoramas)))]
    stage.light(scene, panorama, rng)
    eye = stage.camera(scene, rng, options.size, **view)
    blur, strength = float(rng.random()), float(rng.uniform(0.005, 0.03))
    if blur < 0.12:
        stage.defocus(eye, rng, strength)
    elif blur < 0.18:
        stage.motion(scene, rng, strength)
    rgba = stage.render(scene, options.samples, options.alpha_samples, job.seed)
    if (share := float((rgba[..., 3] > 64).mean())) < 0.002:
        raise objects.Broken(f"nothing to see: {share:.2%} of the picture")
    effect = "defocus" if blur < 0.12 else "motion" if blur < 0.18 else ""
    return {"rgba": rgba, "panorama": panorama.name, "blur": effect}


def write(
    job: plan.Job,
    model: plan.Model | None,
    folder: Path,
    panoramas: list[Path],
    options: argparse.Namespace,
) -> None:
    """Renders one picture into a folder.

    `NAME.begun` is there meanwhile, and stays only where the process dies.
    """
    begun = folder / (job.file + ".begun")
    begun.touch()
    try:
        start = time.process_time()
        line = {"file": job.file, "size": options.size, **_terms(job, model)}
        rgba = None
        try:
            with hushed():
                made = render(job, model, options.packs, panoramas, options)
            rgba = made.pop("rgba")
            line |= made
        except (objects.Broken, RuntimeError) as error:
            line["error"] = str(error)
        line["seconds"] = round(time.process_time() - start, 1)
        # The log first: no picture is without its line.
        with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line, ensure_ascii=False) + "\n")
        if rgba is not None:
            terms = {k.capitalize(): line[k] for k in ("title", "author", "licence")}
            picture.save(rgba, folder / job.file, terms)
    finally:
        begun.unlink()


def _terms(job: plan.Job, model: plan.Model | None) -> dict:
    if model:
        return {
            "title": model.title,
            "author": model.author,
            "licence": model.licence,
            "pack": model.pack,
            "model": model.path,
        }
    body = {"pack": "mpfb2", "model": "base.obj"} if job.kind == "hair" else {}
    return {
        "title": f"{job.name} ({job.kind})",
        "author": "the authors of kmatting",
        "licence": "CC0-1.0",
        **body,
    }


@contextmanager
def hushed() -> Iterator[None]:
    """Keeps Blender's own lines off the standard output."""
    sys.stdout.flush()
    kept = os.dup(1)
    with Path(os.devnull).open("wb") as null:
        os.dup2(null.fileno(), 1)
        try:
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)


def main() -> None:
    """Renders until the plan or the time is at its end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--alpha-samples", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 4))
    parser.add_argument("--only", default="")
    parser.add_argument("--limit", type=int, default=10**9)
    options = parser.parse_args()
    listed = plan.sources()
    lit_by = plan.panoramas(listed, options.packs)
    planned = jobs(listed, options.packs, range(*options.seeds))
    todo = [each for each in planned if each[0].file.startswith(options.only)]
    options.out.mkdir(parents=True, exist_ok=True)
    options.held_out.mkdir(parents=True, exist_ok=True)
    skipped = 0
    for job, model in tqdm(todo[: options.limit], unit="picture", mininterval=10):
        named = job.name if model else f"{job.name}-{job.seed}"
        folder = options.held_out if plan.held_out(named) else options.out
        if (folder / job.file).exists():
            continue
        if (folder / (job.file + ".begun")).exists():
            skipped += 1
            continue
        write(job, model, folder, lit_by, options)
    if skipped:
        print(
            f"{skipped} left out whose NAME.png.begun is there: another process makes them, or "
            "Blender fell over them. Delete the file to try again."
        )


if __name__ == "__main__":
    main()
