"""People with hair that grows strand by strand, on the CC0 body of MakeHuman."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from mathutils.bvhtree import BVHTree

from . import shapes
from .grow import Style, grow, melanin

BODY = Path("mpfb2/src/mpfb/data")
STYLES = ("short", "bob", "long", "curly", "afro", "braids", "ponytail", "buzz", "wind", "beard")


def build(rng: np.random.Generator, packs: Path, name: str) -> dict:
    """Builds a person with one of `STYLES`. Returns how a camera looks at it."""
    vertices, groups = _body(packs / BODY)
    vertices = _shaped(vertices, packs / BODY / "targets", rng)
    skin_faces = groups["body"]
    used = np.unique(skin_faces)
    top, low = vertices[used, 2].max(), vertices[used, 2].min()
    crown = vertices[used][vertices[used, 2] > top - 0.1 * (top - low)]
    eyes = np.concatenate([np.unique(groups["helper-l-eye"]), np.unique(groups["helper-r-eye"])])
    eye_height = vertices[eyes, 2].mean()
    head = (top - eye_height) * 2.0
    centre = np.array([0, crown[:, 1].mean(), top - head * 0.42])
    tone = float(rng.uniform(0, 1))
    skin = np.array([0.09, 0.045, 0.028]) * (1 - tone) + np.array([0.72, 0.44, 0.33]) * tone
    _mesh(vertices, skin_faces, shapes.plain(tuple(skin), float(rng.uniform(0.35, 0.6))))
    _eyes(vertices, groups, rng)
    _clothes(vertices, groups["helper-tights"], top - head * rng.uniform(1.12, 1.3), rng)
    tree = BVHTree.FromPolygons(vertices.tolist(), skin_faces.tolist())
    strands = shapes.hairy(float(rng.uniform(0.2, 0.45)))
    tint = melanin(rng, 1, 0)[0]
    _hair(name, vertices, skin_faces, (centre, head, top), tree, tint, strands, rng)
    _brows(vertices, skin_faces, groups, tint * 0.7, strands, rng)
    if name == "beard" or (name in {"short", "buzz"} and rng.random() < 0.3):
        _beard(vertices, skin_faces, (centre, head, top), tree, tint, strands, rng)
    shown = float(rng.choice([1.35, 1.7, 2.3, 3.2], p=[0.35, 0.3, 0.2, 0.15]))
    return {
        "focus": float(top - head * shown),
        "yaw": (-1.3, 1.3) if rng.random() < 0.8 else (1.3, 5),
        "pitch": (-0.15, 0.3),
        "fill": (0.8, 1.1),
    }


def _body(folder: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    vertices, groups, group = [], {}, ""
    for line in (folder / "3dobjs" / "base.obj").read_text().splitlines():
        word, *rest = line.split() or [""]
        if word == "v":
            vertices.append([float(x) for x in rest[:3]])
        elif word == "g":
            group = rest[0]
        elif word == "f":
            corners = [int(x.split("/")[0]) - 1 for x in rest]
            groups.setdefault(group, []).append([*corners, corners[0]][:4])
    return np.array(vertices), {name: np.array(faces) for name, faces in groups.items()}


def _shaped(vertices: np.ndarray, folder: Path, rng: np.random.Generator) -> np.ndarray:
    """Returns the body (z up) in a random shape: sex, age, origin, weight and a face of its own."""
    sex, age = (
        str(rng.choice(["female", "male"])),
        str(rng.choice(["young", "young", "old", "child"])),
    )
    muscle = str(rng.choice(["averagemuscle", "minmuscle", "maxmuscle"], p=[0.6, 0.2, 0.2]))
    weight = str(rng.choice(["averageweight", "minweight", "maxweight"], p=[0.6, 0.2, 0.2]))
    part = rng.dirichlet([0.5] * 3)
    changes = [(f"macrodetails/universal-{sex}-{age}-{muscle}-{weight}", 1.0)]
    changes += [
        (f"macrodetails/{origin}-{sex}-{age}", float(share))
        for origin, share in zip(("african", "asian", "caucasian"), part, strict=True)
    ]
    for room, count in (
        ("head", 3),
        ("nose", 3),
        ("mouth", 2),
        ("chin", 2),
        ("cheek", 1),
        ("eyes", 2),
    ):
        names = sorted(p.name[:-10] for p in (folder / room).glob("*.target.gz"))
        names = [n for n in names if not n.startswith(("head-age", "head-trans"))]
        picks = rng.choice(len(names), min(count, len(names)), replace=False)
        changes += [(f"{room}/{names[i]}", float(rng.uniform(0, 0.45))) for i in picks]
    moved = vertices.copy()
    for name, share in changes:
        path = folder / f"{name}.target.gz"
        if not path.exists():
            continue
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        values = " ".join(line for line in lines if not line.startswith("#")).split()
        table = np.array(values, np.float64).reshape(-1, 4)
        moved[table[:, 0].astype(int)] += share * table[:, 1:]
    return moved[:, [0, 2, 1]] * np.array([1, -1, 1])


def _mesh(vertices: np.ndarray, faces: np.ndarray, material: object) -> None:
    used, index = np.unique(faces, return_inverse=True)
    rows = index.reshape(faces.shape).tolist()
    shapes.surface(vertices[used], [list(dict.fromkeys(r)) for r in rows], material)


def _eyes(vertices: np.ndarray, groups: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    white = shapes.plain((0.8, 0.78, 0.76), 0.15)
    iris = shapes.plain(
        tuple(rng.choice([[0.06, 0.03, 0.01], [0.1, 0.2, 0.35], [0.08, 0.14, 0.06]])), 0.05
    )
    black = shapes.plain((0.004, 0.004, 0.004), 0.05)
    dark = shapes.plain((0.01, 0.008, 0.008), 0.6)
    for side in "lr":
        faces = groups[f"helper-{side}-eye"]
        _mesh(vertices, faces, white)
        own = vertices[np.unique(faces)]
        low, high = own.min(0), own.max(0)
        radius = (high[2] - low[2]) / 2
        front = np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
        shapes.ball(
            front + np.array([0, radius * 0.16, 0]), radius * np.array([0.5, 0.2, 0.5]), iris
        )
        shapes.ball(
            front + np.array([0, radius * 0.11, 0]), radius * np.array([0.24, 0.18, 0.24]), black
        )
        for lash in (1, 2):
            _mesh(vertices, groups[f"helper-{side}-eyelashes-{lash}"], dark)


def _clothes(
    vertices: np.ndarray, faces: np.ndarray, neck: float, rng: np.random.Generator
) -> None:
    middle = vertices[faces].mean(1)
    chosen = faces[middle[:, 2] < neck + 0.25 * np.abs(middle[:, 0])]
    corners = vertices[chosen]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    out = np.zeros_like(vertices)
    for corner in range(4):
        np.add.at(out, chosen[:, corner], normal)
    puffed = vertices + shapes.unit(out) * rng.uniform(0.03, 0.12)
    first, second = shapes.colour(rng), shapes.colour(rng)
    material = (
        shapes.plain(first, 0.9) if rng.random() < 0.5 else shapes.patterned(first, second, rng)
    )
    _mesh(puffed, chosen, material)


def _skin(
    vertices: np.ndarray, faces: np.ndarray, keep: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    quads = faces[keep]
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    place, normal, _ = shapes.roots(vertices, triangles, count, rng)
    return place, normal


def _scalp(vertices: np.ndarray, faces: np.ndarray, at: tuple, back: float = 0.0) -> np.ndarray:
    """Returns which faces bear hair; `back` moves the hairline up."""
    centre, head, top = at
    middle = vertices[faces].mean(1)
    deep = (middle[:, 1] - centre[1]) / (head * 0.5)
    high = (middle[:, 2] - (top - head)) / head
    line = np.interp(
        deep, [-0.75, -0.45, -0.1, 0.15, 0.5, 1.0], [0.93, 0.84, 0.62, 0.5, 0.34, 0.22]
    )
    return (high > line + back) & (np.abs(middle[:, 0]) < head * 0.4)


def _hair(
    name: str,
    vertices: np.ndarray,
    faces: np.ndarray,
    at: tuple,
    tree: BVHTree,
    tint: np.ndarray,
    material: object,
    rng: np.random.Generator,
) -> None:
    centre, head, _ = at
    count = int(rng.uniform(7000, 13000))
    place, normal = _skin(vertices, faces, _scalp(vertices, faces, at), count, rng)
    away = place - centre
    part = float(rng.uniform(-0.15, 0.15)) * head
    side = np.sign(away[:, :1] - part) * np.array([[1, 0, 0]])
    down = np.array([0, 0.25, -0.5])
    style = {
        "short": Style(rng.uniform(0.12, 0.35) * head, 8, 0.6, 0.1, 0.25, clump=0.4),
        "bob": Style(rng.uniform(0.6, 1.1) * head, 14, 0.35, 0.5, 0.08, clump=0.35),
        "long": Style(
            rng.uniform(1.3, 2.6) * head,
            22,
            0.3,
            0.5,
            0.08,
            rng.choice([0, 0.02, 0.04]) * head,
            4,
            0.45,
        ),
        "curly": Style(
            rng.uniform(0.6, 1.5) * head,
            40,
            0.5,
            0.3,
            0.12,
            rng.uniform(0.03, 0.08) * head,
            rng.uniform(4, 8),
            0.6,
            0.06,
        ),
        "afro": Style(
            rng.uniform(0.3, 0.65) * head,
            24,
            1.2,
            0.0,
            0.3,
            rng.uniform(0.02, 0.05) * head,
            rng.uniform(3, 6),
            0.25,
            0.08,
        ),
        "braids": Style(0.3 * head, 8, 0.12, 0.15, 0.06, clump=0.2, flyaways=0.05),
        "ponytail": Style(0.4 * head, 8, 0.1, 0.05, 0.05, clump=0.2, flyaways=0.05),
        "buzz": Style(rng.uniform(0.03, 0.09) * head, 4, 1, 0, 0.2, clump=0),
        "wind": Style(
            rng.uniform(0.8, 1.8) * head, 20, 0.4, 0.12, 0.15, 0.015 * head, 3, 0.5, 0.12
        ),
        "beard": Style(rng.uniform(0.06, 0.2) * head, 6, 0.7, 0.1, 0.25, clump=0.3),
    }[name]
    comb = side * rng.uniform(0.3, 0.8) + down
    if name in {"braids", "ponytail"}:
        tie = centre + head * np.array(
            [0, 0.52, -0.1 if name == "braids" else rng.uniform(-0.1, 0.3)]
        )
        comb = shapes.unit(tie - place) * 1.6
    elif name == "wind":
        wind = np.array([rng.choice([-1, 1]), rng.uniform(-0.3, 0.6), rng.uniform(-0.1, 0.4)])
        comb = comb * 0.3 + wind
    elif name == "afro":
        comb = shapes.unit(away)
    elif name == "short" and rng.random() < 0.5:
        comb = np.array([rng.uniform(-1, 1), rng.uniform(-1, 1), 0.3])
    collide = tree if style.length > head * 0.25 else None
    points = grow(place, normal, np.broadcast_to(comb, place.shape), style, rng, collide)
    thick = head * float(rng.uniform(0.0011, 0.0019))
    tints = tint * np.exp(rng.normal(0, 0.15, (len(points), 1)))
    shapes.strands(points, thick, tints, material)
    if name == "ponytail":
        _tail(tie, head, tint, material, rng)
    elif name == "braids":
        for x in (-0.42, 0.42) if rng.random() < 0.6 else (0.0,):
            _braid(
                centre + head * np.array([x, 0.42 if x == 0 else 0.2, -0.3]),
                head,
                tint,
                material,
                rng,
            )


def _tail(
    tie: np.ndarray, head: float, tint: np.ndarray, material: object, rng: np.random.Generator
) -> None:
    count = 3500
    root = tie + rng.normal(0, 0.03 * head, (count, 3))
    style = Style(
        rng.uniform(0.7, 1.8) * head, 18, 0, 0.45, 0.12, rng.choice([0, 0.03]) * head, 3, 0.4, 0.05
    )
    comb = np.broadcast_to(
        np.array([rng.uniform(-0.4, 0.4), 1.0, rng.uniform(-0.2, 0.5)]), root.shape
    )
    points = grow(root, np.zeros_like(root), comb, style, rng)
    shapes.strands(points, head * 0.0014, tint * np.exp(rng.normal(0, 0.15, (count, 1))), material)


def _braid(
    start: np.ndarray, head: float, tint: np.ndarray, material: object, rng: np.random.Generator
) -> None:
    """Three locks around each other, with hairs that stick out, and a loose end."""
    length, knots = head * rng.uniform(0.9, 1.6), 90
    t = np.linspace(0, 1, knots)
    sway = np.stack([np.sin(t * 2) * 0.05 * head, -t * 0.15 * head, -t * length], -1)
    for lock in range(3):
        angle = 2 * np.pi * (t * length / head * 2.2 + lock / 3)
        middle = (
            start
            + sway
            + np.stack([np.sin(angle) * 0.075, np.sin(2 * angle) * 0.04, 0 * t], -1) * head
        )
        count = 500
        radius = (
            0.055
            * head
            * np.sqrt(rng.random((count, 1)))
            * np.interp(t, [0, 0.85, 0.9, 1], [1, 0.8, 0.35, 1.3])
        )
        around = rng.uniform(0, 2 * np.pi, (count, 1)) + t * 3
        offset = np.stack(
            [np.cos(around) * radius, np.sin(around) * radius, np.zeros_like(radius)], -1
        )
        loose = (
            (rng.random((count, 1, 1)) < 0.08)
            * shapes.smooth_noise(middle + offset, 6 / head, rng)
            * 0.05
            * head
        )
        tints = tint * np.exp(rng.normal(0, 0.15, (count, 1)))
        shapes.strands(middle + offset + loose, head * 0.0016, tints, material, 0.6)


def _brows(
    vertices: np.ndarray,
    faces: np.ndarray,
    groups: dict[str, np.ndarray],
    tint: np.ndarray,
    material: object,
    rng: np.random.Generator,
) -> None:
    middle = vertices[faces].mean(1)
    for side in "lr":
        eye = vertices[np.unique(groups[f"helper-{side}-eye"])]
        centre, radius = (eye.min(0) + eye.max(0)) / 2, np.ptp(eye[:, 2]) / 2
        high = (middle[:, 2] - centre[2]) / radius
        across = (middle[:, 0] - centre[0]) / radius
        arch = 1.75 - 0.12 * across**2
        keep = (
            (np.abs(high - arch) < 0.28)
            & (np.abs(across) < 1.7)
            & (middle[:, 1] < centre[1] + radius)
        )
        if not keep.any():
            continue
        place, normal = _skin(vertices, faces, keep, 260, rng)
        style = Style(radius * 0.5, 5, 0.35, 0, 0.15, clump=0, flyaways=0)
        sideways = 1 if vertices[np.unique(groups[f"helper-{side}-eye"]), 0].mean() > 0 else -1
        comb = np.broadcast_to(np.array([sideways, 0, 0.25]), place.shape)
        shapes.strands(
            grow(place, normal, comb, style, rng), radius * 0.02, np.tile(tint, (260, 1)), material
        )


def _beard(
    vertices: np.ndarray,
    faces: np.ndarray,
    at: tuple,
    tree: BVHTree,
    tint: np.ndarray,
    material: object,
    rng: np.random.Generator,
) -> None:
    centre, head, top = at
    middle = vertices[faces].mean(1)
    high = (middle[:, 2] - (top - head)) / head
    keep = (high > -0.02) & (high < 0.2) & (middle[:, 1] < centre[1] - 0.02 * head)
    place, normal = _skin(vertices, faces, keep, 3500, rng)
    style = Style(
        head * rng.uniform(0.04, 0.35),
        9,
        0.6,
        0.4,
        0.25,
        rng.choice([0, 0.01]) * head,
        2,
        0.3,
        0.05,
    )
    comb = np.broadcast_to(np.array([0, -0.3, -0.6]), place.shape)
    points = grow(place, normal, comb, style, rng, tree)
    shapes.strands(
        points, head * 0.0016, tint * np.exp(rng.normal(0, 0.2, (len(points), 1))), material
    )
