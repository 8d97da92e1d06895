"""Prints the tables of docs/edges.md: refinement and foreground colours against known truths.

    python tests/reference/compare_edges.py --pairs DIR ... --backgrounds DIR
    python tests/reference/compare_edges.py --benchmark BENCHMARK

A folder of pairs holds image/ and alpha/ with true soft mattes. BENCHMARK is what
`renders.benchmark` makes: true alphas and true colours, by group. With neither only synthetic
scenes are compared. Colours need pymatting. Seconds are processor time.
"""

import argparse
import csv
import importlib.util
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps
from scipy import ndimage

from kmatting.data import synthetic
from kmatting.images import read_image
from kmatting.inference import refine as refine_module
from kmatting.pictures.foreground import estimate_foreground
from kmatting.scoring import metrics

SIZE = (480, 640)
SCENES = 4  # of each kind
KINDS = ["sharp", "sigma 1", "sigma 2", "sigma 4", "sigma 6", "sigma 8", "strands", "hair"]
FACTORS = (1.5, 2.5, 5)
NETWORK_BLUR = 0.8  # sigma in pixels of the small matte


def main():
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=Path, nargs="*", default=[])
    parser.add_argument("--backgrounds", type=Path)
    parser.add_argument("--benchmark", type=Path)
    args = parser.parse_args()
    if args.benchmark:
        compare_refinement(benchmark_mattes(args.benchmark))
        compare_colours(benchmark_foregrounds(args.benchmark), pymatting_estimator())
        return
    estimate = pymatting_estimator()
    compare_refinement([*synthetic_mattes(), *real_mattes(args.pairs)])
    compare_colours(known_foregrounds(args.pairs, args.backgrounds, estimate), estimate)


# Refinement


def bilinear(small, image):
    """Enlarges a matte bilinearly."""
    size = image.shape[1::-1]
    return np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BILINEAR))


def closest_fit(small, image):
    """Refines everywhere, with the softness that fits best."""
    saved = refine_module.NEARLY_BEST, refine_module._trust
    refine_module.NEARLY_BEST, refine_module._trust = 1, lambda alpha, *_: np.ones_like(alpha)
    try:
        return refine_module.refine(small, image)
    finally:
        refine_module.NEARLY_BEST, refine_module._trust = saved


WAYS = {"bilinear": bilinear, "closest fit": closest_fit, "refine": refine_module.refine}


def compare_refinement(mattes):
    """Prints band MAD x 1000, gradient error and seconds of each way."""
    figures = defaultdict(list)
    for name, small, image, truth in mattes:
        band = metrics.unknown_band(truth)
        for way, enlarge in WAYS.items():
            start = time.process_time()
            alpha = enlarge(small, image).clip(0, 1)
            seconds = time.process_time() - start
            error = 1000 * metrics.mad(truth, alpha, band)
            figures[name, way].append((error, metrics.gradient_error(truth, alpha, band), seconds))
    means = {key: np.mean(values, axis=0) for key, values in figures.items()}
    names = list(dict.fromkeys(name for name, _way in means))
    kinds = list(dict.fromkeys(name[0] for name in names))
    print("| mattes | " + " | ".join(WAYS) + " |")
    for kind in kinds:
        cells = []
        for way in WAYS:
            error, gradient, _ = np.mean([means[n, way] for n in names if n[0] == kind], axis=0)
            cells.append(f"{error:.1f} / {gradient:.2f}")
        print(f"| {kind} | " + " | ".join(cells) + " |")
    settings = [name for name in names if name[0] in KINDS]
    for way in WAYS if settings else []:
        ratios = [means[name, way][0] / means[name, "bilinear"][0] for name in settings]
        seconds = np.mean([means[name, way][2] for name in settings])
        print(
            f"{way}: {seconds:.3f} s a synthetic scene; worse than bilinear by more than 1 % in "
            f"{sum(ratio > 1.01 for ratio in ratios)} of {len(settings)} settings, "
            f"{max(ratios):.2f} times at most"
        )


