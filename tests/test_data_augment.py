"""The random geometry, light and quality: values of other programs, alignment, distributions."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kmatting.config import Augmentation
from kmatting.data.augment import (
    UNKNOWN,
    add_noise,
    augment,
    blur,
    change_exposure,
    change_light,
    compress,
    draw_geometry,
    without_outline,
)
from kmatting.data.geometry import resize, rotation, warp, warp_together

STORED = np.load(Path(__file__).with_name("data") / "tfa_rotate.npz")
STILL = {"rotation_degrees": 0, "horizontal_flip": False, "vertical_flip": False}


def draws(*seed):
    return np.random.default_rng(seed)


def random_pair(height, width, seed=0):
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (height, width, 3), np.uint8)
    return image, random.integers(0, 256, (height, width), np.uint8)


def ramp(height, width):
    """A picture that says of each pixel where it is from: red is x, green is y."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([255 * x / width, 255 * y / height, 0 * x], axis=-1)
    return np.rint(image).astype(np.uint8), np.full((height, width), 255, np.uint8)


@pytest.mark.parametrize("size", ["8x8", "9x9", "7x12", "12x5"])
def test_rotations_give_the_values_of_tensorflow_addons(size):
    image = STORED[size]
    height, width = image.shape[:2]
    stored = STORED[f"{size}/bilinear/reflect"]
    for degrees, expected in zip(STORED["degrees"], stored, strict=True):
        turn = rotation(np.deg2rad(degrees), height, width)
        rotated = warp(image, turn, (height, width)).reshape(expected.shape)
        # OpenCV knows places to 1/32 of a pixel; these pictures are noise from 0 to 1.
        exact = degrees % 90 == 0
        np.testing.assert_allclose(rotated, expected, atol=1e-5 if exact else 0.02)


def test_rotation_is_counterclockwise():
    image = np.zeros((5, 5, 1), np.float32)
    image[2, 4] = 1  # on the right, at 3 o'clock
    rotated = warp(image, rotation(np.pi / 2, 5, 5), (5, 5)).reshape(5, 5)
    assert np.unravel_index(rotated.argmax(), rotated.shape) == (0, 2)  # at 12 o'clock
    assert rotated.max() == pytest.approx(1, abs=1e-5)


@settings(deadline=None, max_examples=100)
@given(
    st.integers(0, 2**31),
    st.sampled_from(["resize", "crop", "stretch"]),
    st.sampled_from([(40, 56), (56, 40), (33, 33), (150, 90), (700, 333)]),
    st.sampled_from([0, 30, 180]),
)
def test_image_and_alpha_stay_aligned(seed, fit, source, degrees):
    _, alpha = random_pair(*source)
    config = Augmentation(fit=fit, rotation_degrees=degrees, crop_scale=(0.2, 1))
    image, moved = augment(cv2.merge([alpha] * 3), alpha, (32, 48), config, draws(seed))
    assert image.shape == (32, 48, 3)
    assert image.dtype == moved.dtype == np.uint8
    for channel in range(3):
        np.testing.assert_array_equal(image[..., channel], moved)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.sampled_from(["crop", "stretch"]), st.sampled_from([30, 180]))
def test_only_the_part_in_view_is_touched_and_it_is_enough(seed, fit, degrees):
    image, alpha = random_pair(500, 333, 1)
    config = Augmentation(fit=fit, rotation_degrees=degrees, crop_scale=(0.1, 1))
    matrix = draw_geometry(alpha.shape, (48, 32), config, draws(seed))
    part, part_alpha = warp_together(image, alpha, matrix, (48, 32))
    whole = warp(cv2.merge([image, alpha]), matrix, (48, 32)).astype(int)
    assert np.abs(whole[..., :3] - part).max() <= 1
    assert np.abs(whole[..., 3] - part_alpha).max() <= 1


@pytest.mark.parametrize("fit", ["resize", "crop", "stretch"])
def test_corners_are_never_black_under_an_opaque_alpha(fit):
    white = np.full((48, 64, 3), 255, np.uint8)
    for number in range(30):
        config = Augmentation(rotation_degrees=45, fit=fit)
        out = augment(white, white[..., 0], (32, 32), config, draws(0, number))
        assert min(out[0].min(), out[1].min()) == 255


@pytest.mark.parametrize("size", [(32, 32), (33, 20)])
def test_without_draws_a_sample_of_the_right_size_is_unchanged(size):
    sample = random_pair(*size)
    out = augment(*sample, size, Augmentation(**STILL), draws(1))
    np.testing.assert_array_equal(out[0], sample[0])
    np.testing.assert_array_equal(out[1], sample[1])


