"""Makes `examples/data`: 24 foregrounds and 8 backgrounds, CC0 alone, at most 4 MB.

python -m renders.examples --packs PACKS --out examples/data
"""

from __future__ import annotations

import argparse
import hashlib
import io
import math
from pathlib import Path

import bpy
import numpy as np
from PIL import Image, ImageFilter

from . import plan, render
from .picture import to_srgb

MODELS = (
    "desklamp",
    "electricGuitar",
    "caballito",
    "osakaChair",
    "tableFan",
    "orchids",
    "fence",
    "teddyBear",
    "cissorsswap",
    "spiralStaircase",
    "headphones",
    "deckChair",
    "outdoorLamp",
)
MADE = (
    ("hair", "long", 7),
    ("hair", "curly", 11),
    ("hair", "wind", 5),
    ("fur", "cat", 3),
    ("fur", "rabbit", 2),
    ("thin", "feather", 4),
    ("thin", "dandelion", 1),
    ("thin", "twig", 2),
    ("holes", "chain", 2),
    ("holes", "net", 3),
    ("glass", "wineglass", 4),
)
# Panorama, turn in degrees, height of the view in degrees, field of view in degrees.
VIEWS = (
    ("dancing_hall_1k", 40, 2, 80),
    ("leadenhall_market_1k", 90, 4, 85),
    ("noon_grass_1k", 200, -6, 80),
    ("modern_buildings_2_1k", 20, 4, 85),
    ("potsdamer_platz_1k", 130, 3, 80),
    ("autoshop_01_1k", 300, -3, 85),
    ("phalzer_forest_01_1k", 0, 0, 80),
    ("thatch_chapel_1k", 250, 2, 85),
)
LARGEST = 150_000  # bytes a foreground may take


def view(
    panorama: Path, turn: float, height: float, field: float, size: tuple[int, int]
) -> np.ndarray:
    """Returns a photo (H, W, 3), uint8, of a part of a panorama, taken with a plain lens."""
    image = bpy.data.images.load(str(panorama))
    wide, high = image.size
    pixels = np.empty(wide * high * 4, np.float32)
    image.pixels.foreach_get(pixels)
    sphere = pixels.reshape(high, wide, 4)[::-1, :, :3]
    x, y = np.meshgrid(np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1]) * size[1] / size[0])
    far = 1 / math.tan(math.radians(field) / 2)
    tilt = math.radians(height)
    up, ahead = (
        -y * math.cos(tilt) + far * math.sin(tilt),
        far * math.cos(tilt) + y * math.sin(tilt),
    )
    column = ((np.arctan2(x, ahead) / (2 * np.pi) + 0.5 + turn / 360) % 1) * wide - 0.5
    row = (0.5 - np.arctan2(up, np.hypot(x, ahead)) / np.pi) * high - 0.5
    left, top = np.floor(column).astype(int), np.floor(row).astype(int)
    across, down = (column - left)[..., None], (row - top)[..., None]
    rows = np.clip([top, top + 1], 0, high - 1)
    columns = np.array([left, left + 1]) % wide
    upper = sphere[rows[0], columns[0]] * (1 - across) + sphere[rows[0], columns[1]] * across
    lower = sphere[rows[1], columns[0]] * (1 - across) + sphere[rows[1], columns[1]] * across
    seen = upper * (1 - down) + lower * down
    seen = seen * 0.4 / max(float(np.median(seen)), 1e-3) * 0.45
    return np.round(to_srgb(1 - np.exp(-1.4 * seen)) * 255).astype(np.uint8)


def lean(rgba: np.ndarray) -> bytes:
    """Returns a small PNG: far from what is seen the colour is black; too large ones shrink."""
    picture = Image.fromarray(rgba, "RGBA")
    while True:
        near = (
            picture.getchannel("A").point(lambda a: 255 * (a > 0)).filter(ImageFilter.MaxFilter(9))
        )
        values = np.array(picture)
        values[..., :3] *= (np.array(near) > 0)[..., None]
        file = io.BytesIO()
        Image.fromarray(values, "RGBA").save(file, "PNG", optimize=True)
        if file.tell() <= LARGEST:
            return file.getvalue()
        picture = shrunk(picture, 0.9)


def shrunk(picture: Image.Image, share: float) -> Image.Image:
    """Returns a straight RGBA picture resized: colours as they are, so that no black creeps in."""
    size = [max(1, round(side * share)) for side in picture.size]
    colour = picture.convert("RGB").resize(size, Image.Resampling.BOX)
    colour.putalpha(picture.getchannel("A").resize(size, Image.Resampling.BOX))
    return colour


def main() -> None:
    """Renders the set and writes its credits."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("packs", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    options.size, options.samples, options.alpha_samples = 448, 8, 64
    listed = plan.sources()
    lit_by = plan.panoramas(listed, options.packs)
    by_name = {path.stem: path for path in lit_by}
    models = {m.name.removeprefix("blendswapcc0_"): m for m in plan.models(listed)}
    todo = [(plan.Job("furniture", models[n].name, 77), models[n]) for n in MODELS]
    todo += [(plan.Job(*made), None) for made in MADE]
    lines = []
    for job, model in todo:
        path = (
            options.out / "foregrounds" / f"{job.kind}-{job.name.removeprefix('blendswapcc0_')}.png"
        )
        if not path.exists():
            made = render.render(job, model, options.packs, lit_by, options)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(lean(made["rgba"]))
        source = (
            f"{model.title}, Debian sweethome3d-furniture, {model.path}"
            if model
            else (
                f"made by renders/, {job.kind} {job.name} seed {job.seed}"
                + (", body: MakeHuman (mpfb2)" if job.kind == "hair" else "")
            )
        )
        lines.append((path, source, model.author if model else "the authors of kmatting"))
    for name, turn, height, field in VIEWS:
        path = options.out / "backgrounds" / f"{name.removesuffix('_1k')}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo = view(by_name[name], turn, height, field, (640, 480))
        Image.fromarray(photo).save(path, quality=86)
        lines.append((path, f"view of the panorama {name}, polyhaven.com", "Poly Haven"))
    table = [
        f"| {path.relative_to(options.out)} | {source} | {author} | CC0-1.0 |"
        f" {hashlib.sha256(path.read_bytes()).hexdigest()} |"
        for path, source, author in lines
    ]
    (options.out / "CREDITS.md").write_text(CREDITS + "\n".join(table) + "\n", encoding="utf-8")


CREDITS = """# Where these pictures come from

Everything here is CC0 1.0 (public domain): use it for anything, no credit asked for. The alpha of
the foregrounds is rendered, not drawn: it is exact. `renders/examples.py` makes them again.

| file | source | author | licence | sha256 |
| --- | --- | --- | --- | --- |
"""


if __name__ == "__main__":
    main()
