"""Thin things: cords, wire, feathers, leaves, twigs, grass, webs, fringes, spokes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from . import shapes


def build(rng: np.random.Generator, packs: Path, name: str) -> dict:
    """Builds one of `KINDS`. Returns how a camera looks at it."""
    return KINDS[name](rng) or {"fill": (0.75, 1.05)}


def _spline(knots: np.ndarray, count: int) -> np.ndarray:
    """Returns a smooth path (count, 3) through knots: Catmull-Rom."""
    ends = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    at = np.linspace(0, len(knots) - 1 - 1e-6, count)
    i, t = at.astype(int), (at % 1)[:, None]
    a, b, c, d = ends[i], ends[i + 1], ends[i + 2], ends[i + 3]
    return 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    )


def _cords(rng: np.random.Generator) -> None:
    """Cables and headphones: a few long loose loops, some with a plug or a coil."""
    for _ in range(int(rng.integers(1, 5))):
        knots = rng.normal(0, 0.55, (int(rng.integers(5, 11)), 3)) * [1, 0.5, 1]
        path = _spline(knots, 300)
        radius = float(rng.uniform(0.006, 0.025))
        if rng.random() < 0.3:  # coiled, like an old telephone's
            turn = np.linspace(0, 2 * np.pi * rng.integers(30, 60), 1500)
            middle = _spline(knots, 1500)
            along = shapes.unit(np.gradient(middle, axis=0))
            side = shapes.unit(np.cross(along, [0.3, 1, 0.2]))
            path = middle + radius * 3 * (
                np.cos(turn)[:, None] * side + np.sin(turn)[:, None] * np.cross(along, side)
            )
            radius *= 0.5
        material = shapes.plain(shapes.colour(rng), float(rng.uniform(0.25, 0.7)))
        shapes.tubes([path], radius, material)
        metal = shapes.plain((0.7, 0.65, 0.55), 0.2, 1)
        for end, before in ((path[0], path[8]), (path[-1], path[-9])):
            way = shapes.unit(end - before)
            shapes.tubes([np.stack([end, end + way * radius * 9])], radius * 2.2, material)
            shapes.tubes(
                [np.stack([end + way * radius * 9, end + way * radius * 15])], radius, metal
            )


def _wire(rng: np.random.Generator) -> None:
    """A cage, lampshade or spiral of wire."""
    metal = shapes.plain(
        shapes.colour(rng, 0.1), float(rng.uniform(0.1, 0.5)), float(rng.random() < 0.7)
    )
    radius = float(rng.uniform(0.006, 0.018))
    height = np.linspace(-1, 1, 60)
    belly = (
        0.25 + 0.75 * np.cos(height * rng.uniform(0.8, 1.5)) ** 2 + rng.uniform(-0.1, 0.2) * height
    )
    count, twist = int(rng.integers(8, 26)), rng.uniform(-2, 2) * (rng.random() < 0.5)
    paths = []
    for turn in np.linspace(0, 2 * np.pi, count, endpoint=False):
        angle = turn + twist * height
        paths.append(np.stack([belly * np.cos(angle), belly * np.sin(angle), height], -1))
    shapes.tubes(paths, radius, metal)
    ring = np.linspace(0, 2 * np.pi, 80)[:-1]
    rings = [
        np.stack([b * np.cos(ring), b * np.sin(ring), np.full(79, h)], -1)
        for b, h in zip(
            belly[:: int(rng.integers(6, 25))], height[:: int(rng.integers(6, 25))], strict=False
        )
    ]
    rings += [
        np.stack([belly[i] * np.cos(ring), belly[i] * np.sin(ring), np.full(79, height[i])], -1)
        for i in (0, -1)
    ]
    shapes.tubes(rings, radius * 1.2, metal, closed=True)
    if rng.random() < 0.5:
        turn = np.linspace(0, 2 * np.pi * 8, 400)
        spiral = np.stack([0.2 * np.cos(turn), 0.2 * np.sin(turn), np.linspace(-0.8, 0.9, 400)], -1)
        shapes.tubes([spiral], radius, metal)


def _feather(rng: np.random.Generator) -> dict:
    """Feathers: barbs left and right of a shaft, here and there torn apart."""
    material = shapes.hairy(0.5)
    first, second = np.array(shapes.colour(rng)), np.array(shapes.colour(rng))
    for index in range(int(rng.integers(1, 6))):
        fan = (index - 2) * rng.uniform(0.25, 0.45)
        bend, wide = rng.uniform(-0.5, 0.5), rng.uniform(0.12, 0.32)
        t = np.linspace(0, 1, 60)
        shaft = np.stack([bend * t**2, 0.1 * np.sin(t * 2) + 0.04 * index, 2 * t], -1)
        turn = np.array([[np.cos(fan), 0, np.sin(fan)], [0, 1, 0], [-np.sin(fan), 0, np.cos(fan)]])
        shapes.tubes(
            [np.concatenate([shaft @ turn.T, np.linspace(1, 0.2, 60)[:, None]], 1)],
            0.018,
            shapes.plain((0.7, 0.62, 0.5), 0.4),
        )
        count = int(rng.integers(900, 1800))
        at = np.sort(rng.uniform(0.12, 1, count))
        side = np.where(np.arange(count) % 2, 1.0, -1.0)
        root = np.stack([np.interp(at, t, shaft[:, i]) for i in range(3)], -1)
        length = (
            wide * np.sin(np.pi * np.clip(at, 0.02, 0.98)) ** 0.45 * rng.uniform(0.9, 1.05, count)
        )
        split = np.repeat(rng.normal(0, 0.12, count // 60 + 1), 60)[:count]
        downy = np.clip(0.3 - at, 0, 0.3) * 3
        way = shapes.unit(
            np.stack(
                [
                    side,
                    rng.normal(0, 0.05, count) + downy * rng.normal(0, 1, count),
                    0.9 + split + rng.normal(0, 0.03, count),
                ],
                -1,
            )
        )
        s = np.linspace(0, 1, 7)[None, :, None]
        points = (
            root[:, None]
            + (way * length[:, None])[:, None] * s
            + np.array([0, 0.06, 0.12]) * s**2 * length[:, None, None]
        )
        points = points + shapes.smooth_noise(points, 14, rng) * downy[:, None, None] * 0.04 * s
        bands = (np.sin(at * rng.uniform(3, 40)) * 0.5 + 0.5)[:, None]
        shapes.strands(points @ turn.T, 0.0045, first * (1 - bands) + second * bands, material, 0.5)
    return {"yaw": (-0.7, 0.7), "fill": (0.8, 1.05)}


def _branch(
    start: np.ndarray,
    way: np.ndarray,
    length: float,
    depth: int,
    rng: np.random.Generator,
    paths: list,
    tips: list,
) -> None:
    knots = np.cumsum(
        np.concatenate([[start], shapes.unit(way + rng.normal(0, 0.22, (6, 3))) * length / 6]), 0
    )
    thick = np.linspace(1, 0.6, 7) * 0.62 ** (3 - depth)
    paths.append(np.concatenate([knots, thick[:, None]], 1))
    tips.extend((p, shapes.unit(way)) for p in knots[2:])
    if depth:
        for _ in range(int(rng.integers(2, 5))):
            turned = shapes.unit(way + rng.normal(0, 0.75, 3) + [0, 0, 0.1])
            _branch(
                knots[int(rng.integers(2, 7))],
                turned,
                length * rng.uniform(0.5, 0.8),
                depth - 1,
                rng,
                paths,
                tips,
            )


def _twig(rng: np.random.Generator) -> None:
    """A bare or leafy twig, sometimes with berries."""
    paths: list = []
    tips: list = []
    _branch(
        np.zeros(3),
        np.array([rng.normal(0, 0.3), rng.normal(0, 0.3), 1.0]),
        0.9,
        3,
        rng,
        paths,
        tips,
    )
    shapes.tubes(paths, float(rng.uniform(0.02, 0.04)), shapes.plain((0.13, 0.075, 0.04), 0.85))
    leafy = rng.random()
    if leafy < 0.75:
        _leaves(tips, rng, 0.05 + 0.12 * rng.random(), 0.25 + 0.3 * rng.random())
    if leafy > 0.6:
        red = shapes.plain(shapes.colour(rng, 0.2), 0.25)
        for place, _ in tips[:: int(rng.integers(5, 14))]:
            shapes.ball(place + rng.normal(0, 0.02, 3), np.full(3, 0.03), red)


def _leaves(tips: list, rng: np.random.Generator, size: float, wide: float) -> None:
    t = np.linspace(0, 1, 7)
    half = wide * np.sin(np.pi * t**0.8)
    flat = np.concatenate(
        [
            np.stack([-half, 0.15 * half, t], -1),
            np.stack([0 * t, 0 * t, t], -1),
            np.stack([half, 0.15 * half, t], -1),
        ]
    )
    own = [
        (c * 7 + r, c * 7 + r + 1, c * 7 + r + 8, c * 7 + r + 7) for c in range(2) for r in range(6)
    ]
    vertices, faces = [], []
    for place, way in tips:
        for _ in range(int(rng.integers(1, 3))):
            up = shapes.unit(way + rng.normal(0, 0.9, 3))
            side = shapes.unit(np.cross(up, rng.normal(0, 1, 3)))
            frame = np.stack([side, np.cross(side, up), up])
            bent = flat + np.array([0, 1, 0]) * (rng.uniform(-0.4, 0.4) * flat[:, 2:] ** 2)
            faces += [tuple(i + 21 * len(vertices) for i in f) for f in own]
            vertices.append(place + (bent * size * rng.uniform(0.6, 1.3)) @ frame)
    green = rng.choice(
        [
            [0.05, 0.17, 0.02],
            [0.11, 0.22, 0.03],
            [0.03, 0.09, 0.03],
            [0.45, 0.12, 0.02],
            [0.5, 0.33, 0.03],
        ]
    )
    shapes.surface(
        np.concatenate(vertices),
        faces,
        shapes.patterned(tuple(green), tuple(np.array(green) * 0.6), rng),
    )


def _grass(rng: np.random.Generator) -> dict:
    """A tuft of grass or ears of corn."""
    count = int(rng.integers(120, 700))
    t = np.linspace(0, 1, 14)[None, :, None]
    root = rng.normal(0, 0.15, (count, 3)) * [1, 1, 0]
    lean = np.concatenate([rng.normal(0, 0.5, (count, 2)), np.ones((count, 1))], 1)
    fall = np.concatenate(
        [lean[:, :2] * rng.uniform(0.2, 1.2, (count, 1)), rng.uniform(-0.6, 0, (count, 1))], 1
    )
    length = rng.uniform(0.6, 1.6, (count, 1))
    points = root[:, None] + (lean * length)[:, None] * t + (fall * length)[:, None] * t**2
    green = np.array([0.12, 0.26, 0.04]) if rng.random() < 0.6 else np.array([0.5, 0.36, 0.12])
    tints = green * np.exp(rng.normal(0, 0.3, (count, 1)))
    shapes.strands(points, float(rng.uniform(0.006, 0.014)), tints, shapes.hairy(0.6), 0.1)
    if rng.random() < 0.5:
        ears = points[: count // 6]
        way = shapes.unit(ears[:, -1] - ears[:, -3])
        each = 26
        root = np.repeat(ears[:, -1], each, 0) + np.repeat(way, each, 0) * rng.uniform(
            0, 0.22, (len(ears) * each, 1)
        )
        out = shapes.unit(np.repeat(way, each, 0) + rng.normal(0, 0.3, root.shape)) * rng.uniform(
            0.08, 0.3, (len(root), 1)
        )
        awns = root[:, None] + out[:, None] * np.linspace(0, 1, 5)[None, :, None]
        shapes.strands(
            awns, 0.007, np.tile([0.55, 0.4, 0.15], (len(root), 1)), shapes.hairy(0.6), 0.1
        )
    return {"pitch": (-0.1, 0.3)}


def _web(rng: np.random.Generator) -> dict:
    """A spider's web or a dream catcher in a ring."""
    spokes = int(rng.integers(9, 22))
    angle = np.sort(np.linspace(0, 2 * np.pi, spokes, endpoint=False) + rng.normal(0, 0.08, spokes))
    rim = rng.uniform(0.85, 1.05, spokes) if rng.random() < 0.5 else np.ones(spokes)
    ends = np.stack([rim * np.cos(angle), 0 * angle, rim * np.sin(angle)], -1)
    silk = shapes.plain(shapes.colour(rng, 0.3), 0.3)
    radius = float(rng.uniform(0.0025, 0.006))
    shapes.tubes([np.stack([np.zeros(3), e]) for e in ends], radius, silk)
    turns = []
    for share in np.linspace(0.1, 0.97, int(rng.integers(9, 24))):
        ring = []
        for a, b in zip(ends, np.roll(ends, -1, 0), strict=True):
            s = np.linspace(0, 1, 6, endpoint=False)[:, None]
            ring.append(share * (a * (1 - s) + b * s) * (1 - 0.10 * np.sin(np.pi * s)))
        turns.append(np.concatenate(ring))
    shapes.tubes(turns, radius * 0.8, silk, closed=True)
    if rim.max() == 1:
        ring = np.linspace(0, 2 * np.pi, 100)[:-1]
        shapes.tubes(
            [np.stack([np.cos(ring), 0 * ring, np.sin(ring)], -1)],
            0.03,
            shapes.plain(shapes.colour(rng), 0.7),
            closed=True,
        )
    return {"yaw": (-0.8, 0.8), "fill": (0.85, 1.2)}


