"""Compares ways to take flicker out of a video's mattes, on moving composites with a known truth.

Each subject sways and turns over a photo that moves too, with noise, as in docs/video.md:

    python tests/reference/compare_steady.py IMAGES ALPHAS BACKGROUNDS --clips 6
"""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from kmatting import Matter
from kmatting.images import Photo, list_images, read_alpha, read_image
from kmatting.inference.foreground import estimate_foreground
from kmatting.inference.refine import refine
from kmatting.pictures.names import matte_stem
from kmatting.scoring import metrics
from kmatting.video.steady import steady

WIDTH, HEIGHT = 848, 480
FRAMES, RATE = 30, 30
NOISE = 6  # standard deviation, in levels of 255


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("images", "alphas", "backgrounds"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--clips", type=int, default=6)
    args = parser.parse_args()
    alphas = {matte_stem(path): path for path in list_images(args.alphas)}
    images = [path for path in list_images(args.images) if path.stem in alphas]
    scenes = list_images(args.backgrounds)
    matter = Matter()
    figures = []
    for clip in range(args.clips):
        image = images[clip * len(images) // args.clips]
        scene = scenes[clip * len(scenes) // args.clips]
        frames, truth = moving_composite(image, alphas[image.stem], scene, clip)
        figures.append(score(ways(matter, frames), truth))
    for way in figures[0]:
        mad, dtssd = np.mean([of_clip[way] for of_clip in figures], axis=0)
        print(f"{way:<28} MAD {1000 * mad:6.2f}   dtSSD {dtssd:6.3f}")


def moving_composite(image, alpha, scene, seed):
    """Returns uint8 frames (H, W, 3) and true alphas (H, W)."""
    rng = np.random.default_rng(seed)
    speed = (1, 2, 4)[seed % 3]
    colours, opacity = read_image(image), read_alpha(alpha)
    colours = Image.fromarray(estimate_foreground(colours, opacity / np.float32(255)))
    opacity = Image.fromarray(opacity)
    scene = Image.fromarray(read_image(scene))
    cover = 1.2 * max(WIDTH / scene.width, HEIGHT / scene.height)
    scene = scene.resize((round(scene.width * cover), round(scene.height * cover)))
    fit = 0.95 * HEIGHT / colours.height
    size = round(colours.width * fit), round(colours.height * fit)
    colours, opacity = colours.resize(size), opacity.resize(size)
    frames, truth = [], []
    for number in range(FRAMES):
        t = speed * number / RATE
        left = (0.1 + 0.08 * np.sin(1.3 * t)) * WIDTH
        top = (0.1 + 0.05 * np.sin(0.9 * t)) * HEIGHT
        behind = moved(scene, (1, 0, left, 0, 1, top))
        scale, angle = 1 + 0.04 * np.sin(1.1 * t), 0.05 * np.sin(1.7 * t)
        x = WIDTH / 2 + 0.12 * WIDTH * np.sin(0.8 * t)
        y = HEIGHT / 2 + 0.03 * HEIGHT * (1 + np.sin(1.9 * t))
        c, s = np.cos(angle) / scale, np.sin(angle) / scale
        place = (c, s, size[0] / 2 - c * x - s * y, -s, c, size[1] / 2 + s * x - c * y)
        over, share = moved(colours, place), moved(opacity, place)[..., None] / 255
        mixed = share * over + (1 - share) * behind + rng.normal(0, NOISE, over.shape)
        frames.append(np.rint(mixed.clip(0, 255)).astype(np.uint8))
        truth.append(np.rint(share[..., 0] * 255).astype(np.uint8))
    return frames, truth


def moved(picture, place):
    moved = picture.transform(
        (WIDTH, HEIGHT), Image.Transform.AFFINE, place, Image.Resampling.BICUBIC
    )
    return np.asarray(moved, np.float64)


def ways(matter, frames):
    """Returns the mattes of the frames by each way."""
    coarse = [matter.coarse(Photo(frame)) for frame in frames]
    median = [matte for _, matte in steady(enumerate(coarse))]
    around = [coarse[0], *coarse, coarse[-1]]
    mean = [np.mean(around[number : number + 3], axis=0) for number in range(len(coarse))]
    alone = refined(coarse, frames)
    return {
        "each frame alone": alone,
        "median, then refined": refined(median, frames),
        "refined, then median": [matte for _, matte in steady(enumerate(alone))],
        "mean of three, then refined": refined(mean, frames),
        "median, only enlarged": [enlarged(matte) for matte in median],
    }


def refined(mattes, frames):
    return [refine(matte, frame) for matte, frame in zip(mattes, frames, strict=True)]


def enlarged(matte):
    image = Image.fromarray(matte).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    return np.asarray(image).clip(0, 1)


def score(mattes_by_way, truth):
    figures = {}
    for way, mattes in mattes_by_way.items():
        levels = [metrics.to_levels(matte) for matte in mattes]
        pairs = list(zip(truth, levels, strict=True))
        mad = np.mean([metrics.mad(*pair) for pair in pairs])
        dtssd = np.mean([metrics.dtssd(*now, *before) for before, now in pairwise(pairs)])
        figures[way] = mad, dtssd
    return figures


if __name__ == "__main__":
    main()
