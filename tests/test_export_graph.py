"""What exported graphs do themselves: the TensorFlow operations against Pillow and NumPy."""

import functools

import numpy as np
import pytest
import skimage.data
from PIL import Image

from kmatting.inference.foreground import estimate_foreground
from kmatting.inference.refine import refine

SIZES = [
    ((96, 130), (40, 50)),
    ((480, 640), (256, 320)),
    ((600, 90), (700, 70)),  # reduced along one axis, enlarged along the other
    ((300, 300), (200, 200)),  # pixels lie on the borders of windows
    ((5, 700), (3, 160)),
    ((1, 1), (1, 1)),
    ((31, 40), (64, 48)),  # enlarged
]


def noisy(height, width, seed=0):
    """A photo of smooth colours and noise."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    smooth = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    noise = rng.integers(-12, 13, (height, width, 3))
    return (np.asarray(smooth) + noise).clip(0, 255).astype(np.uint8)


def disc(height, width, softness=3.0):
    """A soft disc, float32 in [0, 1]."""
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot((rows - height / 2) / height, (columns - width / 2) / width)
    return np.clip(0.5 + (0.3 - distance) * height / softness, 0, 1).astype(np.float32)


def over(image, alpha, colour):
    """Lays a photo over a colour, so that edges of the matte are edges of the photo."""
    mixed = image * alpha[..., None] + np.array(colour) * (1 - alpha[..., None])
    return np.rint(mixed).astype(np.uint8)


def reduced(array, size):
    return np.asarray(Image.fromarray(array).resize(size[::-1], Image.Resampling.BILINEAR))


@pytest.fixture(scope="module")
def graph():
    """The functions, each traced once for all sizes."""
    import tensorflow as tf

    from kmatting.exporting.graph import foreground, resize
    from kmatting.exporting.graph import refine as refinement

    photo, matte = tf.TensorSpec((None, None, 3), tf.uint8), tf.TensorSpec((None, None))
    photos, size = tf.TensorSpec((1, None, None, 3), tf.uint8), tf.TensorSpec((2,), tf.int32)
    mattes = tf.TensorSpec((1, None, None, 1))

    def compiled(function, *signature):
        run = tf.function(function, input_signature=signature)
        return lambda *arguments: run(*map(tf.constant, arguments)).numpy()

    resizing = {}
    for kernel in ("bilinear", "box", "lanczos"):
        run = functools.partial(resize.resize, kernel=kernel)
        resizing[kernel] = compiled(run, photos, size)
        resizing[f"{kernel} of floats"] = compiled(run, mattes, size)
    return {
        **resizing,
        "refine": compiled(refinement.refine, matte, photo),
        "foreground": compiled(foreground.estimate_foreground, photo, matte),
    }


@pytest.mark.parametrize(("large", "small"), SIZES)
@pytest.mark.parametrize("kernel", ["bilinear", "box", "lanczos"])
def test_resizing_is_that_of_pillow(graph, large, small, kernel):
    image = noisy(*large)
    method = Image.Resampling[kernel.upper()]
    expected = Image.fromarray(image).resize(small[::-1], method)
    np.testing.assert_array_equal(graph[kernel](image[None], small)[0], np.asarray(expected))
    matte = disc(*large)
    expected = Image.fromarray(matte).resize(small[::-1], method)
    received = graph[f"{kernel} of floats"](matte[None, ..., None], small)[0, ..., 0]
    np.testing.assert_allclose(received, np.asarray(expected), atol=1e-5)


@pytest.mark.parametrize(("large", "small"), SIZES)
@pytest.mark.parametrize("softness", [2.0, 30.0])
def test_refinement_of_a_disc(graph, large, small, softness):
    alpha = disc(*large, softness)
    image = over(noisy(*large), alpha, (30, 200, 60))
    matte = reduced(alpha, small)
    np.testing.assert_allclose(graph["refine"](matte, image), refine(matte, image), atol=0.002)


def test_refinement_of_noise(graph):
    """Nothing fits, so that small errors of rounding are at their largest."""
    image = noisy(300, 400)
    matte = np.random.default_rng(1).random((70, 90), np.float32)
    np.testing.assert_allclose(graph["refine"](matte, image), refine(matte, image), atol=0.004)


def test_refinement_of_flat_mattes(graph):
    image = noisy(300, 400)
    for level in (0, 0.5, 1):
        matte = np.full((70, 90), level, np.float32)
        np.testing.assert_allclose(graph["refine"](matte, image), level, atol=1e-6)
    # One that has the photo's size comes back as it is.
    matte = np.random.default_rng(1).random((300, 400), np.float32)
    np.testing.assert_array_equal(graph["refine"](matte, image), matte)


def astronaut():
    """A photo, and a matte of its face, suit and hair that follows its edges."""
    image = skimage.data.astronaut()
    grey = np.asarray(Image.fromarray(image).convert("L")) / np.float32(255)
    return image, np.clip((grey - 0.25) * 4, 0, 1) * disc(512, 512, 20)


@pytest.mark.parametrize("small", [(128, 128), (144, 112)])
def test_refinement_of_a_photo(graph, small):
    image, alpha = astronaut()
    matte = reduced(alpha, small)
    refined = refine(matte, image)
    assert np.abs(refined - reduced(matte, (512, 512))).max() > 0.3  # from bilinear
    np.testing.assert_allclose(graph["refine"](matte, image), refined, atol=0.002)


@pytest.mark.parametrize("size", [(512, 512), (300, 430), (3, 200), (2, 2), (1, 1)])
def test_foreground_colours(graph, size):
    image, alpha = (reduced(each, size) for each in astronaut())
    expected = estimate_foreground(image, alpha).astype(int)
    received = graph["foreground"](image, alpha)
    # What is nearly transparent has no colour to speak of.
    visible = np.abs(received - expected) * alpha[..., None]
    assert visible.max() <= 2
    assert np.abs(received - expected).mean() < 0.1
    opaque, empty = alpha > 0.999, alpha < 0.001
    np.testing.assert_array_equal(received[opaque], image[opaque])
    assert not received[empty].any()


def test_foreground_colours_are_no_mixture(graph):
    alpha = disc(200, 260, 60)
    image = over(np.full((200, 260, 3), (250, 40, 40)), alpha, (20, 20, 220))
    colours = graph["foreground"](image, alpha)[alpha > 0.2].astype(int)
    assert np.abs(colours - (250, 40, 40)).mean() < 12
