"""The stuff that procedural scenes are made of: materials, tubes, surfaces, strands."""

from __future__ import annotations

import math

import bpy
import numpy as np


def colour(rng: np.random.Generator, low: float = 0.02, high: float = 0.85) -> tuple[float, ...]:
    """Returns a random colour (r, g, b), linear."""
    value = float(np.exp(rng.uniform(math.log(low), math.log(high))))
    tint = rng.uniform(0.15, 1, 3) if rng.random() < 0.6 else np.full(3, 1.0)
    return tuple(float(v) for v in np.clip(value * tint / tint.max(), 0, 1))


def plain(
    base: tuple[float, ...], roughness: float = 0.5, metallic: float = 0.0, glass: float = 0.0
) -> bpy.types.Material:
    """Returns a material of one colour."""
    material, shader = _principled()
    shader.inputs["Base Color"].default_value = (*base, 1)
    shader.inputs["Roughness"].default_value = roughness
    shader.inputs["Metallic"].default_value = metallic
    shader.inputs["Transmission Weight"].default_value = glass
    return material


def patterned(
    first: tuple[float, ...], second: tuple[float, ...], rng: np.random.Generator
) -> bpy.types.Material:
    """Returns a material of two colours: stripes, checks or blotches."""
    material, shader = _principled()
    shader.inputs["Roughness"].default_value = float(rng.uniform(0.4, 0.95))
    nodes, links = material.node_tree.nodes, material.node_tree.links
    kind = str(rng.choice(["ShaderNodeTexWave", "ShaderNodeTexChecker", "ShaderNodeTexNoise"]))
    texture, ramp = nodes.new(kind), nodes.new("ShaderNodeMix")
    place = nodes.new("ShaderNodeTexCoord")
    ramp.data_type = "RGBA"
    texture.inputs["Scale"].default_value = float(rng.uniform(2, 14))
    links.new(place.outputs["Object"], texture.inputs["Vector"])
    links.new(texture.outputs[1 if kind.endswith("Checker") else 0], ramp.inputs[0])
    ramp.inputs[6].default_value, ramp.inputs[7].default_value = (*first, 1), (*second, 1)
    links.new(ramp.outputs[2], shader.inputs["Base Color"])
    return material


def hairy(roughness: float = 0.35) -> bpy.types.Material:
    """Returns the material of strands: hair of the colour that each strand brings."""
    material, shader = _principled()
    tree = material.node_tree
    tree.nodes.remove(shader)
    hair, tint = (
        tree.nodes.new("ShaderNodeBsdfHairPrincipled"),
        tree.nodes.new("ShaderNodeAttribute"),
    )
    hair.parametrization, hair.model = "COLOR", "CHIANG"
    hair.inputs["Roughness"].default_value = roughness
    tint.attribute_name = "tint"
    tree.links.new(tint.outputs["Color"], hair.inputs["Color"])
    output = next(n for n in tree.nodes if n.type == "OUTPUT_MATERIAL")
    tree.links.new(hair.outputs[0], output.inputs["Surface"])
    return material


def _principled() -> tuple[bpy.types.Material, bpy.types.Node]:
    material = bpy.data.materials.new("material")
    material.use_nodes = True
    return material, material.node_tree.nodes["Principled BSDF"]


def surface(
    vertices: np.ndarray, faces: list, material: bpy.types.Material, smooth: bool = True
) -> bpy.types.Object:
    """Adds a mesh of vertices (N, 3) and faces (lists of indices)."""
    data = bpy.data.meshes.new("surface")
    data.from_pydata(np.asarray(vertices, float).tolist(), [], faces)
    data.update()
    data.polygons.foreach_set("use_smooth", [smooth] * len(data.polygons))
    data.materials.append(material)
    return _linked(data)


def ball(
    centre: np.ndarray,
    radii: np.ndarray | float,
    material: bpy.types.Material,
    turn: np.ndarray | None = None,
) -> bpy.types.Object:
    """Adds an ellipsoid; `turn` is a 3x3 matrix."""
    u, v = np.meshgrid(np.linspace(0, 2 * np.pi, 33)[:-1], np.linspace(0, np.pi, 17))
    unit = np.stack([np.cos(u) * np.sin(v), np.sin(u) * np.sin(v), np.cos(v)], -1).reshape(-1, 3)
    points = unit * radii
    if turn is not None:
        points = points @ np.asarray(turn).T
    return surface(points + centre, sheet_faces(17, 32, round_=True), material)