def _fringe(rng: np.random.Generator) -> dict:
    """A scarf or a lampshade's cloth with a fringe or tassels."""
    rows, columns = 24, 60
    u, v = np.meshgrid(np.linspace(-1, 1, columns), np.linspace(0, 1, rows))
    wave = 0.12 * np.sin(u * rng.uniform(3, 9) + rng.uniform(0, 6)) * (0.3 + v)
    cloth = np.stack([u * (1 + 0.05 * v), wave, 1 - v * 0.9], -1)
    first, second = shapes.colour(rng), shapes.colour(rng)
    shapes.surface(
        cloth.reshape(-1, 3),
        shapes.sheet_faces(rows, columns),
        shapes.patterned(first, second, rng),
    )
    each, groups = int(rng.integers(8, 40)), int(rng.integers(24, 70))
    x = np.repeat(np.linspace(-1, 1, groups), each) + rng.normal(0, 0.004, each * groups)
    root = np.stack([np.interp(x, u[-1], cloth[-1, :, i]) for i in range(3)], -1)
    length = rng.uniform(0.25, 0.6)
    t = np.linspace(0, 1, 12)[None, :, None]
    lean = np.repeat(rng.normal(0, 0.12, (groups, 3)), each, 0) + rng.normal(0, 0.06, root.shape)
    spread = (
        shapes.unit(rng.normal(0, 1, root.shape))[:, None]
        * np.sin(np.pi * np.minimum(t * 1.6, 1))
        * 0.012
    )
    points = (
        root[:, None]
        + np.array([0, 0, -1]) * length * t * rng.uniform(0.9, 1.02, (len(root), 1, 1))
        + lean[:, None] * length * t**2
        + spread
    )
    tints = np.array(second) * np.exp(rng.normal(0, 0.12, (len(root), 1)))
    shapes.strands(points, 0.004, tints, shapes.hairy(0.6), 0.7)
    return {"yaw": (-0.9, 0.9), "pitch": (-0.2, 0.3)}


