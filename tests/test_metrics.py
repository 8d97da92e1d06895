"""The evaluation figures against hand computation and a second, slow implementation."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from kmatting.images.regions import largest_component
from kmatting.scoring import metrics
from kmatting.scoring.thin import thin_parts

FIGURES = tuple(metric.name for metric in metrics.METRICS)

ERRORS = (
    metrics.sad,
    metrics.mse,
    metrics.mad,
    metrics.gradient_error,
    metrics.connectivity_error,
)
FUNCTIONS = (*ERRORS, metrics.iou, metrics.thin_lost)  # in the order of FIGURES


def levels(*rows):
    return np.array(rows, np.uint8)


# A second implementation, straight from the formulas: floats, loops and scipy.


def reference_gradient_error(truth, prediction, region=None):
    sigma, epsilon = 1.4, 1e-2
    half = int(np.ceil(sigma * np.sqrt(-2 * np.log(np.sqrt(2 * np.pi) * sigma * epsilon))))
    assert half == 4
    kernel = np.empty((2 * half + 1, 2 * half + 1))
    for i in range(-half, half + 1):
        for j in range(-half, half + 1):
            gauss_i = np.exp(-(i**2) / (2 * sigma**2)) / (sigma * np.sqrt(2 * np.pi))
            gauss_j = np.exp(-(j**2) / (2 * sigma**2)) / (sigma * np.sqrt(2 * np.pi))
            kernel[i + half, j + half] = gauss_i * (-j * gauss_j / sigma**2)
    kernel /= np.sqrt((kernel**2).sum())
    magnitudes = []
    for matte in (truth, prediction):
        alpha = matte / 255
        x = ndimage.convolve(alpha, kernel, mode="nearest")
        y = ndimage.convolve(alpha, kernel.T, mode="nearest")
        magnitudes.append(np.sqrt(x**2 + y**2))
    errors = (magnitudes[0] - magnitudes[1]) ** 2
    return (errors if region is None else errors[region]).sum() / 1000


def reference_largest_component(filled):
    # Of the transposed picture, so that scipy numbers components in column order.
    labels, count = ndimage.label(filled.T, structure=[[0, 1, 0], [1, 1, 1], [0, 1, 0]])
    if not count:
        return np.zeros_like(filled)
    sizes = [(labels == number).sum() for number in range(1, count + 1)]
    return (labels == 1 + int(np.argmax(sizes))).T


def reference_connectivity_error(truth, prediction, region=None):
    truth, prediction = truth / 255, prediction / 255
    thresholds = np.arange(11) / 10
    level = np.full(truth.shape, -1.0)
    for k in range(1, 11):
        source = reference_largest_component(
            (truth >= thresholds[k]) & (prediction >= thresholds[k])
        )
        level[(level == -1) & ~source] = thresholds[k - 1]
    level[level == -1] = 1
    phi = []
    for alpha in (truth, prediction):
        above = alpha - level
        phi.append(1 - above * (above >= 0.15))
    errors = np.abs(phi[0] - phi[1])
    return (errors if region is None else errors[region]).sum() / 1000


def make_pair(seed, shape=(70, 90)):
    """A soft blob with holes and islands, and a noisy, blurred, broken copy of it."""
    random = np.random.default_rng(seed)
    truth = ndimage.gaussian_filter(random.normal(size=shape), 5)
    truth = np.clip(truth / np.abs(truth).max() * 3 + 0.3, 0, 1)
    noise = ndimage.gaussian_filter(random.normal(size=shape), 2)
    prediction = np.clip(ndimage.gaussian_filter(truth, 1) + noise, 0, 1)
    return np.rint(truth * 255).astype(np.uint8), np.rint(prediction * 255).astype(np.uint8)


mattes = hnp.arrays(
    np.uint8,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
    # Levels at and beside thresholds make more cases of connectivity than uniform noise.
    elements=st.sampled_from([0, 25, 26, 38, 39, 51, 102, 127, 128, 153, 204, 229, 230, 254, 255]),
)


@st.composite
def pairs(draw):
    truth = draw(mattes)
    return truth, draw(hnp.arrays(np.uint8, truth.shape, elements=st.integers(0, 255)))


# Hand computation.


def test_differences_by_hand():
    truth = levels([0, 255], [51, 102])
    prediction = levels([255, 255], [0, 102])
    # Differences 1, 0, 0.2, 0: sum 1.2, squares 1 + 0.04.
    assert metrics.sad(truth, prediction) == pytest.approx(1.2 / 1000, rel=1e-12)
    assert metrics.mse(truth, prediction) == pytest.approx(1.04 / 4, rel=1e-12)
    assert metrics.mad(truth, prediction) == pytest.approx(1.2 / 4, rel=1e-12)
    # Opaque: one pixel in the truth, two in the prediction, one in both.
    assert metrics.iou(truth, prediction) == 0.5
    lower = np.array([[False, False], [True, True]])
    assert metrics.sad(truth, prediction, lower) == pytest.approx(0.2 / 1000, rel=1e-12)
    assert metrics.mse(truth, prediction, lower) == pytest.approx(0.04 / 2, rel=1e-12)
    assert metrics.mad(truth, prediction, lower) == pytest.approx(0.2 / 2, rel=1e-12)


def test_iou_is_cut_at_one_half_and_1_when_both_are_empty():
    assert metrics.iou(levels([128, 127, 0]), levels([255, 255, 0])) == 0.5
    assert metrics.iou(levels([0, 0]), levels([0, 127])) == 1
    assert metrics.iou(levels([255, 0]), levels([0, 255])) == 0


def test_thin_lost_by_hand():
    truth = np.zeros((200, 100), np.uint8)
    truth[20:60, 20:60] = 255  # a seat
    truth[60:120, 24:28] = truth[60:120, 52:56] = (
        255  # its legs, 4 pixels wide, under 2 % of 200 and 1
    )
    prediction = truth.copy()
    assert metrics.thin_lost(truth, prediction) == 0
    prediction[60:120, 24:28] = 127
    assert metrics.thin_lost(truth, prediction) == 0.5
    prediction[80:120, 24:28] = 128
    assert metrics.thin_lost(truth, prediction) == pytest.approx(20 / 120)
    left = np.zeros(truth.shape, np.bool_)
    left[:, :40] = True
    assert metrics.thin_lost(truth, prediction, left) == pytest.approx(20 / 60)
    prediction[:] = 255  # what is taken in addition does not count
    assert metrics.thin_lost(truth, prediction) == 0
    truth[60:120] = 0
    assert np.isnan(metrics.thin_lost(truth, prediction))


def test_pointed_corners_are_thin():
    down, across = np.mgrid[:512, :512] - 255.5
    assert thin_parts(abs(down) + abs(across) <= 150).sum() == 4 * 5 * 6
    assert not thin_parts(np.maximum(abs(down), abs(across)) <= 150).any()
    assert not thin_parts(down**2 + across**2 <= 150**2).any()


def test_diagonal_parts_are_thin_up_to_a_greater_width():
    down, across = np.mgrid[:512, :512] - 255.5
    middle = np.hypot(down, across) < 100
    for width, is_thin in ((13.5, True), (15, False)):  # 2.6 % and 2.9 % of the long side
        bar = abs(down - across) < width / 2 * np.sqrt(2)
        assert (thin_parts(bar) & middle).any() == is_thin


def test_thin_parts_go_on_beyond_the_border():
    truth = np.zeros((100, 100), np.uint8)
    truth[:, :2] = 255
    assert np.isnan(metrics.thin_lost(truth, np.zeros_like(truth)))
    truth = np.roll(truth, 1, axis=1)
    assert metrics.thin_lost(truth, np.zeros_like(truth)) == 1


@settings(deadline=None, max_examples=60)
@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 90), st.integers(1, 190))))
def test_thin_parts_agree_with_an_opening_by_scipy(opaque):
    reach = max(1, round(max(opaque.shape) / 100))
    square = np.ones((2 * reach + 1,) * 2)
    core = ndimage.binary_erosion(opaque, square, border_value=1)
    opened = ndimage.binary_dilation(core, square)
    np.testing.assert_array_equal(thin_parts(opaque), opaque & ~opened)


def test_gradient_error_of_a_step_by_hand():
    # A vertical step, truth only. exp(-k^2 / 3.92) for k = 0..4: 1, .774837, .360448, .100669,
    # .016880; the sum over -4..4 is 3.505668, the root of the sum of squares 1.575255, so that a
    # constant passes the normalised Gaussian with gain 2.225460. Times k: .774837, .720896,
    # .302007, .067520, with norm 1.559378 over both sides. At a pixel the derivative adds up to
    # the part of it beyond the step: from k = 1, 2, 3, 4 on 1.865259, 1.090422, .369526, .067520;
    # times 2.225460 / 1.559378: 2.661997, 1.556191, .527368, .096360. The squares 7.086226,
    # 2.421730, .278117, .009285 add up to 9.795358, on each side of the step: 19.590716 a row.
    truth = np.zeros((7, 30), np.uint8)
    truth[:, 15:] = 255
    empty = np.zeros_like(truth)
    assert metrics.gradient_error(truth, empty) == pytest.approx(7 * 19.590716 / 1000, rel=1e-5)
    assert metrics.gradient_error(truth.T, empty.T) == pytest.approx(7 * 19.590716 / 1000, rel=1e-5)
    # Half as strong a step: half the gradient, a quarter of the error. No min-max stretching.
    faint = np.where(truth == 255, 102, 0).astype(np.uint8)
    assert metrics.gradient_error(truth, faint) == pytest.approx(
        0.6**2 * 7 * 19.590716 / 1000, rel=1e-5
    )


def test_gradient_error_sees_no_edge_at_the_border():
    full = np.full((20, 20), 255, np.uint8)
    # Only rounding is left of a constant's gradient.
    assert metrics.gradient_error(full, np.zeros_like(full)) < 1e-25


def test_connectivity_of_a_broken_row_by_hand():
    # The first two pixels are the source at each threshold; the others are connected at none.
    # Disconnected in the truth: 0 0 1 1 1; in the prediction: 0 0 0 1 0.
    error = metrics.connectivity_error(
        levels([255, 255, 255, 255, 255]), levels([255, 255, 0, 255, 0])
    )
    assert error == 2 / 1000


@pytest.mark.parametrize(
    ("level", "tenths"), [(51, 2), (102, 4), (153, 6), (204, 8), (26, 1), (128, 5), (254, 9)]
)
def test_thresholds_that_8_bits_meet_exactly(level, tenths):
    # The last pixel leaves the source after tenths/10. In the truth 1 - tenths/10 of it is
    # disconnected (if 0.15 or more), in the prediction level/255 - tenths/10 < 0.15: forgiven.
    expected = 1 - tenths / 10 if tenths < 9 else 0
    error = metrics.connectivity_error(levels([255, 255, 255]), levels([255, 255, level]))
    assert error == pytest.approx(expected / 1000, rel=1e-12, abs=0)


def test_connectivity_forgives_less_than_theta():
    # 38/255 = 0.149 and 39/255 = 0.153 in a truth where the prediction has nothing.
    assert metrics.connectivity_error(levels([255, 38]), levels([255, 0])) == 0
    assert metrics.connectivity_error(levels([255, 39]), levels([255, 0])) == pytest.approx(
        39 / 255 / 1000, rel=1e-12
    )


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (40, 30)])
def test_an_empty_prediction_costs_the_whole_foreground(shape):
    full = np.full(shape, 255, np.uint8)
    empty = np.zeros(shape, np.uint8)
    assert metrics.connectivity_error(full, empty) == full.size / 1000
    assert metrics.connectivity_error(empty, full) == full.size / 1000
    soft = np.full(shape, 153, np.uint8)
    assert metrics.connectivity_error(soft, empty) == pytest.approx(0.6 * soft.size / 1000)


def test_corners_do_not_connect():
    # The pixel with 230/255 = 0.902 touches the source by a corner only, so 1 and 0.902 of it are
    # disconnected. Connected, it would leave after 0.9, and both remainders be forgiven.
    truth = np.full((3, 3), 255, np.uint8)
    prediction = levels([255, 255, 0], [255, 255, 0], [0, 0, 230])
    by_corner = metrics.connectivity_error(truth, prediction, prediction == 230)
    assert by_corner == pytest.approx((1 - 230 / 255) / 1000, rel=1e-12)
    prediction[2, 1] = 255
    assert metrics.connectivity_error(truth, prediction, prediction == 230) == 0


def test_of_equal_components_the_first_in_column_order_is_the_source():
    truth = np.full((2, 2), 255, np.uint8)
    # Two single pixels: the lower left one comes first by columns, the upper right by rows.
    prediction = levels([0, 230], [230, 0])
    assert metrics.connectivity_error(truth, prediction, levels([0, 0], [1, 0]) > 0) == 0
    assert metrics.connectivity_error(truth, prediction, levels([0, 1], [0, 0]) > 0) > 0


# Against the second implementation.


@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_the_second_implementation(seed):
    truth, prediction = make_pair(seed)
    region = metrics.unknown_band(truth, 3)
    assert 0.05 < region.mean() < 0.95
    for chosen in (None, region):
        assert metrics.gradient_error(truth, prediction, chosen) == pytest.approx(
            reference_gradient_error(truth, prediction, chosen), rel=1e-6
        )
        assert metrics.connectivity_error(truth, prediction, chosen) == pytest.approx(
            reference_connectivity_error(truth, prediction, chosen), rel=1e-9
        )


def test_tiles_of_the_gradient_leave_no_seams():
    truth, prediction = make_pair(7, shape=(300, 270))
    prediction[:150] = truth[:150]  # tiles that are skipped, and one that is half equal
    assert metrics.gradient_error(truth, prediction) == pytest.approx(
        reference_gradient_error(truth, prediction), rel=1e-6
    )


@settings(deadline=None, max_examples=150)
@given(pairs())
def test_connectivity_agrees_on_any_mattes(pair):
    assert metrics.connectivity_error(*pair) == pytest.approx(
        reference_connectivity_error(*pair), rel=1e-9, abs=1e-12
    )


@settings(deadline=None, max_examples=50)
@given(pairs())
def test_gradient_agrees_on_any_mattes(pair):
    assert metrics.gradient_error(*pair) == pytest.approx(
        reference_gradient_error(*pair), rel=1e-5, abs=1e-12
    )


@settings(deadline=None, max_examples=150)
@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14)))
def test_largest_component_agrees_on_any_picture(filled):
    np.testing.assert_array_equal(largest_component(filled), reference_largest_component(filled))


def test_largest_component_follows_a_spiral_and_a_comb():
    spiral = np.zeros((61, 61), np.bool_)
    row, column, step = 0, 0, (0, 1)
    spiral[0, 0] = True
    for length in [60, 60, 60, *(n for n in range(58, 1, -2) for _ in range(2))]:
        for _ in range(length):
            row, column = row + step[0], column + step[1]
            spiral[row, column] = True
        step = (step[1], -step[0])
    comb = np.zeros((50, 101), np.bool_)
    comb[:, ::2] = True
    comb[-1] = True
    for picture in (spiral, comb):
        np.testing.assert_array_equal(largest_component(picture), picture)


# Properties.


@settings(deadline=None, max_examples=60)
@given(mattes)
def test_equal_mattes_score_exactly_0(matte):
    for error in ERRORS:
        assert error(matte, matte.copy()) == 0
    assert metrics.iou(matte, matte.copy()) == 1


def test_dtssd_by_hand():
    before, now = levels([0, 0, 0, 0]), levels([0, 255, 255, 0])  # the truth moves
    prediction = levels([0, 255, 0, 255])  # of the frame before too: it stays
    # errors of the change: 0, -1, -1, 0
    found = metrics.dtssd(now, prediction, before, prediction)
    assert found == pytest.approx(100 * np.sqrt(2 / 4), abs=1e-9)
    part = np.array([[True, True, True, False]])
    found = metrics.dtssd(now, prediction, before, prediction, part)
    assert found == pytest.approx(100 * np.sqrt(2 / 3), abs=1e-9)
    assert metrics.dtssd(now, now, before, before) == 0
    assert metrics.dtssd(now, prediction, now, prediction) == 0  # wrong, but it does not flicker


@pytest.mark.parametrize("seed", range(3))
def test_dtssd_agrees_with_the_formula_of_robust_video_matting(seed):
    rng = np.random.default_rng(seed)
    levels_of = rng.integers(0, 256, (4, 9, 13), dtype=np.uint8)
    truth, prediction, truth_before, prediction_before = levels_of
    alphas = (prediction / 255, prediction_before / 255, truth / 255, truth_before / 255)
    total = 0.0
    for p, q, t, u in zip(*(each.ravel().tolist() for each in alphas), strict=True):
        total += ((p - q) - (t - u)) ** 2
    expected = (total / (9 * 13)) ** 0.5 * 1e2
    found = metrics.dtssd(truth, prediction, truth_before, prediction_before)
    assert found == pytest.approx(expected, rel=1e-12)


def test_dtssd_refuses_frames_of_two_sizes():
    small, large = np.zeros((2, 3), np.uint8), np.zeros((3, 3), np.uint8)
    with pytest.raises(
        ValueError, match=r"two frames of one shape, received \(2, 3\) and \(3, 3\)"
    ):
        metrics.dtssd(small, small, large, large)


@settings(deadline=None, max_examples=60)
@given(pairs())
def test_errors_are_symmetric_and_inputs_stay_as_they_are(pair):
    truth, prediction = pair
    before = truth.copy(), prediction.copy()
    truth.flags.writeable = prediction.flags.writeable = False
    for figure in (*ERRORS, metrics.iou):
        assert figure(truth, prediction) == figure(prediction, truth) >= 0
    np.testing.assert_array_equal(truth, before[0])
    np.testing.assert_array_equal(prediction, before[1])


@settings(deadline=None, max_examples=60)
@given(pairs())
def test_score_gives_what_the_single_functions_give(pair):
    truth, prediction = pair
    unknown = metrics.unknown_band(truth, 1)
    scores = metrics.score(truth, prediction, unknown)
    assert list(scores) == [
        *FIGURES,
        *(f"{figure}_unknown" for figure in FIGURES),
    ]
    for figure, function in zip(FIGURES, FUNCTIONS, strict=True):
        np.testing.assert_equal(scores[figure], function(truth, prediction))  # NaN equals NaN
        if unknown.any():
            np.testing.assert_equal(
                scores[f"{figure}_unknown"], function(truth, prediction, unknown)
            )
        else:
            assert np.isnan(scores[f"{figure}_unknown"])
    assert list(metrics.score(truth, prediction)) == list(FIGURES)


def test_floats_are_rounded_to_8_bits_and_left_alone():
    truth, prediction = make_pair(3)
    for dtype in (np.float32, np.float64):
        floats = (prediction / 255).astype(dtype) + dtype(0.4 / 255) * (prediction < 255)
        before = floats.copy()
        assert metrics.score(truth, floats) == metrics.score(truth, prediction)
        np.testing.assert_array_equal(floats, before)
    assert metrics.to_levels(np.array([[0.0, 0.6, 1.0, 0.0019, 0.0020]])).tolist() == [
        [0, 153, 255, 0, 1]
    ]


def test_views_of_any_layout_score_the_same():
    truth, prediction = make_pair(4)
    expected = metrics.score(truth, prediction)
    backwards = truth[::-1].copy()[::-1], np.asfortranarray(prediction)
    assert metrics.score(*backwards) == expected


# The unknown band.


@settings(deadline=None, max_examples=80)
@given(mattes, st.integers(0, 14))
def test_band_is_what_erosion_of_both_sides_leaves(matte, width):
    square = np.ones((2 * width + 1, 2 * width + 1), np.bool_)
    foreground = ndimage.binary_erosion(matte == 255, square, border_value=True)
    background = ndimage.binary_erosion(matte == 0, square, border_value=True)
    np.testing.assert_array_equal(metrics.unknown_band(matte, width), ~foreground & ~background)


def test_band_of_a_border_and_of_a_soft_pixel():
    border = np.repeat(levels([0] * 6 + [255] * 6), 3, axis=0)
    assert metrics.unknown_band(border, 2)[0].tolist() == [False] * 4 + [True] * 4 + [False] * 4
    assert not metrics.unknown_band(border, 0).any()
    soft = levels([0, 0, 0, 7, 0, 0, 0])
    assert metrics.unknown_band(soft, 1)[0].tolist() == [False] * 2 + [True] * 3 + [False] * 2
    with pytest.raises(ValueError, match="-1"):
        metrics.unknown_band(soft, -1)


def test_unknown_of_trimap():
    trimap = levels([0, 128, 255])
    assert metrics.unknown_of_trimap(trimap).tolist() == [[False, True, False]]
    assert metrics.unknown_of_trimap(levels([0, 127, 255])).tolist() == [[False, True, False]]
    assert not metrics.unknown_of_trimap(levels([0, 255])).any()
    with pytest.raises(ValueError, match=r"3 grey levels between 1 and 254.*PNG"):
        metrics.unknown_of_trimap(levels([0, 1, 128, 254]))


# What is refused.


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), r"\(2, 3\) and \(3, 2\)"),
        (np.zeros((2, 3, 1)), np.zeros((2, 3, 1)), r"\(2, 3, 1\)"),
        (np.zeros((0, 3)), np.zeros((0, 3)), r"\(0, 3\)"),
        (np.zeros((2, 3), np.int32), np.zeros((2, 3), np.uint8), "int32"),
        (np.full((2, 3), 255.0), np.zeros((2, 3)), r"\[255.0, 255.0\]"),
        (np.zeros((2, 3)), np.full((2, 3), np.nan), "nan"),
        (np.zeros((2, 3)), np.full((2, 3), -0.1), r"-0.1"),
    ],
)
def test_wrong_input_is_refused_with_what_was_received(truth, prediction, message):
    for function in (*FUNCTIONS, metrics.score):
        with pytest.raises(ValueError, match=message):
            function(truth, prediction)


@pytest.mark.parametrize("region", [np.ones((2, 2), np.bool_), np.ones((2, 3), np.uint8)])
def test_wrong_region_is_refused(region):
    matte = np.zeros((2, 3), np.uint8)
    for function in (*FUNCTIONS, metrics.score):
        with pytest.raises(ValueError, match="region of dtype bool"):
            function(matte, matte, region)


def test_tensorflow_is_not_imported():
    code = (
        "import sys, numpy as np; from kmatting.scoring import metrics as m; "
        "m.score(np.zeros((4, 4)), np.ones((4, 4)))"
        "; print(sorted({'tensorflow', 'keras', 'scipy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert result.stdout.decode().strip() == "[]"
