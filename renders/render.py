"""Renders foregrounds with exact alpha, by seed.

    python -m renders.render --packs PACKS --out OUT

Stops and continues at will: a picture that is there is not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from . import objects, picture, plan, stage


def jobs(listed: dict, seeds: range) -> Iterator[tuple[plan.Job, plan.Model]]:
    """Yields what to render, model by model, then again with the next seed."""
    for seed in seeds:
        for model in plan.models(listed):
            yield plan.Job(model.kind, model.name, seed), model


def render(job: plan.Job, model: plan.Model, packs: Path, panoramas: list[Path],
           options: argparse.Namespace) -> dict:
    """Renders one picture of a model. Returns what the log says of it."""
    rng = job.rng()
    scene = stage.empty()
    objects.load(packs / model.path)
    objects.mend(rng)
    stage.normalise(scene)
    panorama = panoramas[int(rng.integers(len(panoramas)))]
    stage.light(scene, panorama, rng)
    eye = stage.camera(scene, rng, options.size)
    blur, strength = float(rng.random()), float(rng.uniform(0.005, 0.03))
    if blur < 0.12:
        stage.defocus(eye, rng, strength)
    elif blur < 0.20:
        stage.motion(scene, rng, strength)
    rgba = stage.render(scene, options.samples, options.alpha_samples, job.seed)
    share = float((rgba[..., 3] > 127).mean())
    if share < 0.004:
        raise objects.Broken(f"nothing to see: {share:.2%} of the picture")
    return {"rgba": rgba, "panorama": panorama.name, "blur": round(blur, 3)}


@contextmanager
def _hushed() -> Iterator[None]:
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
    parser.add_argument("--panoramas", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--alpha-samples", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 4))
    parser.add_argument("--only", default="")
    parser.add_argument("--limit", type=int, default=10**9)
    options = parser.parse_args()
    panoramas = sorted(p for p in options.panoramas.iterdir() if p.suffix in {".hdr", ".exr"})
    todo = [j for j in jobs(plan.sources(), range(*options.seeds)) if options.only in j[0].file]
    options.out.mkdir(parents=True, exist_ok=True)
    options.held_out.mkdir(parents=True, exist_ok=True)
    for job, model in tqdm(todo[: options.limit], unit="picture", mininterval=10):
        folder = options.held_out if plan.held_out(job.name) else options.out
        path, begun = folder / job.file, folder / (job.file + ".begun")
        if path.exists() or begun.exists():  # begun and not done: Blender fell over it
            continue
        begun.touch()
        start = time.process_time()
        line = {"file": job.file, "title": model.title, "author": model.author,
                "licence": model.licence, "pack": model.pack, "model": model.path}
        try:
            with _hushed():
                made = render(job, model, options.packs, panoramas, options)
            picture.save(made.pop("rgba"), path)
            line |= made
        except (objects.Broken, RuntimeError) as error:
            line["error"] = str(error)
        begun.unlink()
        line["seconds"] = round(time.process_time() - start, 1)
        with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
