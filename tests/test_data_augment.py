"""The random geometry: values of tensorflow-addons, alignment, corners, antialiasing."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kmatting.config import Augmentation
from kmatting.data.augment import (
    add_noise,
    augment,
    blur,
    change_light,
    compress,
    rotate,
    rotation,
    warp,
    without_outline,
)

STORED = np.load(Path(__file__).with_name("data") / "tfa_rotate.npz")
STILL = {"rotation_degrees": 0, "horizontal_flip": False, "vertical_flip": False}


def random_sample(height, width, seed=0):
    return np.random.default_rng(seed).random((height, width, 4), np.float32)


@pytest.mark.parametrize("fill_mode", ["constant", "reflect", "nearest", "wrap"])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("size", ["8x8", "9x9", "7x12", "12x5"])
def test_rotate_gives_the_values_of_tensorflow_addons(size, interpolation, fill_mode):
    image = STORED[size]
    stored = STORED[f"{size}/{interpolation}/{fill_mode}"]
    for degrees, expected in zip(STORED["degrees"], stored, strict=True):
        rotated = rotate(image[None], np.deg2rad(degrees), interpolation, fill_mode, 0.25)[0]
        off = np.abs(rotated.numpy() - expected) > 1e-5
        # At a quarter turn a point may lie just between two pixels, or on the seam of `wrap`, where
        # the last bit of a cosine decides. It is the same on most machines.
        borderline = degrees % 90 == 0 and (interpolation == "nearest" or fill_mode == "wrap")
        assert off.mean() <= (0.2 if borderline else 0), degrees


def test_rotation_is_counterclockwise():
    image = np.zeros((1, 5, 5, 1), np.float32)
    image[0, 2, 4] = 1  # on the right, at 3 o'clock
    rotated = rotate(image, np.pi / 2).numpy()[0, ..., 0]
    assert np.unravel_index(rotated.argmax(), rotated.shape) == (0, 2)  # at 12 o'clock
    assert rotated.max() == pytest.approx(1, abs=1e-5)


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(0, 2**31), st.integers(0, 2**31)),
    st.sampled_from(["resize", "crop", "stretch"]),
    st.sampled_from([(40, 56), (56, 40), (33, 33), (150, 90)]),
)
def test_image_and_alpha_stay_aligned_and_in_range(seed, fit, source_size):
    alpha = random_sample(*source_size)[..., :1]
    sample = np.repeat(alpha, 4, axis=2)
    out = augment(sample, (32, 48), Augmentation(fit=fit), tf.constant(seed, tf.int64)).numpy()
    assert out.shape == (32, 48, 4)
    assert out.dtype == np.float32
    for channel in range(3):
        np.testing.assert_array_equal(out[..., channel], out[..., 3])
    assert out.min() >= 0
    assert out.max() <= 1


@pytest.mark.parametrize("fit", ["resize", "crop", "stretch"])
def test_corners_are_never_black_under_an_opaque_alpha(fit):
    white = np.ones((48, 64, 4), np.float32)
    for number in range(30):
        config = Augmentation(rotation_degrees=45, fit=fit)
        out = augment(white, (32, 32), config, [0, number]).numpy()
        np.testing.assert_allclose(out, 1, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (33, 20)])
def test_without_draws_a_sample_of_the_right_size_is_unchanged(size):
    sample = random_sample(*size)
    out = augment(sample, size, Augmentation(**STILL), [1, 2])
    np.testing.assert_array_equal(out, sample)


def test_flips_are_exact_and_both_are_drawn_in_half_of_the_cases():
    sample = random_sample(16, 24)
    config = Augmentation(rotation_degrees=0)
    outs = [augment(sample, (16, 24), config, [5, number]).numpy() for number in range(200)]
    variants = [sample, sample[:, ::-1], sample[::-1], sample[::-1, ::-1]]
    counts = [sum(np.array_equal(out, variant) for out in outs) for variant in variants]
    assert sum(counts) == 200
    assert min(counts) > 25


def test_each_flip_can_be_switched_off():
    sample = random_sample(16, 16)
    only_vertical = Augmentation(rotation_degrees=0, horizontal_flip=False)
    for number in range(20):
        out = augment(sample, (16, 16), only_vertical, [6, number]).numpy()
        assert np.array_equal(out, sample) or np.array_equal(out, sample[::-1])


def test_angles_spread_over_the_whole_range():
    # A bright line through the centre: its direction is the angle that was drawn.
    sample = np.zeros((65, 65, 4), np.float32)
    sample[31:34] = 1
    config = Augmentation(rotation_degrees=30, horizontal_flip=False, vertical_flip=False)
    angles = []
    for number in range(150):
        out = augment(sample, (65, 65), config, [7, number]).numpy()[..., 3]
        column = out[:, 52]
        offset = 32 - (column * np.arange(65)).sum() / column.sum()
        angles.append(np.degrees(np.arctan2(offset, 20)))
    assert -31 < min(angles) < -26
    assert 26 < max(angles) < 31
    assert abs(np.mean(angles)) < 5


def test_crops_show_parts_of_the_picture_at_the_drawn_scale():
    # The picture is a ramp, so that a crop says where it is from and how large it is.
    y, x = np.mgrid[:100, :160].astype(np.float32)
    sample = np.stack([x / 160, y / 160, x * 0, x * 0 + 1], axis=-1)
    config = Augmentation(**STILL, fit="crop", crop_scale=(0.4, 0.8))
    scales, lefts = [], []
    for number in range(60):
        out = augment(sample, (32, 32), config, [8, number]).numpy()
        step = np.diff(out[16, 4:28, 0]).mean() * 160
        np.testing.assert_allclose(np.diff(out[4:28, 16, 1]).mean() * 160, step, rtol=0.03)
        scales.append(step * 32 / 100)
        lefts.append(out[16, 0, 0] * 160)
    assert 0.38 < min(scales) < 0.5
    assert 0.7 < max(scales) < 0.82
    assert min(lefts) < 20
    assert max(lefts) > 80


def test_stretch_draws_height_and_width_of_the_part_by_themselves():
    y, x = np.mgrid[:100, :160].astype(np.float32)
    sample = np.stack([x / 160, y / 100, x * 0, x * 0 + 1], axis=-1)
    config = Augmentation(**STILL, fit="stretch", crop_scale=(0.4, 0.8))
    outs = [augment(sample, (32, 32), config, [8, number]).numpy() for number in range(80)]
    widths = np.array([np.diff(out[16, 4:28, 0]).mean() * 32 for out in outs])
    heights = np.array([np.diff(out[4:28, 16, 1]).mean() * 32 for out in outs])
    for shares in (widths, heights):
        assert 0.38 < shares.min() < 0.45
        assert 0.75 < shares.max() < 0.82
    assert abs(np.corrcoef(widths, heights)[0, 1]) < 0.3


def test_light_changes_the_image_and_never_the_alpha():
    sample = random_sample(24, 24)
    config = Augmentation(**STILL, colour=0.5)
    out = augment(sample, (24, 24), config, [1, 2]).numpy()
    np.testing.assert_array_equal(out[..., 3], sample[..., 3])
    assert np.abs(out[..., :3] - sample[..., :3]).mean() > 0.01
    assert out.min() >= 0
    assert out.max() <= 1


def test_light_changes_brightness_and_contrast_both_ways():
    image = tf.constant(0.4 + 0.1 * random_sample(24, 24)[..., :3])
    outs = [change_light(image, 0.4, [3, number]).numpy() for number in range(80)]
    brightness = np.array([out.mean() / image.numpy().mean() for out in outs])
    contrast = np.array([out.std() / image.numpy().std() for out in outs])
    for ratio in (brightness, contrast):
        assert ratio.min() < 0.8
        assert ratio.max() > 1.2
    assert abs(brightness.mean() - 1) < 0.1
    np.testing.assert_allclose(change_light(image, 0.0, [3, 1]), image, atol=1e-6)


QUALITY = {"blur": 2.0, "noise": 0.1, "jpeg_quality": 30}


@pytest.mark.parametrize("name", QUALITY)
def test_blur_noise_and_jpeg_change_half_of_the_images_and_never_the_alpha(name):
    sample = random_sample(32, 40)
    config = Augmentation(**STILL, **{name: QUALITY[name]})
    change = tf.function(lambda seed: augment(tf.constant(sample), (32, 40), config, seed))
    outs = [change([5, number]).numpy() for number in range(60)]
    changed = [np.abs(out - sample)[..., :3].max() > 1e-6 for out in outs]
    assert 18 <= sum(changed) <= 42
    for out in outs:
        np.testing.assert_array_equal(out[..., 3], sample[..., 3])
        assert out.min() >= 0
        assert out.max() <= 1 + 1e-6
    again = change([5, changed.index(True)]).numpy()
    np.testing.assert_array_equal(again, outs[changed.index(True)])


def test_together_they_are_drawn_independently():
    sample = tf.constant(random_sample(16, 16))

    def changed(name):
        config = Augmentation(**STILL, **{name: QUALITY[name]})
        change = tf.function(lambda seed: augment(sample, (16, 16), config, seed))
        return [np.abs(change([1, number]) - sample).max() > 1e-6 for number in range(60)]

    half = {name: changed(name) for name in QUALITY}
    for one, other in (("blur", "noise"), ("noise", "jpeg_quality"), ("blur", "jpeg_quality")):
        assert 15 <= np.equal(half[one], half[other]).sum() <= 45


def test_the_blur_is_a_gaussian_of_a_random_width():
    point = np.zeros((41, 41, 3), np.float32)
    point[20, 20] = 1
    offsets = np.arange(41) - 20
    sigmas = []
    for number in range(40):
        blurred = blur(tf.constant(point), 3.0, [2, number]).numpy()
        assert blurred.sum() == pytest.approx(3, abs=1e-4)
        np.testing.assert_allclose(blurred, blurred.swapaxes(0, 1), atol=1e-6)
        sigmas.append(np.sqrt((blurred[..., 1].sum(axis=0) * offsets**2).sum()))
    assert min(sigmas) < 0.5
    assert 2.5 < max(sigmas) <= 3.01
    # Borders are mirrored, so that an even image stays even.
    np.testing.assert_allclose(blur(tf.ones((20, 30, 3)), 9.0, [2, 1]), 1, atol=1e-5)


def test_noise_has_a_random_strength_up_to_the_bound():
    grey = tf.fill((64, 64, 3), 0.5)
    spread = [(add_noise(grey, 0.1, [3, number]) - 0.5).numpy().std() for number in range(40)]
    assert min(spread) < 0.02
    assert 0.08 < max(spread) < 0.103


def test_jpeg_has_a_random_quality_down_to_the_bound(photos):
    photo = tf.constant(photos(1, 64, 64)[0])
    losses = [np.abs(compress(photo, 5, [4, number]) - photo).mean() for number in range(20)]
    assert min(losses) < 0.01
    assert max(losses) > 2 * min(losses)
    best = [np.abs(compress(photo, 99, [4, number]) - photo).mean() for number in range(20)]
    assert max(best) < np.mean(losses)


def test_a_band_along_a_coarse_outline_is_unknown():
    alpha = np.zeros((100, 120, 1), np.float32)
    alpha[:, 60:] = 1
    out = without_outline(tf.constant(alpha)).numpy()
    np.testing.assert_array_equal(out[:, 58:62], -1)  # 2% of 100 pixels to either side
    np.testing.assert_array_equal(out[:, :58], 0)
    np.testing.assert_array_equal(out[:, 62:], 1)
    np.testing.assert_array_equal(without_outline(tf.ones((100, 120, 1))), 1)


def test_a_large_picture_is_shrunk_without_aliasing():
    # Stripes finer than the output can show must come out as their mean, not as a pattern.
    stripes = np.tile(np.float32([0, 1]), 256)[None, :, None] * np.ones((512, 1, 4), np.float32)
    for fit in ["resize", "crop", "stretch"]:
        out = augment(stripes, (64, 64), Augmentation(fit=fit, crop_scale=(0.6, 1)), [1, 1])
        np.testing.assert_allclose(out.numpy()[4:-4, 4:-4], 0.5, atol=0.05)


def test_the_same_seed_draws_the_same_and_another_seed_another():
    sample = random_sample(40, 40)
    first, again, other = (augment(sample, (32, 32), Augmentation(), [3, n]) for n in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


def test_warp_shifts_by_whole_pixels_exactly():
    sample = random_sample(10, 12)[None]
    shift = tf.constant([[1, 0, 3], [0, 1, 2], [0, 0, 1]], tf.float32)
    np.testing.assert_array_equal(warp(sample, shift, (5, 6))[0], sample[0, 2:7, 3:9])


def test_half_a_turn_is_both_flips():
    sample = random_sample(9, 14)[None]
    turned = warp(sample, rotation(np.pi, 9, 14), (9, 14))
    np.testing.assert_allclose(turned[0], sample[0, ::-1, ::-1], atol=1e-5)