def test_flips_are_exact_and_both_are_drawn_in_half_of_the_cases():
    image, alpha = random_pair(16, 24)
    config = Augmentation(rotation_degrees=0)
    outs = [augment(image, alpha, (16, 24), config, draws(5, n))[1] for n in range(200)]
    variants = [alpha, alpha[:, ::-1], alpha[::-1], alpha[::-1, ::-1]]
    counts = [sum(np.array_equal(out, variant) for out in outs) for variant in variants]
    assert sum(counts) == 200
    assert min(counts) > 25


def test_each_flip_can_be_switched_off():
    image, alpha = random_pair(16, 16)
    only_vertical = Augmentation(rotation_degrees=0, horizontal_flip=False)
    for number in range(20):
        _, out = augment(image, alpha, (16, 16), only_vertical, draws(6, number))
        assert np.array_equal(out, alpha) or np.array_equal(out, alpha[::-1])


def test_a_share_of_the_samples_is_turned_one_two_or_three_quarters():
    image, alpha = random_pair(16, 16)
    config = Augmentation(**STILL, turned=0.6)
    outs = [augment(image, alpha, (16, 16), config, draws(5, n)) for n in range(200)]
    turned = [(np.rot90(image, turns), np.rot90(alpha, turns)) for turns in range(4)]
    counts = [
        sum(np.array_equal(out, one) and np.array_equal(a, other) for out, a in outs)
        for one, other in turned
    ]
    assert sum(counts) == 200
    assert 60 <= counts[0] <= 100
    assert min(counts[1:]) >= 25


def test_a_turned_wide_picture_is_tall():
    image, alpha = ramp(50, 100)
    config = Augmentation(**STILL, turned=1)
    outs = [augment(image, alpha, (80, 40), config, draws(5, n))[0].astype(int) for n in range(30)]
    tall = [out for out in outs if abs(out[-1, 20, 0] - out[0, 20, 0]) > 240]
    assert 12 <= len(tall) <= 28  # two of the three turns bring left to top or bottom


def test_angles_spread_over_the_whole_range():
    config = Augmentation(rotation_degrees=30, horizontal_flip=False, vertical_flip=False)
    angles = []
    for number in range(150):
        matrix = draw_geometry((65, 65), (65, 65), config, draws(7, number))
        angles.append(math.degrees(math.atan2(matrix[1, 0], matrix[0, 0])))
        np.testing.assert_allclose(matrix[:2, :2] @ matrix[:2, :2].T, np.eye(2), atol=1e-12)
        np.testing.assert_allclose(matrix @ [32, 32, 1], [32, 32, 1])
    assert -30 < min(angles) < -27
    assert 27 < max(angles) < 30
    assert abs(np.mean(angles)) < 5


def test_crops_show_parts_of_the_picture_at_the_drawn_scale():
    image, alpha = ramp(100, 160)
    config = Augmentation(**STILL, fit="crop", crop_scale=(0.4, 0.8))
    scales, lefts = [], []
    for number in range(60):
        out, _ = augment(image, alpha, (32, 32), config, draws(8, number))
        step = np.diff(out[16, 4:28, 0].astype(float)).mean() * 160 / 255
        down = np.diff(out[4:28, 16, 1].astype(float)).mean() * 100 / 255
        assert down == pytest.approx(step, rel=0.05)
        scales.append(step * 32 / 100)
        lefts.append(float(out[16, 0, 0]) * 160 / 255)
    assert 0.38 < min(scales) < 0.5
    assert 0.7 < max(scales) < 0.82
    assert min(lefts) < 20
    assert max(lefts) > 80


def test_stretch_draws_height_and_width_of_the_part_by_themselves():
    config = Augmentation(**STILL, fit="stretch", crop_scale=(0.4, 0.8))
    matrices = [draw_geometry((100, 160), (32, 32), config, draws(8, n)) for n in range(80)]
    widths = np.array([matrix[0, 0] * 32 / 160 for matrix in matrices])
    heights = np.array([matrix[1, 1] * 32 / 100 for matrix in matrices])
    for shares in (widths, heights):
        assert 0.39 < shares.min() < 0.45
        assert 0.75 < shares.max() < 0.81
    assert abs(np.corrcoef(widths, heights)[0, 1]) < 0.3