def _wheel(rng: np.random.Generator) -> None:
    """A spoked wheel."""
    ring = np.linspace(0, 2 * np.pi, 120)[:-1]
    circle = np.stack([np.cos(ring), 0 * ring, np.sin(ring)], -1)
    shapes.tubes(
        [circle],
        float(rng.uniform(0.03, 0.07)),
        shapes.plain((0.015, 0.015, 0.015), 0.7),
        closed=True,
    )
    metal = shapes.plain(shapes.colour(rng, 0.3), 0.2, 1)
    shapes.tubes([circle * 0.94], 0.022, metal, closed=True)
    shapes.tubes([np.array([[0, -0.14, 0], [0, 0.14, 0]])], 0.05, metal)
    count, cross = int(rng.integers(10, 20)) * 2, rng.uniform(0, 0.9)
    spokes = []
    for index, angle in enumerate(np.linspace(0, 2 * np.pi, count, endpoint=False)):
        hub = angle + cross * (1 if index % 4 < 2 else -1)
        side = 0.11 if index % 2 else -0.11
        spokes.append(
            np.array(
                [
                    [0.06 * np.cos(hub), side, 0.06 * np.sin(hub)],
                    [0.93 * np.cos(angle), 0, 0.93 * np.sin(angle)],
                ]
            )
        )
    shapes.tubes(spokes, float(rng.uniform(0.005, 0.011)), metal)


