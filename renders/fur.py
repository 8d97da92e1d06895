"""Plush animals and other furry bodies, whiskers included; all of it is made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from . import shapes
from .grow import Style, grow, melanin

Part = tuple[np.ndarray, np.ndarray, float]  # centre, radii, length of the fur
SNOUT = 8  # its place among the parts of an animal
KINDS = ("bear", "cat", "rabbit", "mouse", "ball", "rug", "fox", "sheep")


def build(rng: np.random.Generator, packs: Path, name: str) -> dict:
    """Builds one of `KINDS`. Returns how a camera looks at it."""
    parts = _ball(rng) if name == "ball" else _rug(rng) if name == "rug" else _animal(name, rng)
    coat = _coat(name, rng)
    skin, second = melanin(rng, 1, 0)[0], melanin(rng, 1, 0)[0]
    total = sum(np.prod(radii) ** (2 / 3) for _, radii, _ in parts)
    count = int(rng.uniform(22_000, 36_000))
    strands = shapes.hairy(float(rng.uniform(0.3, 0.55)))
    under = shapes.plain(tuple(skin * 0.5), 0.9)
    for index, (centre, radii, length) in enumerate(parts):
        own = max(300, int(count * np.prod(radii) ** (2 / 3) / total))
        item = shapes.ball(centre, radii, under)
        vertices = np.array([v.co for v in item.data.vertices])
        faces = np.array([p.vertices for p in item.data.polygons])
        triangles = np.concatenate([faces[:, [0, 1, 2]], faces[:, [0, 2, 3]]])
        place, normal, _ = shapes.roots(vertices, triangles, own, rng)
        normal = shapes.unit((place - centre) / radii**2)
        others = [p for i, p in enumerate(parts) if i != index]
        inside = np.zeros(len(place), bool)
        for middle, size, _ in others:
            inside |= (((place - middle) / size) ** 2).sum(1) < 0.9
        place, normal = place[~inside], normal[~inside]
        if len(place) < 60:
            continue
        comb = np.array([0, 0.35, -0.45]) + 0.35 * shapes.smooth_noise(
            place, 3, np.random.default_rng(7)
        )
        style = Style(**{**coat.__dict__, "length": coat.length * length})
        points = grow(place, normal, comb, style, rng)
        patch = 1 / (
            1
            + np.exp(-8 * (shapes.smooth_noise(place, 2.5, np.random.default_rng(3))[:, :1] - 0.3))
        )
        tints = (skin * (1 - patch) + second * patch) * np.exp(rng.normal(0, 0.2, (len(place), 1)))
        shapes.strands(points, 0.0022 if style.length < 0.2 else 0.0028, tints, strands)
    if name not in {"ball", "rug"}:
        _face(parts[1], parts[SNOUT], rng)
    return {"yaw": (-1.2, 1.2), "pitch": (-0.1, 0.45), "fill": (0.75, 1.05)}


def _coat(name: str, rng: np.random.Generator) -> Style:
    length = float(np.exp(rng.uniform(np.log(0.06), np.log(0.3))))
    if name == "sheep":
        return Style(0.16, 22, 1, 0.05, 0.3, 0.02, 4, 0.6, 0.06)
    curl = float(rng.choice([0, 0, 0, 0.012]))
    return Style(
        length,
        9 if not curl else 20,
        rng.uniform(0.4, 1.2),
        rng.uniform(0, 0.35),
        rng.uniform(0.1, 0.4),
        curl,
        3,
        rng.uniform(0.1, 0.7),
        rng.uniform(0.02, 0.08),
    )


def _animal(name: str, rng: np.random.Generator) -> list[Part]:
    """Returns ellipsoids: centre, radii, how long their fur is. The second is the head."""
    wide, tall = rng.uniform(0.85, 1.15, 2)
    head = rng.uniform(0.5, 0.68)
    up = 0.75 * tall + head * 0.75
    parts = [
        ((0, 0.1, 0), (0.62 * wide, 0.58, 0.78 * tall), 1.0),
        ((0, -0.12, up), (head, head * 0.92, head * 0.9), 0.7),
    ]
    ear = {
        "bear": (0.22, 0.12, 0.22),
        "cat": (0.16, 0.08, 0.28),
        "rabbit": (0.13, 0.08, 0.62),
        "mouse": (0.3, 0.07, 0.3),
        "fox": (0.17, 0.09, 0.36),
        "sheep": (0.26, 0.1, 0.11),
    }[name]
    out = 0.98 if name == "sheep" else rng.uniform(0.55, 0.75)
    for side in (-1, 1):
        place = (
            side * head * out,
            -0.1,
            up + (0.1 if name == "sheep" else head * 0.72 + ear[2] * 0.45),
        )
        parts.append((place, ear, 0.45))
        parts.append(((side * 0.5 * wide, -0.25, 0.12), (0.2, 0.26, 0.42), 0.7))
        parts.append(((side * 0.36, -0.35, -0.62 * tall), (0.24, 0.42, 0.22), 0.7))
    parts.append(
        (
            (0, -0.12 - head * 0.75, up - head * 0.2),
            (head * 0.42, head * (0.75 if name == "fox" else 0.42), head * 0.32),
            0.35,
        )
    )
    if name in {"cat", "fox", "mouse"}:
        thick = {"cat": 0.13, "fox": 0.26, "mouse": 0.05}[name]
        bend = rng.uniform(-1, 1)
        for step in range(9):
            t = step / 8
            parts.append(
                (
                    (bend * np.sin(t * 2.2) * 0.7 + 0.1, 0.6 + 0.5 * t, -0.5 + 0.9 * t * t),
                    (thick, thick * 1.3, thick * 1.1),
                    0.9,
                )
            )
    else:
        parts.append(((0, 0.75, -0.35), (0.18, 0.18, 0.18), 0.8))
    return [(np.array(c, float), np.array(r, float), s) for c, r, s in parts]


def _ball(rng: np.random.Generator) -> list[Part]:
    return [(np.zeros(3), rng.uniform(0.5, 1, 3), float(rng.uniform(1, 3)))]


def _rug(rng: np.random.Generator) -> list[Part]:
    return [(np.zeros(3), np.array([1.0, rng.uniform(0.5, 0.9), 0.08]), float(rng.uniform(1, 2)))]


def _face(head: Part, snout: Part, rng: np.random.Generator) -> None:
    centre, radii, _ = head
    black = shapes.plain((0.006, 0.005, 0.005), 0.08)
    size = radii[0] * rng.uniform(0.12, 0.2)
    for side in (-1, 1):
        at = centre + radii * shapes.unit(np.array([side * 0.42, -1.0, 0.22]))
        shapes.ball(at, np.full(3, size), black)
    nose = snout[0] + snout[1] * np.array([0, -1.02, 0.25])
    shapes.ball(nose, radii[0] * np.array([0.15, 0.12, 0.1]), black)
    if rng.random() < 0.75:
        count = int(rng.integers(5, 11))
        t = np.linspace(0, 1, 16)[None, :, None]
        side = np.where(np.arange(2 * count) % 2, 1, -1)[:, None]
        start = nose + np.stack(
            [
                side[:, 0] * radii[0] * 0.25,
                np.full(2 * count, radii[1] * 0.12),
                rng.uniform(-0.14, 0.02, 2 * count),
            ],
            -1,
        )
        way = np.concatenate(
            [side, rng.uniform(-0.5, 0.3, (2 * count, 1)), rng.uniform(-0.3, 0.4, (2 * count, 1))],
            1,
        )
        fall = np.array([0, 0, -1]) * rng.uniform(0, 0.35, (2 * count, 1))
        length = radii[0] * rng.uniform(0.9, 1.7, (2 * count, 1))
        points = start[:, None] + (way * length)[:, None] * t + (fall * length)[:, None] * t**2
        pale = np.full((2 * count, 3), float(rng.choice([0.02, 0.8])))
        shapes.strands(points, 0.006, pale, shapes.hairy(), 0.2)