def test_what_is_seen_lies_within_the_picture():
    for fit in ("crop", "stretch"):
        for number in range(100):
            config = Augmentation(**STILL, fit=fit, crop_scale=(0.3, 1))
            matrix = draw_geometry((100, 160), (32, 48), config, draws(9, number))
            corners = matrix @ np.array([[-0.5, 47.5], [-0.5, 31.5], [1, 1]])
            assert corners[:2].min() >= -0.5 - 1e-9
            assert corners[0].max() <= 159.5 + 1e-9
            assert corners[1].max() <= 99.5 + 1e-9


def test_light_changes_the_image_and_never_the_alpha():
    image, alpha = random_pair(24, 24)
    config = Augmentation(**STILL, colour=0.5)
    lit, same = augment(image, alpha, (24, 24), config, draws(1, 2))
    np.testing.assert_array_equal(same, alpha)
    assert np.abs(lit.astype(int) - image).mean() > 2


def test_light_is_one_affine_map_of_the_colours():
    image, _ = random_pair(24, 24)
    image = image // 3 + 85  # so that nothing is clipped
    lit = change_light(image, 0.2, draws(3)).astype(float)
    terms = np.column_stack([image.reshape(-1, 3), np.ones(24 * 24)])
    solution, *_ = np.linalg.lstsq(terms, lit.reshape(-1, 3), rcond=None)
    np.testing.assert_allclose(terms @ solution, lit.reshape(-1, 3), atol=1)