def _dandelion(rng: np.random.Generator) -> dict:
    """A dandelion clock: each seed a stalk with a parachute of hairs."""
    count, each = int(rng.integers(70, 190)), 26
    out = shapes.unit(rng.normal(0, 1, (count, 3)))
    out = out[rng.random(count) < rng.uniform(0.55, 1)]
    top = np.array([0, 0, 1.0])
    material = shapes.hairy(0.5)
    shapes.ball(top, np.full(3, 0.08), shapes.plain((0.25, 0.2, 0.1), 0.9))
    stem = _spline(np.array([[0.1, 0, -1.2], [rng.uniform(-0.2, 0.2), 0, -0.2], [0, 0, 1.0]]), 40)
    shapes.tubes([stem], 0.028, shapes.plain((0.2, 0.3, 0.08), 0.6))
    stalks = top + out[:, None] * np.linspace(0.08, 0.5, 4)[None, :, None]
    shapes.strands(stalks, 0.004, np.tile([0.5, 0.42, 0.3], (len(out), 1)), material, 0.8)
    way = shapes.unit(
        np.repeat(out, each, 0) * 0.7 + shapes.unit(rng.normal(0, 1, (len(out) * each, 3)))
    )
    hairs = (
        np.repeat(stalks[:, -1], each, 0)[:, None]
        + way[:, None] * np.linspace(0, 0.2, 4)[None, :, None]
    )
    shapes.strands(hairs, 0.0026, np.full((len(hairs), 3), 0.9), material, 0.4)
    return {"pitch": (-0.2, 0.3)}


