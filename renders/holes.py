"""What is full of holes: nets, fences, chains, lattices, perforated sheets, doilies."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from . import shapes


def build(rng: np.random.Generator, packs: Path, name: str) -> dict:
    """Builds one of `KINDS`. Returns how a camera looks at it."""
    return KINDS[name](rng) or {"fill": (0.75, 1.05)}


def _metal(rng: np.random.Generator) -> object:
    return shapes.plain(
        shapes.colour(rng, 0.15), float(rng.uniform(0.15, 0.55)), float(rng.random() < 0.7)
    )


def _fence(rng: np.random.Generator) -> dict:
    """Chain link or bars between two posts."""
    metal, wide = _metal(rng), float(rng.uniform(1, 1.6))
    if rng.random() < 0.6:
        cell = float(rng.uniform(0.07, 0.18))
        steps = int(2 / cell)
        z = np.linspace(-1, 1, 2 * steps + 1)
        paths = []
        for index, x in enumerate(np.arange(-wide, wide, cell)):
            zig = (np.arange(len(z)) % 2) * cell * 0.98
            depth = 0.012 * np.where(np.arange(len(z)) % 2, 1, -1) * (1 if index % 2 else -1)
            paths.append(np.stack([x + zig, depth, z], -1))
        shapes.tubes(paths, cell * float(rng.uniform(0.035, 0.07)), metal)
    else:
        cells = int(rng.integers(8, 30))
        bars = [
            np.array([[x, 0, -1], [x, 0, 1.0 + 0.1 * (rng.random() < 0.5)]])
            for x in np.linspace(-wide, wide, cells)
        ]
        shapes.tubes(bars, float(rng.uniform(0.008, 0.03)), metal)
    rails = [np.array([[-wide, 0, z], [wide, 0, z]]) for z in (-1, 1)[: int(rng.integers(1, 3))]]
    posts = [np.array([[x, 0, -1.2], [x, 0, 1.15]]) for x in (-wide, wide)]
    shapes.tubes(rails + posts, 0.035, metal)
    return {"yaw": (-0.9, 0.9), "pitch": (-0.2, 0.3), "fill": (0.8, 1.4)}


def _net(rng: np.random.Generator) -> dict:
    """A net that hangs and sags: square or diamond meshes."""
    n = int(rng.integers(12, 34))
    u, v = np.meshgrid(np.linspace(-1, 1, n), np.linspace(-1, 1, n))
    if rng.random() < 0.5:
        u, v = (u + v) / 1.4, (u - v) / 1.4
    points = np.stack([u, 0 * u, v], -1)
    points += 0.12 * shapes.smooth_noise(points, 2.2, rng)
    points[..., 2] -= rng.uniform(0, 0.35) * (1 - u**2)
    points += rng.normal(0, 0.006, points.shape)
    cord = shapes.plain(shapes.colour(rng, 0.1), 0.85)
    paths = [points[i] for i in range(n)] + [points[:, i] for i in range(n)]
    shapes.tubes(paths, float(rng.uniform(0.004, 0.012)), cord)
    if rng.random() < 0.5:
        for place in points.reshape(-1, 3):
            shapes.ball(place, np.full(3, 0.014), cord) if rng.random() < 0.3 else None
    return {"yaw": (-0.9, 0.9), "fill": (0.8, 1.3)}


def _link(place: np.ndarray, along: np.ndarray, up: np.ndarray, size: float) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    side = np.cross(along, up)
    long = np.cos(turn) + 0.45 * np.sign(np.cos(turn))
    return place + size * (long[:, None] * along + 0.75 * np.sin(turn)[:, None] * side)


def _chain(rng: np.random.Generator) -> None:
    """Chains, from a jeweller's to an anchor's."""
    for _ in range(int(rng.integers(1, 4))):
        size = float(rng.uniform(0.025, 0.09))
        knots = np.cumsum(rng.normal(0, 0.6, (6, 3)) * [1, 0.4, 0.8], 0)
        at = np.linspace(0, 5, 2000)
        path = np.stack([np.interp(at, range(6), knots[:, i]) for i in range(3)], -1)
        kernel = np.ones(300) / 300
        path = np.stack([np.convolve(path[:, i], kernel, "valid") for i in range(3)], -1)
        far = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
        stations = np.arange(0, far[-1], size * 2.0)
        places = np.stack([np.interp(stations, far, path[:, i]) for i in range(3)], -1)
        ways = shapes.unit(np.gradient(places, axis=0))
        side = shapes.unit(np.cross(ways, [0.2, 1, 0.3]))
        links = [
            _link(p, w, s if i % 2 else np.cross(w, s), size)
            for i, (p, w, s) in enumerate(zip(places, ways, side, strict=True))
        ]
        shapes.tubes(links, size * 0.22, _metal(rng), closed=True)


def _lattice(rng: np.random.Generator) -> None:
    """A ball or drum of crossing bars."""
    metal, count = _metal(rng), int(rng.integers(8, 22))
    t = np.linspace(-1, 1, 60)
    round_ = np.sqrt(np.maximum(1 - (t * 0.96) ** 2, 0)) if rng.random() < 0.6 else np.ones(60)
    paths = []
    for twist in (rng.uniform(0.5, 2), -rng.uniform(0.5, 2)):
        for start in np.linspace(0, 2 * np.pi, count, endpoint=False):
            angle = start + twist * t
            paths.append(np.stack([round_ * np.cos(angle), round_ * np.sin(angle), t], -1))
    shapes.tubes(paths, float(rng.uniform(0.008, 0.03)), metal)


def _basket(rng: np.random.Generator) -> dict:
    """A woven basket, with gaps between its canes."""
    cane, count, rows = (
        shapes.plain((0.45, 0.28, 0.12), 0.7),
        int(rng.integers(10, 20)) * 2 + 1,
        int(rng.integers(7, 18)),
    )
    angle = np.linspace(0, 2 * np.pi, count * 8 + 1)[:-1]
    height = np.linspace(-0.6, 0.6, rows)
    belly = lambda z: 0.75 + 0.25 * np.sin((z + 0.6) * 1.6)  # noqa: E731
    weave = [
        np.stack(
            [
                (belly(z) + 0.03 * np.cos(angle * count / 2 + np.pi * i)) * np.cos(angle),
                (belly(z) + 0.03 * np.cos(angle * count / 2 + np.pi * i)) * np.sin(angle),
                np.full(len(angle), z),
            ],
            -1,
        )
        for i, z in enumerate(height)
    ]
    shapes.tubes(weave, float(rng.uniform(0.012, 0.03)), cane, closed=True)
    z = np.linspace(-0.6, 0.65, 20)
    shapes.tubes(
        [
            np.stack([belly(z) * np.cos(a), belly(z) * np.sin(a), z], -1)
            for a in np.linspace(0, 2 * np.pi, count, endpoint=False)
        ],
        0.02,
        cane,
    )
    if rng.random() < 0.6:
        t = np.linspace(0, np.pi, 40)
        shapes.tubes([np.stack([np.cos(t), 0 * t, 0.6 + 0.9 * np.sin(t)], -1)], 0.03, cane)
    return {"pitch": (-0.05, 0.6)}


def _perforated(rng: np.random.Generator) -> dict:
    """A bent sheet with a pattern of holes cut out."""
    n = 150
    u, v = np.meshgrid(np.linspace(-1, 1, n), np.linspace(-1, 1, n))
    bend = float(rng.uniform(0, 1.4))
    points = np.stack(
        [
            np.sin(u * bend) / max(bend, 1e-3),
            np.cos(u * bend) / max(bend, 1e-3),
            v * rng.uniform(0.5, 1),
        ],
        -1,
    )
    middle = (points[..., 0][:-1, :-1] * 0, u[:-1, :-1] + 1 / n, v[:-1, :-1] + 1 / n)
    wave = float(rng.uniform(9, 24))
    pattern = np.sin(middle[1] * wave) * np.sin(middle[2] * wave)
    if rng.random() < 0.4:
        pattern = np.sin(np.hypot(middle[1], middle[2]) * wave) * np.cos(
            np.arctan2(middle[2], middle[1]) * int(rng.integers(4, 12))
        )
    solid = (pattern < rng.uniform(0.1, 0.4)) | (np.maximum(abs(middle[1]), abs(middle[2])) > 0.94)
    faces = [f for f, keep in zip(shapes.sheet_faces(n, n), solid.ravel(), strict=True) if keep]
    shapes.surface(points.reshape(-1, 3), faces, _metal(rng))
    return {"yaw": (-1, 1), "fill": (0.75, 1.2)}


def _doily(rng: np.random.Generator) -> dict:
    """Lace: rings of loops around each other."""
    thread = shapes.plain(shapes.colour(rng, 0.4), 0.9)
    petals = int(rng.integers(8, 16))
    paths = []
    t = np.linspace(0, 2 * np.pi, 600)
    for ring in range(1, int(rng.integers(4, 8))):
        wave = 0.1 * np.cos(t * petals * (1 + ring // 2)) * (1 if ring % 2 else -1)
        for extra in (0, 0.5):
            radius = ring * 0.17 + wave * (1 - 2 * extra)
            paths.append(
                np.stack([radius * np.cos(t), 0.02 * np.sin(t * 5), radius * np.sin(t)], -1)
            )
    paths += [np.stack([np.zeros(3), p]) for p in paths[-1][:: 600 // petals]]
    shapes.tubes(paths, float(rng.uniform(0.005, 0.012)), thread)
    return {"yaw": (-0.9, 0.9), "pitch": (-0.1, 0.8)}


def _necklace(rng: np.random.Generator) -> dict:
    """Beads or pearls on a thread."""
    count = int(rng.integers(30, 80))
    bead = shapes.plain(
        shapes.colour(rng, 0.2), float(rng.uniform(0.05, 0.4)), float(rng.random() < 0.3)
    )
    t = np.linspace(0, 2 * np.pi, count, endpoint=False)
    drop = rng.uniform(0.6, 1.4)
    path = np.stack(
        [np.sin(t), 0.06 * np.sin(t * 5), -drop * np.cos(t) * (1 + 0.3 * np.cos(t))], -1
    )
    path += 0.06 * shapes.smooth_noise(path, 3, rng)
    shapes.tubes([path], 0.006, _metal(rng), closed=True)
    gap = np.linalg.norm(path[1] - path[0])
    for index, place in enumerate(path):
        shapes.ball(place, np.full(3, gap * (0.42 if index % 3 else 0.28)), bead)
    return {"yaw": (-0.8, 0.8)}


KINDS = {
    "fence": _fence,
    "net": _net,
    "chain": _chain,
    "lattice": _lattice,
    "basket": _basket,
    "perforated": _perforated,
    "doily": _doily,
    "necklace": _necklace,
}