def test_light_changes_brightness_and_contrast_both_ways():
    image = (102 + random_pair(24, 24)[0] // 10).astype(np.uint8)
    outs = [change_light(image, 0.4, draws(3, number)) for number in range(80)]
    brightness = np.array([out.mean() / image.mean() for out in outs])
    contrast = np.array([out.std() / image.std() for out in outs])
    for ratio in (brightness, contrast):
        assert ratio.min() < 0.8
        assert ratio.max() > 1.2
    assert abs(brightness.mean() - 1) < 0.1
    np.testing.assert_array_equal(change_light(image, 0.0, draws(3, 1)), image)


def test_exposure_multiplies_all_colours_by_one_factor_and_clips():
    image, _ = random_pair(24, 24)
    outs = [change_exposure(image, 1.0, draws(3, number)) for number in range(80)]
    dim = image < 100  # what no factor makes white
    factors = np.array([out[dim].astype(float).sum() / image[dim].sum() for out in outs])
    for factor, out in zip(factors, outs, strict=True):
        np.testing.assert_allclose(out, np.minimum(image * factor, 255), atol=1.5)
    assert 0.5 <= factors.min() < 0.55
    assert 1.8 < factors.max() <= 2
    assert 30 <= (factors < 1).sum() <= 50


def test_a_share_of_the_samples_is_grey():
    image, alpha = random_pair(24, 24)
    outs = [
        augment(image, alpha, (24, 24), Augmentation(**STILL, grey=0.3), draws(5, number))
        for number in range(100)
    ]
    grey = [out for out, _ in outs if np.ptp(out, axis=-1).max() == 0]
    assert 18 <= len(grey) <= 42
    luma = np.asarray(Image.fromarray(image).convert("L")).astype(int)  # ITU-R BT.601
    assert np.abs(grey[0][..., 0] - luma).max() <= 1
    assert all(np.array_equal(same, alpha) for _, same in outs)
    assert sum(np.array_equal(out, image) for out, _ in outs) == 100 - len(grey)


QUALITY = {"blur": 2.0, "noise": 0.1, "jpeg_quality": 30}


def changes(name, count):
    """Returns which of some samples a change of quality touches, and the samples."""
    image, alpha = random_pair(32, 40)
    config = Augmentation(**STILL, **{name: QUALITY[name]})
    outs = [augment(image, alpha, (32, 40), config, draws(5, number)) for number in range(count)]
    for _, same in outs:
        np.testing.assert_array_equal(same, alpha)
    return [not np.array_equal(out, image) for out, _ in outs], [out for out, _ in outs]


@pytest.mark.parametrize("name", QUALITY)
def test_blur_noise_and_jpeg_change_half_of_the_images_and_never_the_alpha(name):
    changed, outs = changes(name, 60)
    assert 18 <= sum(changed) <= 42
    np.testing.assert_array_equal(changes(name, 60)[1], outs)


def test_together_they_are_drawn_independently():
    half = {name: changes(name, 60)[0] for name in QUALITY}
    for one, other in (("blur", "noise"), ("noise", "jpeg_quality"), ("blur", "jpeg_quality")):
        assert 15 <= np.equal(half[one], half[other]).sum() <= 45


def test_the_blur_is_a_gaussian_of_a_random_width():
    point = np.zeros((41, 41, 3), np.uint8)
    point[20, 20] = 255
    offsets = np.arange(41) - 20
    sigmas = []
    for number in range(40):
        blurred = blur(point, 3.0, draws(2, number)).astype(float)
        line = blurred[20, :, 1] / blurred[20, :, 1].sum()
        sigmas.append(np.sqrt((line * offsets**2).sum()))
    assert min(sigmas) < 0.5
    assert 2.4 < max(sigmas) <= 3.05
    # Borders are mirrored, so that an even image stays even.
    even = np.full((20, 30, 3), 77, np.uint8)
    np.testing.assert_array_equal(blur(even, 9.0, draws(2, 1)), 77)


def test_noise_has_a_random_strength_up_to_the_bound():
    grey = np.full((64, 64, 3), 128, np.uint8)
    noisy = [add_noise(grey, 0.1, draws(3, number)) / 255 - 128 / 255 for number in range(40)]
    spread = [each.std() for each in noisy]
    assert min(spread) < 0.02
    assert 0.08 < max(spread) < 0.103
    assert np.abs([each.mean() for each in noisy]).max() < 0.005


def test_jpeg_has_a_random_quality_down_to_the_bound(photos):
    photo = np.rint(photos(1, 64, 64)[0] * 255).astype(np.uint8)

    def losses(lowest):
        outs = [compress(photo, lowest, draws(4, number)).astype(int) for number in range(20)]
        return [np.abs(out - photo).mean() for out in outs]

    assert min(losses(5)) < 2.5
    assert max(losses(5)) > 2 * min(losses(5))
    assert max(losses(99)) < np.mean(losses(5))


def test_a_band_along_a_coarse_outline_is_unknown():
    alpha = np.zeros((100, 120), np.uint8)
    alpha[:, 60:] = 255
    out = without_outline(alpha)
    np.testing.assert_array_equal(out[:, 58:62], UNKNOWN)  # 2% of 100 pixels to either side
    np.testing.assert_array_equal(out[:, :58], 0)
    np.testing.assert_array_equal(out[:, 62:], 255)
    np.testing.assert_array_equal(without_outline(np.full((100, 120), 255, np.uint8)), 255)


@pytest.mark.parametrize("width", [128, 150, 200, 512, 1111])
def test_a_large_picture_is_shrunk_without_aliasing(width):
    # Stripes finer than the output can show must come out as their mean, not as a pattern.
    stripes = np.tile(np.uint8([0, 255]), width // 2)[None] * np.ones((width, 1), np.uint8)
    for fit in ["resize", "crop", "stretch"]:
        config = Augmentation(fit=fit, crop_scale=(0.99, 1))
        _, out = augment(cv2.merge([stripes] * 3), stripes, (64, 64), config, draws(1))
        # Farther in than a rotated corner: at a mirrored border two stripes are alike.
        np.testing.assert_allclose(out[16:-16, 16:-16], 127.5, atol=13)


@pytest.mark.parametrize("size", [(64, 48), (100, 90), (180, 120), (200, 170), (300, 260)])
def test_shrinking_is_about_that_of_pillow(size):
    photo, _ = random_pair(200, 170)
    photo = cv2.GaussianBlur(photo, (0, 0), 1.5)  # as detailed as a photo
    expected = Image.fromarray(photo).resize(size[::-1], Image.Resampling.BILINEAR)
    difference = np.abs(resize(photo, size).astype(int) - np.asarray(expected))
    assert difference.mean() < 1.5
    assert abs(difference[2:-2, 2:-2].max()) < 16


def test_the_same_seed_draws_the_same_and_another_seed_another():
    sample = random_pair(40, 40)
    first, again, other = (
        augment(*sample, (32, 32), Augmentation(), draws(3, number))[0] for number in (4, 4, 5)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).max() > 25


def test_warp_shifts_by_whole_pixels_exactly():
    sample = np.dstack(random_pair(10, 12))
    shift = np.array([[1, 0, 3], [0, 1, 2], [0, 0, 1.0]])
    np.testing.assert_array_equal(warp(sample, shift, (5, 6)), sample[2:7, 3:9])


def test_half_a_turn_is_both_flips():
    sample = np.dstack(random_pair(9, 14))
    np.testing.assert_array_equal(warp(sample, rotation(np.pi, 9, 14), (9, 14)), sample[::-1, ::-1])
