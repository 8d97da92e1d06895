"""Models from files: import, mended materials."""

from __future__ import annotations

import colorsys
from pathlib import Path

import bpy
import numpy as np

METAL = ("metal", "chrome", "steel", "alumin", "brass", "gold", "silver", "iron", "inox", "copper")


class Broken(Exception):
    """A model that cannot be shown as its author made it."""


def load(path: Path) -> None:
    """Imports a model into the scene.

    Raises:
        Broken: The file holds no surface.
    """
    if path.suffix == ".obj":
        bpy.ops.wm.obj_import(filepath=str(path))
    else:
        bpy.ops.import_scene.gltf(filepath=str(path))
    if not any(o.type == "MESH" and len(o.data.polygons) for o in bpy.context.scene.objects):
        raise Broken(f"{path}: no surface in it")


def mend(rng: np.random.Generator) -> None:
    """Mends what imports get wrong, and varies plain materials a little.

    A texture that is missing would shine magenta: the material's own colour takes its place. A
    texture's alpha cuts leaves out of planes, as the models' own viewer does it.
    """
    tint = rng.random() < 0.35
    for material in bpy.data.materials:
        tree = material.node_tree
        shader = (
            next((n for n in tree.nodes if n.type == "BSDF_PRINCIPLED"), None) if tree else None
        )
        if shader is None:
            continue
        for node in [n for n in tree.nodes if n.type == "TEX_IMAGE"]:
            if node.image is None or not _there(node.image):
                tree.nodes.remove(node)
        colour, alpha = shader.inputs["Base Color"], shader.inputs["Alpha"]
        if colour.links:
            _cut_out(tree, colour, alpha)
        else:
            name = material.name.lower()
            if any(word in name for word in METAL):
                shader.inputs["Metallic"].default_value = 1.0
                shader.inputs["Roughness"].default_value = float(rng.uniform(0.12, 0.4))
            if tint:
                colour.default_value = _tinted(tuple(colour.default_value), rng)


def _there(image: bpy.types.Image) -> bool:
    return image.packed_file is not None or Path(bpy.path.abspath(image.filepath)).is_file()


def _cut_out(
    tree: bpy.types.NodeTree, colour: bpy.types.NodeSocket, alpha: bpy.types.NodeSocket
) -> None:
    node = colour.links[0].from_node
    if node.type != "TEX_IMAGE" or alpha.links or node.image.channels != 4:
        return
    pixels = np.empty(len(node.image.pixels), np.float32)
    node.image.pixels.foreach_get(pixels)
    if pixels[3::4].min() < 0.5:
        tree.links.new(node.outputs["Alpha"], alpha)


def _tinted(colour: tuple[float, ...], rng: np.random.Generator) -> tuple[float, ...]:
    hue, saturation, value = colorsys.rgb_to_hsv(*colour[:3])
    hue = (hue + float(rng.uniform(-0.5, 0.5))) % 1
    saturation = float(np.clip(saturation + rng.uniform(-0.1, 0.25), 0, 0.9))
    value = float(np.clip(value * rng.uniform(0.5, 1.3), 0.01, 0.9))
    return (*colorsys.hsv_to_rgb(hue, saturation, value), colour[3])