def sheet_faces(rows: int, columns: int, round_: bool = False) -> list[tuple[int, ...]]:
    """Returns the quads of a grid of vertices; `round_` joins its last column to its first."""
    wide = columns if round_ else columns - 1
    return [
        (
            r * columns + c,
            r * columns + (c + 1) % columns,
            (r + 1) * columns + (c + 1) % columns,
            (r + 1) * columns + c,
        )
        for r in range(rows - 1)
        for c in range(wide)
    ]


def lathe(profile: np.ndarray, material: bpy.types.Material) -> bpy.types.Object:
    """Adds the surface that a profile (N, 2) of radius and height sweeps."""
    angle = np.linspace(0, 2 * np.pi, 65)[:-1]
    radius, height = profile[:, :1], profile[:, 1:]
    points = np.stack(
        [
            radius * np.cos(angle),
            radius * np.sin(angle),
            np.broadcast_to(height, (len(profile), 64)),
        ],
        -1,
    )
    return surface(points.reshape(-1, 3), sheet_faces(len(profile), 64, round_=True), material)


def tubes(
    paths: list[np.ndarray], radius: float, material: bpy.types.Material, closed: bool = False
) -> bpy.types.Object:
    """Adds round tubes along paths, each (K, 3) or (K, 4) with the radius' factor last."""
    data = bpy.data.curves.new("tubes", "CURVE")
    data.dimensions, data.bevel_depth, data.bevel_resolution = "3D", radius, 2
    data.use_fill_caps = True
    for path in paths:
        spline = data.splines.new("POLY")
        spline.points.add(len(path) - 1)
        flat = np.concatenate([path[:, :3], np.ones((len(path), 1))], 1)
        spline.points.foreach_set("co", flat.astype(np.float32).ravel())
        if path.shape[1] == 4:
            spline.points.foreach_set("radius", path[:, 3].astype(np.float32))
        spline.use_cyclic_u, spline.use_smooth = closed, True
    data.materials.append(material)
    return _linked(data)


def strands(
    points: np.ndarray,
    radius: float,
    tints: np.ndarray,
    material: bpy.types.Material,
    tip: float = 0.15,
) -> bpy.types.Object:
    """Adds hair: points (N, K, 3), colours (N, 3); the radius falls to `tip` of it at the end."""
    count, knots = points.shape[:2]
    data = bpy.data.hair_curves.new("strands")
    data.add_curves([knots] * count)
    data.attributes["position"].data.foreach_set("vector", points.astype(np.float32).ravel())
    width = data.attributes.get("radius") or data.attributes.new("radius", "FLOAT", "POINT")
    fall = np.tile(radius * np.linspace(1, tip, knots) ** 0.8, count)
    width.data.foreach_set("value", fall.astype(np.float32))
    tint = data.attributes.new("tint", "FLOAT_COLOR", "CURVE")
    rgba = np.concatenate([np.clip(tints, 0.002, 0.98), np.ones((count, 1))], 1)
    tint.data.foreach_set("color", rgba.astype(np.float32).ravel())
    data.materials.append(material)
    return _linked(data)


def _linked(data: bpy.types.ID) -> bpy.types.Object:
    item = bpy.data.objects.new(data.name, data)
    bpy.context.scene.collection.objects.link(item)
    return item


def roots(
    vertices: np.ndarray, faces: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns random points on triangles: places (N, 3), normals (N, 3), triangles (N,)."""
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(cross, axis=1)
    pick = rng.choice(len(faces), count, p=area / area.sum())
    weight = rng.dirichlet(np.ones(3), count)
    normal = cross[pick] / np.maximum(area[pick, None], 1e-12)
    return (corners[pick] * weight[..., None]).sum(1), normal, pick


def unit(vectors: np.ndarray) -> np.ndarray:
    """Returns vectors of length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def smooth_noise(points: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Returns a smooth random vector (..., 3) for each point: a few waves of random direction."""
    total = np.zeros_like(points)
    for _ in range(6):
        wave, phase = rng.normal(0, scale, 3), rng.uniform(0, 2 * np.pi)
        total += np.sin(points @ wave + phase)[..., None] * rng.normal(0, 1, 3)
    return total / 2.5


def walk(rng: np.random.Generator, knots: int, step: float, bend: float) -> np.ndarray:
    """Returns a path (K, 3) that wanders: each step turns a little further."""
    turn = np.cumsum(rng.normal(0, bend, (knots, 3)), 0) * 0.5
    way = unit(rng.normal(0, 1, 3) + np.cumsum(turn, 0) * 0.15)
    return np.cumsum(way * step, 0)
