"""Procedural samples for matting: no files, any size, the same for the same seed.

A network can learn to tell foregrounds (solid, lit things, glossy, mostly colourful, with a fine
texture) from backgrounds (duller surfaces with flat shapes on them, some just as colourful).
Neither colour nor outline alone tells the two apart.

    kmatting synthetic --output DIR --count 100

writes them as a folder of pairs.
"""

import colorsys
import math
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Size = tuple[int, int]
Option = TypeVar("Option")

_SUPERSAMPLING = 4  # shapes are drawn this much larger, so that their edges come out smooth


def sample(seed: int, index: int, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Draws one sample.

    Args:
        seed: seed of the set, 0 or more.
        index: number of the sample in the set, 0 or more.
        size: height and width in pixels.

    Returns:
        image: uint8 array (H, W, 3).
        alpha: uint8 array (H, W), 255 is foreground.
    """
    foreground, background, alpha = layers(seed, index, size)
    coverage = alpha[..., None] / np.float32(255)
    image = background + coverage * (foreground - background)
    return np.ascontiguousarray(_to_bytes(image)), alpha


def layers(seed: int, index: int, size: Size) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws the layers of one sample; its image is alpha*foreground + (1-alpha)*background.

    Args:
        seed: seed of the set, 0 or more.
        index: number of the sample in the set, 0 or more.
        size: height and width in pixels.

    Returns:
        foreground: float32 array (H, W, 3) in [0, 1].
        background: float32 array (H, W, 3) in [0, 1].
        alpha: uint8 array (H, W), 255 is foreground.
    """
    # Colours are made as (3, H, W), on which numpy is several times faster than on (H, W, 3).
    random = np.random.default_rng([seed, index])
    background = _background(random, size)
    foreground = np.zeros((3, *size), np.float32)
    alpha = np.zeros(size, np.float32)
    count = _pick(random, 1, 1, 1, 2, 2, 3)
    for _ in range(count):
        radius = min(size) * random.uniform(0.2, 0.4) / count**0.35
        window, colours, cover = _thing(random, size, radius)
        under = alpha[window.slices]
        together = cover + (1 - cover) * under
        # The new thing is in front: its share of the colour where both are half transparent.
        share = cover / np.maximum(together, 1e-6)
        behind = foreground[:, *window.slices]
        behind += share * (colours - behind)
        alpha[window.slices] = together
    return np.moveaxis(foreground, 0, -1), np.moveaxis(background, 0, -1), _to_bytes(alpha)


# Outlines: float arrays (N, 2) of x and y in pixels


def _outline(random: np.random.Generator, radius: float) -> np.ndarray:
    """Draws a closed outline of about the given radius around (0, 0)."""
    angle = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    match _pick(random, "blob", "ellipse", "polygon", "star", "flower", "stroke"):
        case "blob":
            waves = np.arange(2, 6)
            swing = random.uniform(0, 0.45, 4) / waves
            phase = random.uniform(0, 2 * math.pi, 4)
            distance = 1 + (swing * np.cos(np.outer(angle, waves) + phase)).sum(axis=1)
        case "ellipse":
            flat = random.uniform(0.45, 1)
            distance = flat / np.hypot(flat * np.cos(angle), np.sin(angle))
        case "polygon":
            corners = random.integers(3, 8)
            jitter = random.uniform(-0.25, 0.25, corners)
            angle = (np.arange(corners) + jitter) * (2 * math.pi / corners)
            distance = random.uniform(0.8, 1.2, corners)
        case "star":
            corners = 2 * random.integers(4, 9)
            angle = np.arange(corners) * (2 * math.pi / corners)
            distance = np.where(np.arange(corners) % 2, random.uniform(0.4, 0.7), 1.15)
        case "flower":
            distance = 1 + random.uniform(0.1, 0.3) * np.cos(random.integers(3, 9) * angle)
        case _:
            return radius * _band(random)
    angle = angle + random.uniform(0, 2 * math.pi)
    return radius * distance[:, None] * _directions(angle)


def _band(random: np.random.Generator) -> np.ndarray:
    """Draws the outline of a bent band, as a brush makes it, of length 2.6 around (0, 0)."""
    along = np.linspace(-1, 1, 40)
    step = along[1] - along[0]
    bend = random.uniform(-1.2, 1.2) + random.uniform(-1, 1) * along
    heading = random.uniform(0, 2 * math.pi) + np.cumsum(bend) * step
    spine = np.cumsum(1.3 * step * _directions(heading), axis=0)
    spine -= spine.mean(axis=0)
    swell = np.sqrt(1 - 0.95 * along**2) * (1 + random.uniform(-0.5, 0.5) * along)
    side = _directions(heading + math.pi / 2) * (random.uniform(0.2, 0.4) * swell)[:, None]
    return np.concatenate([spine + side, (spine - side)[::-1]])


def _strands(random: np.random.Generator, outline: np.ndarray, length: float) -> np.ndarray:
    """Draws hairs that grow out of an outline, in its order: float array (N, points, 2)."""
    count = random.integers(100, 320)
    at, share = np.divmod(np.sort(random.uniform(0, len(outline), count)), 1)
    at, share = at.astype(int), share[:, None]
    root = outline[at] * (1 - share) + np.roll(outline, -1, axis=0)[at] * share
    outward = root - outline.mean(axis=0)
    heading = np.arctan2(outward[:, 1], outward[:, 0]) + random.normal(0, 0.35, count)
    curl = random.normal(0, 1) + random.normal(0, 0.6, count)
    step = length * random.uniform(0.3, 1, (count, 1)) / 6
    points = [root - 2 * step * _directions(heading)]
    for _ in range(8):
        points.append(points[-1] + step * _directions(heading))
        heading = heading + curl / 6
    return np.stack(points, axis=1)


def _directions(angle: np.ndarray) -> np.ndarray:
    """Returns unit vectors (N, 2)."""
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


# Drawing: only in the part of the picture that a shape touches


class _Window(NamedTuple):
    """A rectangle of the picture, in pixels."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def around(cls, outline: np.ndarray, margin: float, size: Size) -> "_Window":
        """Returns the part of a picture around an outline, with a margin; it is never empty."""
        left, top = np.floor(outline.min(axis=0) - margin).astype(int).tolist()
        right, bottom = np.ceil(outline.max(axis=0) + margin).astype(int).tolist()
        left, top = min(max(left, 0), size[1] - 1), min(max(top, 0), size[0] - 1)
        right, bottom = max(min(right, size[1]), left + 1), max(min(bottom, size[0]), top + 1)
        return cls(left, top, right, bottom)

    @property
    def size(self) -> Size:
        return self.bottom - self.top, self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)


class _Canvas:
    """Draws shapes into a window with smooth edges."""

    def __init__(self, window: _Window) -> None:
        height, width = window.size
        self.picture = Image.new("L", (width * _SUPERSAMPLING, height * _SUPERSAMPLING))
        self.pen = ImageDraw.Draw(self.picture)
        self.corner = (window.left, window.top)

    def fill(self, outline: np.ndarray, level: int = 255) -> None:
        self.pen.polygon(self._placed(outline).ravel().tolist(), fill=level)

    def draw_hair(self, strands: np.ndarray, width: float) -> None:
        thick = max(1, round(width * _SUPERSAMPLING))
        half = strands.shape[1] // 2
        self._trace(strands[:, :half], thick)
        self._trace(strands, max(1, thick // 2))  # thinner towards the tips

    def _trace(self, strands: np.ndarray, width: int) -> None:
        """Draws all strands as one line, up and down each, which is faster than many lines."""
        line = np.concatenate([strands, strands[:, ::-1]], axis=1)
        self.pen.line(self._placed(line).ravel().tolist(), fill=255, width=width)

    def cover(self) -> Image.Image:
        """Returns the share of each pixel that is drawn, as an 8-bit grey picture."""
        return self.picture.reduce(_SUPERSAMPLING)

    def _placed(self, points: np.ndarray) -> np.ndarray:
        return (points - self.corner) * _SUPERSAMPLING


# Foregrounds: an outline, an edge, a lit material


def _thing(
    random: np.random.Generator, size: Size, radius: float
) -> tuple[_Window, np.ndarray, np.ndarray]:
    """Draws a thing; returns its window, its colours (3, H, W) and its alpha (H, W)."""
    edge = _pick(random, "hard", "soft", "hair", "hair", "glass")
    length = radius * random.uniform(0.2, 0.8) if edge == "hair" else 0
    blur = radius * random.uniform(0.03, 0.18) if edge == "soft" else 0
    outline = _outline(random, radius) + _place(random, size)
    window = _Window.around(outline, 1.4 * length + 3 * blur + 1, size)

    canvas = _Canvas(window)
    canvas.fill(outline)
    if random.random() < 0.3:
        hole = _outline(random, radius * random.uniform(0.15, 0.4))
        canvas.fill(hole + outline.mean(axis=0) + random.uniform(-0.4, 0.4, 2) * radius, level=0)
    bulge = _bulge(canvas.cover(), 0.3 * radius)
    if edge == "hair":
        canvas.draw_hair(_strands(random, outline, length), random.uniform(0.25, 0.6))
    cover = canvas.cover()
    if blur:
        cover = cover.filter(ImageFilter.GaussianBlur(blur))
    alpha = np.asarray(cover, np.float32) / 255

    colours, highlight = _lit_material(random, bulge, radius, min(size))
    if edge == "glass":
        clear = random.uniform(0.35, 0.75)
        rim = (1 - (bulge - 0.45) / 0.4).clip(0, 1)
        alpha = alpha * np.maximum(clear + (1 - clear) * rim, highlight)
    return window, colours, alpha


def _lit_material(
    random: np.random.Generator, bulge: np.ndarray, radius: float, short: int
) -> tuple[np.ndarray, np.ndarray]:
    """Paints a bulging surface that a lamp lights.

    Args:
        random: generator.
        bulge: height of the surface, float32 (H, W), from 0 to about 1.
        radius: in pixels, of the thing.
        short: short side in pixels of the picture.

    Returns:
        Its colours (3, H, W) and its highlight (H, W), float32 in [0, 1].
    """
    hue = random.random()
    saturation = random.uniform(0.55, 1) if random.random() < 0.93 else random.uniform(0, 0.2)
    value = random.uniform(0.6, 1)
    first = _colour(hue, saturation, value)
    second = _colour(hue + random.uniform(-0.15, 0.15), saturation, value * random.uniform(0.5, 1))
    first, second = first[:, None, None], second[:, None, None]
    base = first + _fine_pattern(random, bulge.shape, short) * (second - first)

    slope_y, slope_x = np.gradient(bulge * np.float32(0.9 * radius))
    upright = 1 / np.sqrt(slope_x**2 + slope_y**2 + 1)
    direction = random.uniform(0, 2 * math.pi)
    lamp_x, lamp_y, lamp_z = 0.65 * math.cos(direction), 0.65 * math.sin(direction), 0.76
    facing = (lamp_z - lamp_x * slope_x - lamp_y * slope_y) * upright
    shade = 0.25 + 0.9 * facing.clip(0, 1)
    # The gloss is strongest half way between lamp and eye (Blinn 1977).
    long = math.sqrt(2 + 2 * lamp_z)
    gloss = ((lamp_z + 1 - lamp_x * slope_x - lamp_y * slope_y) * upright / long).clip(0, 1)
    for _ in range(random.integers(4, 7)):  # a power of 16 to 64
        gloss = gloss * gloss
    highlight = random.uniform(0.3, 0.9) * gloss
    return (base * shade + highlight).clip(0, 1), highlight


def _fine_pattern(random: np.random.Generator, size: Size, short: int) -> np.ndarray:
    """Draws the texture of a foreground (H, W) in [0, 1]."""
    x, y = _grid(size, short)
    match _pick(random, "plain", "gradient", "speckle", "stripes", "mottled"):
        case "gradient":
            slope_x, slope_y = random.normal(0, 1.5, 2).tolist()
            return (0.5 + slope_x * x + slope_y * y).clip(0, 1)
        case "speckle":
            return (1.5 * _octave(random, size, 0.012 * short)).clip(0, 1)
        case "stripes":
            angle, frequency = random.uniform(0, math.pi), 2 * math.pi * random.uniform(14, 26)
            wave = frequency * (math.cos(angle) * x + math.sin(angle) * y)
            return 0.5 + 0.5 * np.sin(wave + 1.5 * _octave(random, size, 0.25 * short))
        case "mottled":
            return (0.5 + 1.2 * _octave(random, size, 0.05 * short)).clip(0, 1)
        case _:
            return np.zeros(size, np.float32)


def _bulge(body: Image.Image, sigma: float) -> np.ndarray:
    """Blurs a flat body widely, so that it bulges like a pillow; float32 (H, W) from 0 to 1.

    It is computed on a reduced picture, which is faster, and in floats, since the steps of 8 bits
    would show as bands in the shading.
    """
    shrink = max(1, int(sigma / 4))
    small = np.asarray(body.reduce(shrink), np.float32) / 255
    rows, columns = (_gaussian(side, sigma / shrink) for side in small.shape)
    blurred = Image.fromarray(rows @ small @ columns)
    box = (0, 0, body.width / shrink, body.height / shrink)
    return np.asarray(blurred.resize(body.size, Image.Resampling.BICUBIC, box=box))


def _gaussian(side: int, sigma: float) -> np.ndarray:
    """Returns the matrix (side, side) that blurs a column; outside of it all is 0."""
    place = np.arange(side, dtype=np.float32)
    bell = np.exp(-0.5 * ((place[:, None] - place) / sigma) ** 2)
    return (bell / (sigma * math.sqrt(2 * math.pi))).astype(np.float32)


# Backgrounds: a dull surface with flat shapes on it


def _background(random: np.random.Generator, size: Size) -> np.ndarray:
    """Paints a background, float32 (3, H, W) in [0, 1]."""
    short = min(size)
    picture = Image.new("RGB", size[::-1], _paint(_dull_colour(random)))
    picture.paste(_paint(_dull_colour(random)), mask=_pattern(random, size, short))
    stain = _octave(random, size, random.uniform(0.3, 0.8) * short)
    stain = _to_bytes((0.3 + 0.5 * stain).clip(0, 0.6))
    picture.paste(_paint(_dull_colour(random)), mask=Image.fromarray(stain))
    for _ in range(random.integers(1, 6)):
        _add_flat_shape(random, picture)
    if random.random() < 0.4:
        picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(0.004, 0.03) * short))
    grain = random.standard_normal(size, np.float32) * np.float32(random.uniform(0, 0.03))
    colours = np.stack([np.asarray(band, np.float32) for band in picture.split()])
    return (colours / 255 + grain).clip(0, 1)


def _pattern(random: np.random.Generator, size: Size, short: int) -> Image.Image:
    """Draws the texture of a background as an 8-bit grey picture."""
    x, y = _grid(size, short)
    angle = random.uniform(0, math.pi)
    u = math.cos(angle) * x + math.sin(angle) * y  # the axes, rotated
    v = math.cos(angle) * y - math.sin(angle) * x
    count = random.uniform(2, 12)  # repetitions of the pattern
    match _pick(random, "clouds", "gradient", "stripes", "checks", "bricks"):
        case "clouds":
            cell = random.uniform(0.1, 0.5) * short
            values: np.ndarray = np.full(size, 0.5, np.float32)
            for step in range(4):
                values = values + 0.8 / 1.6**step * _octave(random, size, cell / 2**step)
        case "gradient":
            values = 0.5 + u
        case "stripes":
            wave = np.sin(2 * math.pi * count * u + _octave(random, size, 0.4 * short))
            values = 0.5 + random.uniform(0.5, 4) * wave
        case "checks":
            wave = np.sin(2 * math.pi * count * u) * np.sin(2 * math.pi * count * v)
            values = 0.5 + random.uniform(1, 6) * wave
        case _:
            row, in_row = np.divmod(count * u, 1)
            column, in_column = np.divmod(count * v / 2 + 0.5 * (row % 2), 1)
            shades = random.random(64, np.float32)[(row * 7 + column * 13).astype(int) % 64]
            values = np.where(np.minimum(in_row, 2 * in_column) < 0.12, 1, 0.6 * shades)
    return Image.fromarray(_to_bytes(values.clip(0, 1)))


def _add_flat_shape(random: np.random.Generator, picture: Image.Image) -> None:
    """Lays a flat shape on a background: a distractor with the outline of a foreground thing."""
    size, short = picture.size[::-1], min(picture.size)
    blur = short * random.uniform(0.005, 0.03) if random.random() < 0.4 else 0
    outline = _outline(random, short * random.uniform(0.06, 0.35)) + _place(random, size)
    window = _Window.around(outline, 3 * blur + 1, size)
    canvas = _Canvas(window)
    canvas.fill(outline, level=random.integers(150, 256).item())
    cover = canvas.cover()
    if blur:
        cover = cover.filter(ImageFilter.GaussianBlur(blur))
    colourful = _colour(random.random(), random.uniform(0.5, 1), random.uniform(0.4, 1))
    colour = colourful if random.random() < 0.15 else _dull_colour(random)
    paint = Image.new("RGB", cover.size, _paint(colour))
    if random.random() < 0.4:
        other = colour + 0.6 * (_dull_colour(random) - colour)
        paint.paste(_paint(other), mask=_pattern(random, window.size, short))
    picture.paste(paint, (window.left, window.top), cover)


# Helpers


def _pick(random: np.random.Generator, *options: Option) -> Option:
    return options[random.integers(len(options))]


def _place(random: np.random.Generator, size: Size) -> np.ndarray:
    """Draws a point (x, y) of the picture, not too near its border."""
    return random.uniform(0.2, 0.8, 2) * np.array([size[1], size[0]])


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)


def _dull_colour(random: np.random.Generator) -> np.ndarray:
    return _colour(random.random(), random.uniform(0, 0.35), random.uniform(0.15, 0.95))


def _paint(colour: np.ndarray) -> tuple[int, ...]:
    return tuple(_to_bytes(colour).tolist())


def _grid(size: Size, short: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns x (1, W) and y (H, 1) of the pixels around the centre, in units of `short`."""
    height, width = size
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / short
    y = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / short
    return x[None, :], y[:, None]


def _octave(random: np.random.Generator, size: Size, cell: float) -> np.ndarray:
    """Draws smooth noise, float32 (H, W), mostly in [-0.5, 0.5], with bumps of `cell` pixels."""
    height, width = size
    cell = max(cell, 1)
    rows, columns = math.ceil(height / cell) + 1, math.ceil(width / cell) + 1
    coarse = Image.fromarray(random.random((rows, columns), np.float32) - np.float32(0.5))
    box = (0, 0, width / cell, height / cell)
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC, box=box))


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(values * 255).astype(np.uint8)
