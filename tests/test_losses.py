import keras
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from kmatting.training.losses import L1SSIMLoss, cross_entropy, l1, ssim_loss


@pytest.fixture
def alphas():
    rng = np.random.default_rng(0)
    true = rng.random((3, 40, 56, 1)).astype("float32")
    return true, np.clip(true + rng.normal(0, 0.2, true.shape), 0, 1).astype("float32")


def ssim_by_scikit_image(true, predicted):
    """SSIM of Wang et al. over all whole 11x11 windows."""
    _, ssim = structural_similarity(
        true[..., 0].astype("float64"),
        predicted[..., 0].astype("float64"),
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    return ssim[5:-5, 5:-5].mean()


def test_ssim_agrees_with_scikit_image(alphas):
    expected = [1 - ssim_by_scikit_image(*pair) for pair in zip(*alphas, strict=True)]
    np.testing.assert_allclose(ssim_loss(*alphas), expected, atol=2e-5)


def test_l1_is_the_mean_absolute_difference_of_each_image(alphas):
    true, predicted = alphas
    np.testing.assert_allclose(l1(*alphas), np.abs(true - predicted).mean((1, 2, 3)), rtol=1e-5)


def test_cross_entropy_is_the_mean_over_the_pixels_of_each_image(alphas):
    true, predicted = alphas
    lowest = np.float32(1e-7)
    p = predicted.clip(lowest, 1 - lowest).astype("float64")
    expected = -(true * np.log(p) + (1 - true) * np.log(1 - p)).mean((1, 2, 3))
    np.testing.assert_allclose(cross_entropy(*alphas), expected, rtol=1e-4)


def test_loss_is_the_weighted_sum_of_its_parts(alphas):
    expected = np.mean(2 * l1(*alphas) + 3 * ssim_loss(*alphas))
    np.testing.assert_allclose(L1SSIMLoss(2, 3)(*alphas), expected, rtol=1e-6)
    expected += 4 * np.mean(cross_entropy(*alphas))
    np.testing.assert_allclose(L1SSIMLoss(2, 3, 4)(*alphas), expected, rtol=1e-6)


def test_equal_alphas_cost_exactly_nothing(alphas):
    for alpha in (*alphas, np.zeros((1, 16, 16, 1)), np.ones((1, 16, 16, 1))):
        assert float(L1SSIMLoss()(alpha, alpha)) == 0.0


def test_wrong_everywhere_costs_most():
    ones, zeros = np.ones((1, 16, 16, 1)), np.zeros((1, 16, 16, 1))
    assert float(L1SSIMLoss()(ones, zeros)) == pytest.approx(2, abs=1e-3)


def test_sample_weights_weigh_images(alphas):
    loss = L1SSIMLoss()
    true, predicted = alphas
    expected = float(loss(true[:1], predicted[:1])) / 3  # Keras divides by all three
    weighted = loss(*alphas, sample_weight=np.array([1.0, 0.0, 0.0]))
    assert float(weighted) == pytest.approx(expected, rel=1e-5)


def test_computed_in_float32_for_half_precision_inputs(alphas):
    halves = [alpha.astype("float16") for alpha in alphas]
    loss = L1SSIMLoss()(*halves)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    np.testing.assert_allclose(loss, L1SSIMLoss()(*alphas), atol=1e-3)


def test_unknown_pixels_count_as_right(alphas):
    true, predicted = alphas
    unknown = true.copy()
    unknown[:, :20] = -1
    assert float(L1SSIMLoss()(np.full_like(true, -1), predicted)) == 0.0
    known = np.abs(true - predicted)[:, 20:].sum((1, 2, 3)) / (40 * 56)
    np.testing.assert_allclose(l1(unknown, predicted), known, rtol=1e-5)
    elsewhere = predicted.copy()
    elsewhere[:, :20] = np.random.default_rng(1).random((3, 20, 56, 1))
    np.testing.assert_array_equal(ssim_loss(unknown, predicted), ssim_loss(unknown, elsewhere))


def test_survives_serialization():
    loss = keras.losses.deserialize(keras.losses.serialize(L1SSIMLoss(0.5, 2.0)))
    assert (loss.l1_weight, loss.ssim_weight) == (0.5, 2.0)