def _fern(rng: np.random.Generator) -> None:
    """Fern fronds: small leaves along bent stalks."""
    tips: list = []
    paths = []
    for angle in rng.uniform(0, 2 * np.pi, int(rng.integers(4, 10))):
        t = np.linspace(0, 1, 40)
        far = rng.uniform(0.6, 1.2)
        stalk = np.stack(
            [
                np.cos(angle) * far * t,
                np.sin(angle) * far * t,
                rng.uniform(0.8, 1.3) * t - rng.uniform(0.4, 1) * t**2,
            ],
            -1,
        )
        paths.append(np.concatenate([stalk, np.linspace(1, 0.3, 40)[:, None]], 1))
        side = np.array([-np.sin(angle), np.cos(angle), 0])
        for sign in (-1, 1):
            tips += [
                (p, shapes.unit(sign * side * 2 + [0, 0, 0.4] + 0.5 * (stalk[-1] - stalk[0])))
                for p in stalk[6:]
            ]
    shapes.tubes(paths, 0.012, shapes.plain((0.09, 0.16, 0.04), 0.7))
    _leaves(tips, rng, float(rng.uniform(0.12, 0.24)), float(rng.uniform(0.1, 0.2)))


KINDS = {
    "cords": _cords,
    "wire": _wire,
    "feather": _feather,
    "twig": _twig,
    "grass": _grass,
    "web": _web,
    "fringe": _fringe,
    "wheel": _wheel,
    "dandelion": _dandelion,
    "fern": _fern,
}
