"""Glass and bubbles: what is seen through."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np

from . import shapes


def build(rng: np.random.Generator, packs: Path, name: str) -> dict:
    """Builds one of `KINDS`. Returns how a camera looks at it."""
    return KINDS[name](rng) or {"pitch": (-0.1, 0.5), "fill": (0.7, 1.0)}


def _clear(rng: np.random.Generator) -> bpy.types.Material:
    tint = 1 - rng.uniform(0, 0.12, 3)
    if rng.random() < 0.4:
        tint = rng.uniform(0.15, 1, 3)
    return shapes.plain(tuple(float(t) for t in tint), float(rng.choice([0, 0, 0, 0.15])), 0, 1)


def _walled(
    outer: list[tuple[float, float]],
    wall: float,
    rng: np.random.Generator,
    glass: bpy.types.Material,
) -> None:
    """Adds a vessel: an outside from the foot up, and an inside a wall's width off."""
    knots = np.array(outer)
    at = np.linspace(0, len(knots) - 1, 80)
    outside = np.stack([np.interp(at, range(len(knots)), knots[:, i]) for i in (0, 1)], -1)
    for _ in range(12):
        outside[1:-1] = (outside[:-2] + 2 * outside[1:-1] + outside[2:]) / 4
    bowl = outside[
        outside[:, 1]
        > rng.uniform(0.02, 0.06) + outside[outside[:, 0].argmin() if wall < 0 else 0, 1]
    ]
    inside = bowl[::-1] - np.array([wall, 0])
    inside[:, 0] = np.maximum(inside[:, 0], 0.001)
    foot = np.array([[0.001, outside[0, 1]]])
    floor = np.array([[0.001, inside[-1, 1]]])
    shapes.lathe(np.concatenate([foot, outside, inside, floor]), glass)
    if rng.random() < 0.4:  # a drink
        full = inside[::-1][: int(len(inside) * rng.uniform(0.3, 0.8))] - np.array([0.004, -0.004])
        full[:, 0] = np.maximum(full[:, 0], 0.001)
        drink = shapes.plain(shapes.colour(rng, 0.3), 0.02, 0, float(rng.choice([0.6, 1])))
        shapes.lathe(np.concatenate([[[0.001, full[0, 1]]], full, [[0.001, full[-1, 1]]]]), drink)


def _wineglass(rng: np.random.Generator) -> None:
    stem, bowl = rng.uniform(0.5, 1.1), rng.uniform(0.35, 0.6)
    glass = _clear(rng)
    foot = [
        (0.001, 0),
        (0.4, 0),
        (0.38, 0.02),
        (0.1, 0.05),
        (0.03, 0.1),
        (0.03, stem),
        (0.001, stem),
    ]
    shapes.lathe(np.array(foot), glass)
    cup = [
        (0.03, stem),
        (bowl * 0.7, stem + 0.15),
        (bowl, stem + 0.45),
        (bowl * 0.97, stem + 0.7),
        (bowl * rng.uniform(0.7, 1.1), stem + 1.1),
    ]
    _walled(cup, 0.02, rng, glass)


def _tumbler(rng: np.random.Generator) -> None:
    wide = rng.uniform(0.4, 0.6)
    _walled(
        [
            (wide * rng.uniform(0.7, 1), 0),
            (wide, 0.3),
            (wide, 1.0),
            (wide * rng.uniform(0.95, 1.15), 1.2),
        ],
        0.04,
        rng,
        _clear(rng),
    )


def _bottle(rng: np.random.Generator) -> None:
    wide, neck = rng.uniform(0.3, 0.45), rng.uniform(0.08, 0.14)
    high = rng.uniform(0.9, 1.3)
    _walled(
        [
            (wide * 0.96, 0),
            (wide, 0.1),
            (wide, high * 0.5),
            (wide, high),
            (neck, high + 0.35),
            (neck, high + 0.6),
            (neck * 1.15, high + 0.8),
        ],
        0.03,
        rng,
        _clear(rng),
    )


def _vase(rng: np.random.Generator) -> None:
    widths = rng.uniform(0.2, 0.7, 6)
    _walled(
        [(w, z) for w, z in zip(widths, np.linspace(0, 1.5, 6), strict=True)],
        0.035,
        rng,
        _clear(rng),
    )


def _marbles(rng: np.random.Generator) -> None:
    places: list[tuple[np.ndarray, float]] = []
    for _ in range(200):
        size, place = float(rng.uniform(0.12, 0.4)), rng.uniform(-1, 1, 3)
        if len(places) < 9 and all(np.linalg.norm(place - p) > size + s for p, s in places):
            places.append((place, size))
            shapes.ball(place, np.full(3, size), _clear(rng))


def _bubbles(rng: np.random.Generator) -> None:
    """Soap bubbles: clear in the middle, mirrors towards the rim."""
    for _ in range(int(rng.integers(3, 14))):
        material = bpy.data.materials.new("bubble")
        material.use_nodes = True
        tree = material.node_tree
        tree.nodes.clear()
        output, mix = (
            tree.nodes.new("ShaderNodeOutputMaterial"),
            tree.nodes.new("ShaderNodeMixShader"),
        )
        clear, shine = (
            tree.nodes.new("ShaderNodeBsdfTransparent"),
            tree.nodes.new("ShaderNodeBsdfAnisotropic"),
        )
        facing, curve = tree.nodes.new("ShaderNodeLayerWeight"), tree.nodes.new("ShaderNodeMath")
        curve.operation = "MULTIPLY"
        curve.inputs[1].default_value = float(rng.uniform(0.4, 0.9))
        facing.inputs["Blend"].default_value = float(rng.uniform(0.2, 0.5))
        shine.inputs["Roughness"].default_value = 0.02
        shine.inputs["Color"].default_value = (*(rng.uniform(0.6, 1, 3)), 1)
        tree.links.new(facing.outputs["Facing"], curve.inputs[0])
        tree.links.new(curve.outputs[0], mix.inputs[0])
        tree.links.new(clear.outputs[0], mix.inputs[1])
        tree.links.new(shine.outputs[0], mix.inputs[2])
        tree.links.new(mix.outputs[0], output.inputs["Surface"])
        size = float(np.exp(rng.uniform(np.log(0.1), np.log(0.5))))
        shapes.ball(rng.uniform(-1, 1, 3), np.full(3, size), material)


KINDS = {
    "wineglass": _wineglass,
    "bottle": _bottle,
    "vase": _vase,
    "bubbles": _bubbles,
    "tumbler": _tumbler,
    "marbles": _marbles,
}
