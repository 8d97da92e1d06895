import keras
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from kmatting.config import LossConfig
from kmatting.training import loss_terms
from kmatting.training.loss_terms import cross_entropy, gradient, iou, l1, ssim
from kmatting.training.losses import LossTerm, MattingLoss

RECIPE = {"l1": 1.0, "ssim": 1.0}


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
    np.testing.assert_allclose(ssim(*alphas), expected, atol=2e-5)


def test_l1_is_the_mean_absolute_difference_of_each_image(alphas):
    true, predicted = alphas
    np.testing.assert_allclose(l1(*alphas), np.abs(true - predicted).mean((1, 2, 3)), rtol=1e-5)


def test_cross_entropy_is_the_mean_over_the_pixels_of_each_image(alphas):
    true, predicted = alphas
    lowest = np.float32(1e-7)
    p = predicted.clip(lowest, 1 - lowest).astype("float64")
    expected = -(true * np.log(p) + (1 - true) * np.log(1 - p)).mean((1, 2, 3))
    np.testing.assert_allclose(cross_entropy(*alphas), expected, rtol=1e-4)


def test_iou_is_that_of_the_areas_where_alphas_are_binary():
    true, predicted = np.zeros((2, 1, 20, 30, 1), "float32")
    true[0, 5:15, 5:15] = 1
    predicted[0, 5:15, 10:25] = 1
    assert float(iou(true, predicted)[0]) == pytest.approx(1 - 50 / 200)


def test_iou_agrees_with_numpy(alphas):
    true, predicted = alphas
    true[0, :20] = -1  # not known
    true[1] = 0.002  # hardly a subject
    t, p = np.where(true < 0, 0, true), np.where(true < 0, 0, predicted)
    expected = 1 - np.minimum(t, p).sum((1, 2, 3)) / np.maximum(t, p).sum((1, 2, 3))
    expected[1] = 0
    np.testing.assert_allclose(iou(true, predicted), expected, rtol=1e-5)


def test_gradient_agrees_with_numpy(alphas):
    true, predicted = alphas
    true[0, 4:9, 7] = -1  # not known
    difference = np.where(true < 0, np.nan, predicted - true)[..., 0]
    expected = sum(
        np.nan_to_num(abs(np.diff(difference, axis=axis))).mean((1, 2)) for axis in (1, 2)
    )
    np.testing.assert_allclose(gradient(true, predicted), expected, rtol=1e-5)


def test_gradient_does_not_see_a_constant_offset():
    true = np.linspace(0, 0.5, 16, dtype="float32").reshape(1, 4, 4, 1)
    assert float(gradient(true, true + 0.5)[0]) == pytest.approx(0, abs=1e-6)


def test_every_weight_of_the_config_has_its_term():
    for name in LossConfig.model_fields:
        assert getattr(loss_terms, name)(
            np.ones((2, 16, 16, 1)), np.ones((2, 16, 16, 1))
        ).shape == (2,)


def test_loss_is_the_weighted_sum_of_its_terms(alphas):
    weights = {"l1": 2, "ssim": 3, "cross_entropy": 4, "iou": 5, "gradient": 6}
    terms = {name: np.mean(getattr(loss_terms, name)(*alphas)) for name in weights}
    for used in (weights, {**weights, "ssim": 0}, {"gradient": 6}):
        expected = sum(weight * terms[name] for name, weight in used.items())
        np.testing.assert_allclose(MattingLoss(used)(*alphas), expected, rtol=1e-6)


def test_each_term_in_use_has_a_metric(alphas):
    true, predicted = alphas
    metrics = MattingLoss({"l1": 2, "ssim": 0, "cross_entropy": 4}).metrics()
    assert [metric.name for metric in metrics] == ["l1_loss", "cross_entropy_loss"]
    for metric, term in zip(metrics, (l1, cross_entropy), strict=True):
        metric.update_state(true[:2], predicted[:2])
        metric.update_state(true[2:], predicted[2:])
        assert float(metric.result()) == pytest.approx(float(np.mean(term(*alphas))), rel=1e-5)
        metric.reset_state()
        metric.update_state(true, predicted, sample_weight=[0.0, 1.0, 0.0])
        assert float(metric.result()) == pytest.approx(float(term(*alphas)[1]), rel=1e-5)


def test_equal_alphas_cost_exactly_nothing(alphas):
    for alpha in (*alphas, np.zeros((1, 16, 16, 1)), np.ones((1, 16, 16, 1))):
        assert float(MattingLoss(RECIPE)(alpha, alpha)) == 0.0


def test_wrong_everywhere_costs_most():
    ones, zeros = np.ones((1, 16, 16, 1)), np.zeros((1, 16, 16, 1))
    assert float(MattingLoss(RECIPE)(ones, zeros)) == pytest.approx(2, abs=1e-3)


def test_sample_weights_weigh_images(alphas):
    loss = MattingLoss(RECIPE)
    true, predicted = alphas
    expected = float(loss(true[:1], predicted[:1])) / 3  # Keras divides by all three
    weighted = loss(*alphas, sample_weight=np.array([1.0, 0.0, 0.0]))
    assert float(weighted) == pytest.approx(expected, rel=1e-5)


def test_computed_in_float32_for_half_precision_inputs(alphas):
    halves = [alpha.astype("float16") for alpha in alphas]
    loss = MattingLoss(RECIPE)(*halves)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    np.testing.assert_allclose(loss, MattingLoss(RECIPE)(*alphas), atol=1e-3)


def test_unknown_pixels_count_as_right(alphas):
    true, predicted = alphas
    unknown = true.copy()
    unknown[:, :20] = -1
    assert float(MattingLoss(RECIPE)(np.full_like(true, -1), predicted)) == 0.0
    known = np.abs(true - predicted)[:, 20:].sum((1, 2, 3)) / (40 * 56)
    np.testing.assert_allclose(l1(unknown, predicted), known, rtol=1e-5)
    elsewhere = predicted.copy()
    elsewhere[:, :20] = np.random.default_rng(1).random((3, 20, 56, 1))
    np.testing.assert_array_equal(ssim(unknown, predicted), ssim(unknown, elsewhere))


def test_survives_serialization(alphas):
    weights = {"l1": 0.5, "ssim": 2.0, "cross_entropy": 3.0, "iou": 4.0}
    loss = keras.losses.deserialize(keras.losses.serialize(MattingLoss(weights)))
    assert loss.weights == weights
    metric = keras.metrics.deserialize(keras.metrics.serialize(LossTerm("ssim")))
    assert (metric.name, metric.term) == ("ssim_loss", "ssim")
