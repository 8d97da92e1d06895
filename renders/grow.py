"""How strands grow from their roots: combed, curled, clumped, pulled down, kept out of the body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mathutils.bvhtree import BVHTree
from mathutils.kdtree import KDTree

from .shapes import unit

GUIDED = 50  # strands that follow one guide


@dataclass
class Style:
    """How a coat or a head of hair looks; lengths are in the units of the scene."""

    length: float
    knots: int = 10
    lift: float = 1.0  # how far it stands off the skin
    gravity: float = 0.3
    messy: float = 0.15
    curl: float = 0.0  # radius of the curls
    turns: float = 3.0
    clump: float = 0.3
    flyaways: float = 0.03


def grow(
    root: np.ndarray,
    normal: np.ndarray,
    comb: np.ndarray,
    style: Style,
    rng: np.random.Generator,
    body: BVHTree | None = None,
) -> np.ndarray:
    """Returns strands (N, K, 3).

    Args:
        root: Places on the skin, (N, 3).
        normal: The skin's normals there, (N, 3).
        comb: Directions along the skin that the strands are combed to, (N, 3).
        style: Lengths and habits.
        rng: Random numbers.
        body: What strands do not enter, or None.
    """
    count = len(root)
    wild = rng.random(count) < style.flyaways
    guides = np.sort(rng.choice(count, max(1, count // GUIDED), replace=False))
    lock = _nearest(root, root[guides])
    share = np.linspace(0, 1, style.knots)[None, :, None]
    if body is None:
        points = _paths(root, normal, comb, style, wild, rng, None)
        weight = style.clump * share**1.5 * ~wild[:, None, None]
        offset = points - root[:, None]
        points = root[:, None] + offset * (1 - weight) + offset[guides[lock]] * weight
    else:  # few are kept out of the body one by one, the rest follow them
        led = _paths(root[guides], normal[guides], comb[guides], style, wild[guides], rng, body)
        follow = (led - led[:, :1])[lock] * rng.uniform(0.8, 1.1, (count, 1, 1))
        apart = (root - root[guides[lock]])[:, None] * (1 - style.clump * share)
        stray = _strays(root, style, wild, rng)
        points = led[lock][:, :1] + apart + follow + stray
    if style.curl:
        points = points + _curls(points, lock, style, rng)
    return points


def _strays(
    root: np.ndarray, style: Style, wild: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Returns how single strands leave their lock, (N, K, 3): further towards the tip."""
    steps = rng.normal(0, 1, (len(root), style.knots, 3)) * style.length / style.knots
    drift = (
        rng.normal(0, 1, (len(root), 1, 3))
        * style.length
        * np.where(wild, 0.35, 0.12)[:, None, None]
    )
    share = np.linspace(0, 1, style.knots)[None, :, None]
    loose = np.where(wild, 4, 1)[:, None, None] * style.messy
    return (np.cumsum(steps, 1) * 0.5 * share + drift * share**1.5) * loose


def _paths(
    root: np.ndarray,
    normal: np.ndarray,
    comb: np.ndarray,
    style: Style,
    wild: np.ndarray,
    rng: np.random.Generator,
    body: BVHTree | None,
) -> np.ndarray:
    count, knots = len(root), style.knots
    short = np.where(wild, rng.uniform(0.5, 1.2, count), 1)
    length = style.length * rng.uniform(0.75, 1.1, count) * short
    mess = style.messy * np.where(wild, 4, 1)
    pull = style.gravity * np.where(wild, 0.35, 1)
    way = unit(normal * style.lift + comb + rng.normal(0, 1, root.shape) * mess[:, None])
    place, path = root.copy(), [root.copy()]
    for knot in range(1, knots):
        share = knot / (knots - 1)
        way = way + np.array([0, 0, -1]) * (pull * share)[:, None]
        way = unit(way + rng.normal(0, 0.35, root.shape) * mess[:, None] * share)
        place = place + way * (length / (knots - 1))[:, None]
        if body is not None:
            place = _outside(place, body, style.length * 0.01)
        path.append(place)
    return np.stack(path, 1)


def _curls(
    points: np.ndarray, lock: np.ndarray, style: Style, rng: np.random.Generator
) -> np.ndarray:
    count, share = len(points), np.linspace(0, 1, style.knots)
    phase = rng.uniform(0, 2 * np.pi, lock.max() + 1)[lock] + rng.normal(0, 0.35, count)
    turns = style.turns * rng.uniform(0.8, 1.2, lock.max() + 1)[lock]
    angle = phase[:, None] + 2 * np.pi * turns[:, None] * share
    along = unit(points[:, -1] - points[:, 0])
    side = unit(np.cross(along, rng.normal(0, 1, 3)))
    other = np.cross(along, side)
    wave = np.cos(angle)[..., None] * side[:, None] + np.sin(angle)[..., None] * other[:, None]
    return wave * (style.curl * np.minimum(share * 4, 1))[None, :, None]


def _nearest(points: np.ndarray, among: np.ndarray) -> np.ndarray:
    tree = KDTree(len(among))
    for index, point in enumerate(among):
        tree.insert(point, index)
    tree.balance()
    return np.array([tree.find(point)[1] for point in points])


def _outside(points: np.ndarray, body: BVHTree, margin: float) -> np.ndarray:
    moved = points.copy()
    for index, point in enumerate(points):
        near, normal, _, _ = body.find_nearest(point)
        if (
            near is not None
            and (
                (point[0] - near[0]) * normal[0]
                + (point[1] - near[1]) * normal[1]
                + (point[2] - near[2]) * normal[2]
            )
            < margin
        ):
            moved[index] = (near + normal * margin)[:]
    return moved


def melanin(rng: np.random.Generator, count: int, spread: float = 0.12) -> np.ndarray:
    """Returns colours (N, 3) of natural or dyed hair, each strand a little different."""
    palette = [
        (0.012, 0.009, 0.008),
        (0.03, 0.018, 0.012),
        (0.07, 0.035, 0.018),
        (0.14, 0.07, 0.03),
        (0.30, 0.17, 0.07),
        (0.55, 0.38, 0.19),
        (0.75, 0.62, 0.42),
        (0.35, 0.09, 0.03),
        (0.5, 0.48, 0.46),
        (0.85, 0.84, 0.82),
    ]
    base = np.array(palette[int(rng.integers(len(palette)))])
    if rng.random() < 0.07:  # dyed
        base = rng.uniform(0.02, 0.6, 3)
    return (
        base * np.exp(rng.normal(0, spread, (count, 1))) * np.exp(rng.normal(0, 0.03, (count, 3)))
    )