def synthetic_mattes():
    """Yields ((kind, factor, blur), small matte, image, truth)."""
    for kind in KINDS:
        for index in range(SCENES):
            image, truth = scene(kind, index)
            for factor in FACTORS:
                for blur in (0, NETWORK_BLUR):
                    yield (kind, factor, blur), reduced(truth, factor, blur), image, truth


def real_mattes(folders):
    """Yields the true mattes of pairs, reduced and blurred."""
    for folder in folders:
        for image, truth in read_pairs(folder):
            for blur in (0, NETWORK_BLUR):
                name = f"{folder.name}, reduced 2.5 times" + (", blurred" if blur else "")
                yield (name,), reduced(truth, 2.5, blur), image, truth


def benchmark_mattes(folder):
    """Yields the true mattes of the benchmark's groups, as a network of 320 px would see them."""
    for group, image, truth, _ in benchmark(folder):
        for blur in (0, NETWORK_BLUR):
            name = f"{group}, reduced to 320 px" + (", blurred" if blur else "")
            yield (name,), reduced(truth, max(truth.shape) / 320, blur), image, truth


def scene(kind, index):
    """Makes a synthetic image and its alpha, both uint8."""
    rng = np.random.default_rng([KINDS.index(kind), index])
    subject, behind = (
        synthetic.sample(seed, index, SIZE)[0].astype(np.float32) for seed in (40, 41)
    )
    if kind == "hair":
        alpha = synthetic.layers(9, int(rng.integers(10_000)), SIZE)[2] / np.float32(255)
    elif kind == "strands":
        alpha = strands(rng)
    else:
        alpha = outline(rng)
    if kind.startswith("sigma"):
        sigma = int(kind.split()[1])
        soft = ndimage.gaussian_filter(alpha, sigma)
        premultiplied = ndimage.gaussian_filter(alpha[..., None] * subject, (sigma, sigma, 0))
        subject, alpha = premultiplied / np.maximum(soft, 1e-4)[..., None], soft
    levels = np.rint(255 * alpha).astype(np.uint8)
    noise = rng.normal(0, 2, subject.shape)
    return mixed(subject, behind, levels / np.float32(255), noise), levels


