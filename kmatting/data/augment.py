"""Random geometry, light and image quality for training, in NumPy and OpenCV.

Image and alpha go through the geometry as one 4-channel array, so that no step can move one without
the other. Pixels from outside the picture are a reflection of it, in all four channels: a corner is
never black in the image while opaque in the alpha.

Pixels are uint8 throughout. OpenCV works without Python's lock, so that threads use all processors.
"""

import math

import cv2
import numpy as np

from kmatting.data.config import Augmentation
from kmatting.data.geometry import Size, resize, rotation, scaling, warp_together

COARSE_BAND = 0.02  # half the width of an outline that is not learned from
UNKNOWN = -1  # level of an alpha that is not learned from
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def augment(
    image: np.ndarray,
    alpha: np.ndarray,
    size: Size,
    config: Augmentation,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Turns, flips and crops a sample at random, resizes it, and changes its light and quality.

    Args:
        image: uint8 array (H, W, 3).
        alpha: uint8 array (H, W).
        size: height and width of the output.
        config: which changes are made, and how strong they are.
        random: generator that all draws come from.

    Returns:
        image: uint8 array (height, width, 3).
        alpha: uint8 array (height, width).
    """
    if config.turned and random.random() < config.turned:
        quarter_turns = int(random.integers(3))  # OpenCV's numbers: one, two and three of them
        image, alpha = cv2.rotate(image, quarter_turns), cv2.rotate(alpha, quarter_turns)
    matrix = draw_geometry(alpha.shape, size, config, random)
    image, alpha = warp_together(image, alpha, matrix, size)
    if config.grey and random.random() < config.grey:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if config.colour:
        image = change_light(image, config.colour, random)
    if config.exposure:
        image = change_exposure(image, config.exposure, random)
    # Each of these in half of the samples. All are drawn, so that none depends on another.
    blurred, noisy, compressed = random.random(3) < 0.5
    if config.blur and blurred:
        image = blur(image, config.blur, random)
    if config.noise and noisy:
        image = add_noise(image, config.noise, random)
    if config.jpeg_quality is not None and compressed:
        image = compress(image, config.jpeg_quality, random)
    return image, alpha


def fit(image: np.ndarray, alpha: np.ndarray, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Brings a sample to a size, without any random change.

    Args:
        image: as in `augment`.
        alpha: as in `augment`.
        size: as in `augment`.

    Returns:
        As `augment`.
    """
    sample = resize(cv2.merge([image, alpha]), size)
    return cv2.cvtColor(sample, cv2.COLOR_RGBA2RGB), cv2.extractChannel(sample, 3)


def draw_geometry(
    source: tuple[int, ...], size: Size, config: Augmentation, random: np.random.Generator
) -> np.ndarray:
    """Draws crop, rotation and flips.

    The picture is thought of as resized to a whole number of pixels, of which a part of `size` is
    shown, from a whole pixel on, rotated and mirrored about the centre of that part.

    Args:
        source: height and width of the picture.
        size: as in `augment`.
        config: as in `augment`.
        random: as in `augment`.

    Returns:
        float64 array (3, 3) for `warp`.
    """
    height, width = size
    draws = random.random(7).tolist()
    resized, top, left = size, 0, 0
    if config.fit != "resize":
        low, high = config.crop_scale
        share = [low + draw * (high - low) for draw in draws[:2]]
        if config.fit == "stretch":
            sides = height / share[0], width / share[1]
        else:
            scale = min(source[0] / height, source[1] / width) * share[0]
            sides = source[0] / scale, source[1] / scale
        resized = max(round(sides[0]), height), max(round(sides[1]), width)
        top = int(draws[2] * (resized[0] - height + 1))
        left = int(draws[3] * (resized[1] - width + 1))
    angle = (2 * draws[4] - 1) * math.radians(config.rotation_degrees)
    flip_x = config.horizontal_flip and draws[5] < 0.5
    flip_y = config.vertical_flip and draws[6] < 0.5
    flip = np.array(
        [
            [-1 if flip_x else 1, 0, width - 1 if flip_x else 0],
            [0, -1 if flip_y else 1, height - 1 if flip_y else 0],
            [0, 0, 1.0],
        ]
    )
    shift = np.array([[1, 0, left], [0, 1, top], [0, 0, 1.0]])
    return scaling(source, resized) @ shift @ rotation(angle, height, width) @ flip


def change_light(image: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    """Changes brightness, contrast, saturation and tint at random, by one matrix.

    Args:
        image: uint8 array (H, W, 3).
        strength: 0 changes nothing; with 1 brightness, contrast and saturation are multiplied by 0
            to 2, and each channel by 0.5 to 1.5 on top.
        random: generator that all draws come from.

    Returns:
        uint8 array (H, W, 3).
    """
    brightness, contrast, saturation, *tint = 1 + strength * random.uniform(-1, 1, 6)
    mean = _LUMA @ cv2.mean(image)[:3]
    grey = np.broadcast_to(_LUMA, (3, 3))
    matrix = contrast * (grey + saturation * (np.eye(3) - grey))
    offset = np.full(3, mean * (1 - contrast))
    gain = brightness * (1 + 0.5 * (np.array(tint) - 1))
    return cv2.transform(image, np.column_stack([matrix, offset]) * gain[:, None])


def change_exposure(image: np.ndarray, stops: float, random: np.random.Generator) -> np.ndarray:
    """Multiplies pixel values by one random factor; what gets too bright is white.

    Args:
        image: uint8 array (H, W, 3).
        stops: the factor is drawn from 2^-stops to 2^stops, its logarithm evenly.
        random: generator that all draws come from.

    Returns:
        uint8 array (H, W, 3).
    """
    return cv2.convertScaleAbs(image, alpha=2 ** random.uniform(-stops, stops))


def blur(image: np.ndarray, largest: float, random: np.random.Generator) -> np.ndarray:
    """Blurs an image by a Gaussian of random width.

    Args:
        image: uint8 array (H, W, 3).
        largest: the standard deviation is drawn from 0 to this many pixels.
        random: generator that all draws come from.

    Returns:
        uint8 array (H, W, 3).
    """
    sigma = max(largest * random.random(), 1e-3)
    radius = math.ceil(3 * sigma)
    side = 2 * radius + 1
    return cv2.GaussianBlur(image, (side, side), sigma, borderType=cv2.BORDER_REFLECT_101)


def add_noise(image: np.ndarray, largest: float, random: np.random.Generator) -> np.ndarray:
    """Adds Gaussian noise of random strength.

    Args:
        image: uint8 array (H, W, 3).
        largest: the standard deviation is drawn from 0 to this share of the whole range.
        random: generator that all draws come from.

    Returns:
        uint8 array (H, W, 3).
    """
    sigma = 255 * largest * random.random()
    height, width, channels = image.shape
    noise = np.empty((height, width * channels), np.int16)  # of channels, each has a strength
    cv2.setRNGSeed(int(random.integers(2**31)))  # of this thread
    cv2.randn(noise, 0, sigma)  # type: ignore[call-overload]
    return cv2.add(image, noise.reshape(image.shape), dtype=cv2.CV_8U)


def compress(image: np.ndarray, lowest: int, random: np.random.Generator) -> np.ndarray:
    """Compresses an image as a JPEG of random quality and decodes it again.

    Args:
        image: uint8 array (H, W, 3).
        lowest: the quality is drawn from this, 1 to 99, to 99.
        random: generator that all draws come from.

    Returns:
        uint8 array (H, W, 3).
    """
    quality = int(random.integers(lowest, 100))
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, quality))
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB)
    assert decoded is not None  # it was encoded a moment ago
    return decoded


def without_outline(alpha: np.ndarray) -> np.ndarray:
    """Marks a band along the outlines of a coarse alpha as unknown.

    Args:
        alpha: uint8 array (H, W).

    Returns:
        int16 array (H, W): `UNKNOWN` where both foreground and background are within `COARSE_BAND`
        times the shorter side, else the alpha.
    """
    side = 2 * max(1, round(COARSE_BAND * min(alpha.shape))) + 1
    square = np.ones((side, side), np.uint8)
    highest, lowest = cv2.dilate(alpha, square), cv2.erode(alpha, square)
    return np.where(cv2.subtract(highest, lowest) > 127, np.int16(UNKNOWN), alpha)
