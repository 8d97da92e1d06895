"""What every render shares: an empty scene, light, lens, blur and the two passes."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix, Vector

from .picture import straight

TRANSPARENT_BOUNCES = 12  # leaves and hair in a row; each is a layer that alpha passes through


def empty() -> bpy.types.Scene:
    """Returns the scene of an empty file."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    return bpy.context.scene


def shown(scene: bpy.types.Scene) -> list[bpy.types.Object]:
    """Returns the objects that a render shows."""
    return [o for o in scene.objects if o.type in {"MESH", "CURVE", "CURVES"} and not o.hide_render]


def _points(scene: bpy.types.Scene) -> np.ndarray:
    """Returns up to 20,000 points (N, 3) of what is shown, in world coordinates."""
    graph = bpy.context.evaluated_depsgraph_get()
    clouds = []
    for item in shown(scene):
        if item.type == "CURVES":
            positions = item.data.attributes["position"].data
            flat = np.empty(len(positions) * 3, np.float32)
            positions.foreach_get("vector", flat)
        else:
            mesh = item.evaluated_get(graph).to_mesh()
            flat = np.empty(len(mesh.vertices) * 3, np.float32)
            mesh.vertices.foreach_get("co", flat)
            item.evaluated_get(graph).to_mesh_clear()
        points = flat.reshape(-1, 3)
        world = np.array(item.matrix_world)
        clouds.append(points @ world[:3, :3].T + world[:3, 3])
    points = np.concatenate(clouds)
    return points[:: max(1, len(points) // 20_000)]


def normalise(scene: bpy.types.Scene, height: float | None = None) -> float | None:
    """Moves and scales everything to a sphere of radius 1 around the origin.

    Returns where a height lies afterwards.
    """
    bpy.context.view_layer.update()
    points = _points(scene)
    low, high = points.min(0), points.max(0)
    centre, radius = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
    change = Matrix.Scale(1 / max(radius, 1e-9), 4) @ Matrix.Translation(Vector(-centre))
    for item in scene.objects:
        if item.parent is None:
            item.matrix_world = change @ item.matrix_world
    bpy.context.view_layer.update()
    return None if height is None else (change @ Vector((0, 0, height))).z


def light(scene: bpy.types.Scene, hdri: Path, rng: np.random.Generator) -> None:
    """Lights the scene by a panorama, turned, at a brightness that suits a white thing."""
    world = bpy.data.worlds.new("world")
    scene.world = world
    world.use_nodes = True
    nodes, links = world.node_tree.nodes, world.node_tree.links
    world.cycles.sampling_method, world.cycles.sample_map_resolution = "MANUAL", 256
    image = bpy.data.images.load(str(hdri))
    panorama = nodes.new("ShaderNodeTexEnvironment")
    panorama.image = image
    mapping = nodes.new("ShaderNodeMapping")
    place = nodes.new("ShaderNodeTexCoord")
    mapping.inputs["Rotation"].default_value = (0, 0, float(rng.uniform(0, 2 * math.pi)))
    links.new(place.outputs["Generated"], mapping.inputs["Vector"])
    links.new(mapping.outputs["Vector"], panorama.inputs["Vector"])
    background = nodes["Background"]
    links.new(panorama.outputs["Color"], background.inputs["Color"])
    background.inputs["Strength"].default_value = float(rng.uniform(0.55, 1.05)) / _mean(image)
    if rng.random() < 0.35:  # a lamp of our own: harder shadows, a clear side
        lamp = bpy.data.lights.new("lamp", "AREA")
        lamp.energy = float(rng.uniform(60, 260))
        lamp.size = float(rng.uniform(0.5, 3))
        warmth = float(rng.uniform(-1, 1))
        lamp.color = (1, 1 - 0.12 * abs(warmth), 1 - 0.3 * max(warmth, 0))
        holder = bpy.data.objects.new("lamp", lamp)
        scene.collection.objects.link(holder)
        yaw, pitch = rng.uniform(0, 2 * math.pi), rng.uniform(0.2, 1.2)
        holder.location = 4 * _direction(float(yaw), float(pitch))
        holder.rotation_euler = (-holder.location).to_track_quat("-Z", "Y").to_euler()


def grey(scene: bpy.types.Scene) -> None:
    """Lights the scene evenly, by a grey sky without a picture."""
    scene.world = bpy.data.worlds.new("world")
    scene.world.use_nodes = True


def _mean(image: bpy.types.Image) -> float:
    """Returns the mean luminance of a panorama, each row weighted by its solid angle."""
    width, height = image.size
    pixels = np.empty(width * height * 4, np.float32)
    image.pixels.foreach_get(pixels)
    rows = (pixels.reshape(height, width, 4)[..., :3] @ [0.2126, 0.7152, 0.0722]).mean(1)
    angle = np.cos((np.arange(height) + 0.5) / height * math.pi - math.pi / 2)
    return max(float((rows * angle).sum() / angle.sum()), 1e-3)


def _direction(yaw: float, pitch: float) -> Vector:
    flat = math.cos(pitch)
    return Vector((math.sin(yaw) * flat, -math.cos(yaw) * flat, math.sin(pitch)))


def camera(
    scene: bpy.types.Scene,
    rng: np.random.Generator,
    size: int,
    yaw: tuple[float, float] = (-math.pi, math.pi),
    pitch: tuple[float, float] = (-0.12, 0.6),
    fill: tuple[float, float] = (0.72, 1.06),
    focus: float | None = None,
) -> bpy.types.Object:
    """Adds a camera that sees the whole thing; sets the picture's sides to suit its shape.

    Args:
        scene: Scene with a normalised thing.
        rng: Random numbers; the same ones give the same view.
        size: Long side of the picture in pixels.
        yaw: Range of the turn around the thing, radians; 0 looks along +y.
        pitch: Range of the height of the eye, radians above the horizon.
        fill: Range of the share of the frame's side that the thing takes; over 1 it is cut.
        focus: Height below which the thing may leave the frame, or None: all of it is in.
    """
    data = bpy.data.cameras.new("camera")
    eye = bpy.data.objects.new("camera", data)
    scene.collection.objects.link(eye)
    scene.camera = eye
    distance = float(np.exp(rng.uniform(math.log(2.4), math.log(9))))
    way = _direction(float(rng.uniform(*yaw)), float(rng.uniform(*pitch)))
    points = _points(scene)
    points = points if focus is None else points[points[:, 2] > focus]
    middle = (points.min(0) + points.max(0)) / 2
    distance *= float(np.linalg.norm(np.ptp(points, 0))) / 2
    eye.location = Vector(middle) + distance * way
    roll = float(rng.normal(0, 0.05))
    turn = (-way).to_track_quat("-Z", "Y").to_matrix() @ Matrix.Rotation(roll, 3, "Z")
    eye.rotation_euler = turn.to_euler()
    bpy.context.view_layer.update()
    seen = np.array(eye.matrix_world.inverted())
    points = points @ seen[:3, :3].T + seen[:3, 3]
    flat = points[:, :2] / np.maximum(-points[:, 2:], 1e-3)
    low, high = flat.min(0), flat.max(0)
    share = float(rng.uniform(*fill))
    half = (high - low) / 2 / share
    half = np.maximum(half, half.max() * 0.5)  # no side is shorter than half the other
    centre = (low + high) / 2 + rng.uniform(-1, 1, 2) * np.maximum(half - (high - low) / 2, 0) * 0.6
    long = float(half.max())
    scene.render.resolution_x, scene.render.resolution_y = (
        max(16, round(float(s) / long * size / 16) * 16) for s in half
    )
    data.sensor_fit = "AUTO"  # the sensor lies along the long side
    data.sensor_width = 36
    data.lens = 36 / (2 * long)
    data.shift_x, data.shift_y = (float(c) / (2 * long) for c in centre)
    data.clip_start, data.clip_end = 0.01, 100
    return eye


def _distance(eye: bpy.types.Object) -> float:
    """Returns how far the camera is from the middle of the thing."""
    return max(eye.location.length, 1.2)


def defocus(eye: bpy.types.Object, rng: np.random.Generator, strength: float) -> None:
    """Opens the lens and focuses on some part of the thing."""
    data = eye.data
    data.dof.use_dof = True
    distance = _distance(eye)
    data.dof.focus_distance = distance + float(rng.uniform(-0.9, 0.6))
    # A circle of `strength` of the frame's side for what lies one radius from the focus.
    wide = strength * 36 / data.lens * distance * distance
    data.dof.aperture_fstop = data.lens / 1000 / max(wide, 1e-6)
    data.dof.aperture_blades = int(rng.choice([0, 5, 6, 7, 9]))


def motion(scene: bpy.types.Scene, rng: np.random.Generator, strength: float) -> None:
    """Moves and turns the camera while the shutter is open: by `strength` of the frame."""
    eye = scene.camera
    wide = strength * 36 / eye.data.lens * _distance(eye)
    angle = float(rng.uniform(0, 2 * math.pi))
    side = eye.matrix_world.to_3x3() @ Vector((math.cos(angle), math.sin(angle), 0))
    roll = float(rng.normal(0, strength))
    start, turn = eye.location.copy(), eye.rotation_euler.to_matrix()
    for frame, way in ((0, -1.0), (1, 0.0), (2, 1.0)):
        eye.location = start + side * wide * way
        eye.rotation_euler = (turn @ Matrix.Rotation(roll * way, 3, "Z")).to_euler()
        eye.keyframe_insert("location", frame=frame)
        eye.keyframe_insert("rotation_euler", frame=frame)
    scene.frame_set(1)
    scene.render.use_motion_blur = True
    scene.render.motion_blur_shutter = 1


def render(scene: bpy.types.Scene, samples: int, alpha_samples: int, seed: int) -> np.ndarray:
    """Returns the picture, straight RGBA (H, W, 4), uint8.

    Two passes: colours with few samples and a denoiser; then alpha alone, with many samples,
    where each opaque surface is a white emitter, so that nothing is spent on light.
    """
    settings, cycles = scene.render, scene.cycles
    settings.engine = "CYCLES"
    settings.threads_mode, settings.threads = "FIXED", 1
    settings.film_transparent, cycles.film_transparent_glass = True, True
    settings.use_persistent_data = True
    settings.image_settings.file_format = "OPEN_EXR"
    settings.image_settings.color_mode = "RGBA"
    settings.image_settings.color_depth = "32"
    scene.view_settings.view_transform = "Standard"
    cycles.device, cycles.seed = "CPU", seed % 2**31
    cycles.max_bounces, cycles.diffuse_bounces, cycles.glossy_bounces = 6, 1, 2
    cycles.transmission_bounces, cycles.transparent_max_bounces = 6, TRANSPARENT_BOUNCES
    cycles.caustics_reflective = cycles.caustics_refractive = False
    cycles.sample_clamp_indirect = 4
    cycles.use_adaptive_sampling, cycles.adaptive_threshold = True, 0.1
    cycles.adaptive_min_samples = 4
    cycles.samples, cycles.use_denoising = samples, True
    cycles.denoiser, cycles.denoising_input_passes = "OPENIMAGEDENOISE", "RGB_ALBEDO_NORMAL"
    cycles.denoising_prefilter, cycles.denoising_quality = "NONE", "BALANCED"
    with tempfile.TemporaryDirectory() as folder:
        colour = _pass(scene, Path(folder) / "colour.exr")
        cycles.use_denoising = False
        cycles.samples, cycles.use_adaptive_sampling = alpha_samples, False
        glass = [_emit(m) for m in _materials(scene)]  # each is to be turned
        scene.world.node_tree.nodes["Background"].inputs["Strength"].default_value = 0
        for item in scene.objects:
            item.hide_render = item.hide_render or item.type == "LIGHT"
        if not any(glass):
            cycles.max_bounces = 0
            cycles.use_adaptive_sampling = True
            cycles.adaptive_threshold, cycles.adaptive_min_samples = 0.005, 16
        else:  # through more walls; adaptive sampling looks at colours, and these are black
            cycles.max_bounces = cycles.transmission_bounces = 16
        alpha = _pass(scene, Path(folder) / "alpha.exr")[..., 3]
    return straight(colour[..., :3], alpha)


def _pass(scene: bpy.types.Scene, path: Path) -> np.ndarray:
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(str(path))
    image.colorspace_settings.name = "Non-Color"
    image.alpha_mode = "CHANNEL_PACKED"
    width, height = image.size
    values = np.empty(width * height * 4, np.float32)
    image.pixels.foreach_get(values)
    bpy.data.images.remove(image)
    return values.reshape(height, width, 4)[::-1]


def _materials(scene: bpy.types.Scene) -> Iterator[bpy.types.Material]:
    used = {
        slot.material.name: slot.material
        for o in shown(scene)
        for slot in o.material_slots
        if slot.material
    }
    yield from used.values()


def _emit(material: bpy.types.Material) -> bool:
    """Turns a material white and shining, its alpha kept; glass is left alone.

    Returns whether it is glass.
    """
    tree = material.node_tree
    if tree is None:
        return False
    output = next((n for n in tree.nodes if n.type == "OUTPUT_MATERIAL"), None)
    if output is None or not output.inputs["Surface"].links:
        return False
    kinds = {n.type for n in tree.nodes}
    shader = next((n for n in tree.nodes if n.type == "BSDF_PRINCIPLED"), None)
    if kinds & {"BSDF_GLASS", "BSDF_REFRACTION", "BSDF_TRANSPARENT", "MIX_SHADER"}:
        return True
    if shader and (s := shader.inputs["Transmission Weight"]) and (s.links or s.default_value > 0):
        return True
    white = tree.nodes.new("ShaderNodeEmission")
    clear = tree.nodes.new("ShaderNodeBsdfTransparent")
    mix = tree.nodes.new("ShaderNodeMixShader")
    if shader is None:
        mix.inputs[0].default_value = 1
    elif shader.inputs["Alpha"].links:
        tree.links.new(shader.inputs["Alpha"].links[0].from_socket, mix.inputs[0])
    else:
        mix.inputs[0].default_value = shader.inputs["Alpha"].default_value
    tree.links.new(clear.outputs[0], mix.inputs[1])
    tree.links.new(white.outputs[0], mix.inputs[2])
    tree.links.new(mix.outputs[0], output.inputs["Surface"])
    material.cycles.emission_sampling = "NONE"
    return False