def outline(rng):
    """Draws a smooth shape with sharp edges: float array in [0, 1]."""
    height, width = SIZE
    noise = ndimage.gaussian_filter(rng.standard_normal((height // 8, width // 8)), 5)
    field = Image.fromarray(noise.astype(np.float32)).resize((4 * width, 4 * height), 3)
    inside = np.asarray(field) > np.median(noise)
    return reduced(255 * inside.astype(np.uint8), 4)


def strands(rng):
    """Draws a disc with strands of one to three pixels: float array in [0, 1]."""
    height, width = SIZE
    centre = np.array([width / 2, height / 2])
    picture = Image.new("L", (4 * width, 4 * height))
    draw = ImageDraw.Draw(picture)
    draw.circle(tuple(4 * centre), 0.8 * height, fill=255)
    for angle in rng.uniform(0, 2 * np.pi, 60):
        headings = angle + np.cumsum(rng.normal(0, 0.15, 13))
        steps = 13 * np.stack([np.cos(headings), np.sin(headings)], -1)
        steps[0] *= 0.18 * height / 13
        points = 4 * (centre + np.cumsum(steps, 0))
        draw.line([tuple(point) for point in points], fill=255, width=int(rng.integers(4, 14)))
    return reduced(np.asarray(picture), 4)


def reduced(levels, factor, blur=0):
    """Reduces a matte as a network that errs only by its size and softness: float, 8-bit levels."""
    height, width = levels.shape
    size = max(1, round(width / factor)), max(1, round(height / factor))
    small = Image.fromarray(levels / np.float32(255)).resize(size, Image.Resampling.BOX)
    blurred = ndimage.gaussian_filter(np.asarray(small), blur) if blur else np.asarray(small)
    return np.rint(blurred * 255).clip(0, 255) / np.float32(255)


# Colours


def compare_colours(foregrounds, estimate):
    """Prints the error of the colours x 1000, weighted by alpha at soft pixels.

    Over black, white or green the composite differs from the true one by alpha * |F - truth|, so
    its mean over soft pixels is the halo over any background.
    """
    ways = {
        "photo's own": lambda image, alpha: image,
        "pymatting": lambda image, alpha: 255 * estimate(image / 255, alpha),
        "estimate_foreground": estimate_foreground,
    }
    figures = defaultdict(list)
    for name, image, alpha, truth in foregrounds:
        soft = (alpha > 0) & (alpha < 1)
        for way, colours in ways.items():
            start = time.process_time()
            result = colours(image, alpha)
            seconds = time.process_time() - start
            error = np.abs(np.asarray(result, float)[soft] - truth[soft]).mean(-1) / 0.255
            halo = (alpha[soft] * error).mean()
            error = np.average(error, weights=alpha[soft])
            figures[name, way].append((error, halo, seconds / alpha.size * 1e6))
    for (name, way), values in figures.items():
        error, halo, seconds = np.mean(values, axis=0)
        print(f"{name}: {way}: colours {error:.1f}, halo {halo:.1f}, {seconds:.2f} s a megapixel")


def known_foregrounds(folders, backgrounds, estimate):
    """Yields (name, image, alpha, true foreground): synthetic, and photos over new backgrounds."""
    for index in range(12):
        subject, behind, levels = synthetic.layers(5, index, SIZE)
        alpha = levels / np.float32(255)
        yield "synthetic", mixed(255 * subject, 255 * behind, alpha), alpha, 255 * subject
    scenes = sorted(backgrounds.iterdir()) if backgrounds else []
    for folder in folders if scenes else []:
        for index, (image, levels) in enumerate(read_pairs(folder)):
            alpha = levels / np.float32(255)
            truth = 255 * estimate(image / 255, alpha)
            with Image.open(scenes[index * 17 % len(scenes)]) as scenery:
                behind = np.asarray(ImageOps.fit(scenery.convert("RGB"), alpha.shape[::-1]))
            yield f"{folder.name} over new backgrounds", mixed(truth, behind, alpha), alpha, truth


def benchmark_foregrounds(folder):
    """Yields (group, image, alpha, true foreground) of the benchmark."""
    for group, image, levels, foreground in benchmark(folder):
        yield group, image, levels / np.float32(255), foreground


def pymatting_estimator():
    """Loads one module of pymatting: the whole package compiles for more than a minute."""
    package = importlib.util.find_spec("pymatting")
    path = Path(package.origin).parent / "foreground" / "estimate_foreground_ml.py"
    spec = importlib.util.spec_from_file_location("estimate_foreground_ml", path)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules["estimate_foreground_ml"] = loaded  # where numba looks for it
    spec.loader.exec_module(loaded)
    loaded.estimate_foreground_ml(np.zeros((4, 4, 3)), np.zeros((4, 4)))  # compiles
    return loaded.estimate_foreground_ml


# Both


def benchmark(folder):
    """Reads (group, image, alpha, foreground) of each scene of the benchmark, by group, uint8."""
    with (folder / "list.csv").open(newline="", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["group"])
    for row in rows:
        with Image.open(folder / row["foreground"]) as straight:
            foreground = np.asarray(straight)[..., :3]
        alpha = np.asarray(Image.open(folder / row["alpha"]).convert("L"))
        yield row["group"], read_image(folder / row["image"]), alpha, foreground


def read_pairs(folder, most=30):
    """Reads (image, alpha) of up to `most` pairs spread over a folder, uint8."""
    paths = sorted((folder / "alpha").iterdir())
    for path in paths[:: -(-len(paths) // most)]:
        photo = next((folder / "image").glob(f"{path.stem}.*"))
        yield read_image(photo), np.asarray(Image.open(path).convert("L"))


def mixed(subject, behind, alpha, noise=0):
    """Lays a subject over a background: uint8 image."""
    image = alpha[..., None] * subject + (1 - alpha[..., None]) * behind + noise
    return np.rint(image).clip(0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
