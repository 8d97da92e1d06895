import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.signal import correlate2d

from kmatting.layers import (
    BilinearUpsampling,
    CWise,
    FusedBatchNormalization,
    ReduceTo,
    ResizeLike,
    SWise,
)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def c_wise_by_the_paper(x, w0, w1):
    """CBAM, equation 2, written out for x (N, H, W, C)."""

    def mlp(descriptor):
        return np.maximum(descriptor @ w0, 0) @ w1

    attention = sigmoid(mlp(x.mean(axis=(1, 2))) + mlp(x.max(axis=(1, 2))))
    return x * attention[:, None, None, :]


def s_wise_by_the_paper(x, kernel):
    """CBAM, equation 3, written out for x (N, H, W, C) and kernel (K, K, 2, 1)."""
    attention = []
    for sample in x:
        pooled = (sample.mean(axis=-1), sample.max(axis=-1))
        logits = sum(
            correlate2d(plane, kernel[..., index, 0], mode="same")
            for index, plane in enumerate(pooled)
        )
        attention.append(sigmoid(logits))
    return x * np.stack(attention)[..., None]


@pytest.fixture
def features():
    return np.random.default_rng(1).normal(size=(2, 9, 13, 32)).astype("float32")


def test_c_wise_computes_the_formula_of_cbam(features):
    layer = CWise(ratio=16)
    result = layer(features)
    w0, w1 = (np.asarray(weight, "float64") for weight in layer.get_weights())
    assert w0.shape == (32, 2)
    expected = c_wise_by_the_paper(features.astype("float64"), w0, w1)
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_s_wise_computes_the_formula_of_cbam(features):
    layer = SWise()
    result = layer(features)
    (kernel,) = layer.get_weights()
    assert kernel.shape == (7, 7, 2, 1)
    expected = s_wise_by_the_paper(features.astype("float64"), kernel.astype("float64"))
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_c_wise_keeps_one_unit_for_few_channels():
    layer = CWise(ratio=16)
    layer.build((None, None, None, 3))
    assert layer.squeeze.kernel.shape == (3, 1)


@pytest.mark.parametrize("make", [CWise, SWise, FusedBatchNormalization, BilinearUpsampling])
def test_save_and_load_with_unknown_size(make, features, tmp_path):
    image = keras.Input((None, None, 32))
    model = keras.Model(image, make(name="layer")(image))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.get_layer("layer")) is make
    np.testing.assert_array_equal(loaded(features), model(features))


@pytest.mark.parametrize(
    ("layer", "key", "value"),
    [
        (CWise(ratio=4), "ratio", 4),
        (SWise(kernel_size=5), "kernel_size", 5),
        (BilinearUpsampling(factor=3), "factor", 3),
        (ReduceTo(size=48), "size", 48),
        (FusedBatchNormalization(momentum=0.9), "momentum", 0.9),
        (FusedBatchNormalization(epsilon=0.1), "epsilon", 0.1),
    ],
)
def test_config_holds_the_arguments(layer, key, value):
    assert getattr(type(layer).from_config(layer.get_config()), key) == value


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("make", [CWise, SWise, FusedBatchNormalization, BilinearUpsampling])
def test_mixed_precision_follows_float32(make, policy, features):
    exact = make()
    expected = np.asarray(exact(features))
    mixed = make(dtype=policy)
    result = mixed(features)
    mixed.set_weights(exact.get_weights())
    result = mixed(features)
    assert keras.backend.standardize_dtype(result.dtype) == policy.removeprefix("mixed_")
    assert all(weight.dtype == "float32" for weight in mixed.weights)
    np.testing.assert_allclose(np.asarray(result, "float32"), expected, atol=0.05, rtol=0.02)


def test_c_wise_average_does_not_overflow_float16():
    layer = CWise(dtype="mixed_float16")
    result = layer(np.full((1, 64, 64, 16), 100.0, "float16"))  # its sum is 409,600 a channel
    assert np.isfinite(np.asarray(result, "float32")).all()


@pytest.mark.parametrize("make", [CWise, SWise])
def test_wrong_input_is_named(make):
    with pytest.raises(ValueError, match=r"expected input of shape \(N, H, W, C\)"):
        make()(np.ones((2, 5), "float32"))


@pytest.mark.parametrize(
    "arguments", [{"ratio": 0}, {"kernel_size": 4}, {"factor": 0}, {"size": 40}]
)
def test_wrong_arguments_are_refused(arguments):
    make = {"ratio": CWise, "kernel_size": SWise, "factor": BilinearUpsampling, "size": ReduceTo}[
        next(iter(arguments))
    ]
    with pytest.raises(ValueError, match="Expected a"):
        make(**arguments)


class TestBatchNormalization:
    """Holds the fused operation against Keras's own, written-out batch norm."""

    @pytest.fixture
    def both(self, features):
        fused, plain = FusedBatchNormalization(), keras.layers.BatchNormalization()
        for layer in (fused, plain):
            layer.build(features.shape)
            rng = np.random.default_rng(2)
            layer.set_weights([rng.uniform(0.5, 2, 32) for _ in range(4)])
        return fused, plain

    @pytest.mark.parametrize("training", [False, True])
    def test_same_output(self, both, features, training):
        fused, plain = (layer(features, training=training) for layer in both)
        np.testing.assert_allclose(fused, plain, atol=2e-5)

    def test_same_moving_mean(self, both, features):
        for layer in both:
            layer(features, training=True)
        fused, plain = both
        np.testing.assert_allclose(fused.moving_mean, plain.moving_mean, rtol=1e-5)

    def test_moving_variance_is_unbiased(self, both, features):
        fused, _ = both
        before = fused.moving_variance.numpy()
        fused(features, training=True)
        batch = np.var(features, axis=(0, 1, 2), ddof=1)  # Ioffe and Szegedy 2015, algorithm 2
        expected = 0.99 * before + 0.01 * batch
        np.testing.assert_allclose(fused.moving_variance, expected, rtol=1e-5)

    def test_frozen_layer_uses_and_keeps_its_statistics(self, both, features):
        fused, plain = both
        fused.trainable = False
        before = fused.get_weights()
        np.testing.assert_allclose(
            fused(features, training=True), plain(features, training=False), atol=2e-5
        )
        for old, new in zip(before, fused.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("factor", [2, 3])
def test_upsampling_agrees_with_keras(features, factor):
    expected = keras.layers.UpSampling2D(factor, interpolation="bilinear")(features)
    np.testing.assert_allclose(BilinearUpsampling(factor)(features), expected, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(2, 3), (5, 9), (8, 10)])
def test_resize_like_agrees_with_keras_at_any_size(features, height, width):
    like = np.zeros((len(features), height, width, 1), "float32")
    resized = keras.ops.image.resize(features, (height, width), "bilinear")
    np.testing.assert_allclose(ResizeLike()(features, like), resized, atol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_resize_like_is_saved_and_loaded(features, policy, tmp_path):
    small, like = keras.Input((None, None, 32)), keras.Input((None, None, 5))
    resized = ResizeLike(dtype=policy)(small, like)
    assert resized.shape == (None, None, None, 32)
    model = keras.Model([small, like], resized)
    model.save(tmp_path / "model.keras")
    inputs = [features, np.zeros((len(features), 7, 11, 5), "float32")]
    result = keras.saving.load_model(tmp_path / "model.keras")(inputs)
    assert keras.backend.standardize_dtype(result.dtype) == policy.removeprefix("mixed_")
    np.testing.assert_array_equal(result, model(inputs))


class TestReduceTo:
    @pytest.mark.parametrize(
        ("sides", "reduced"),
        [
            ((64, 64), (32, 32)),
            ((64, 96), (32, 32)),  # 26 x 39 has the area of the square; 16 divides both sides
            ((128, 32), (64, 16)),
            ((32, 48), (32, 32)),
            ((16, 48), (16, 48)),  # smaller than the square
            ((16, 400), (16, 160)),
        ],
    )
    def test_known_and_unknown_sides_give_the_same(self, sides, reduced):
        images = np.random.default_rng(0).random((2, *sides, 3), "float32")
        layer = ReduceTo(32)
        known = layer(images)
        assert known.shape == (2, *reduced, 3)
        unknown = tf.function(layer, input_signature=[tf.TensorSpec((None, None, None, 3))])
        np.testing.assert_allclose(unknown(images), known, atol=1e-6)
        assert abs(np.mean(known) - images.mean()) < 0.02

    @pytest.mark.parametrize("block", [1, 2, 3])
    def test_a_pixel_is_the_mean_of_a_block(self, features, block):
        images = np.repeat(np.repeat(features, 2 * block, 1), 2 * block, 2)[:, : 16 * block]
        images = images[:, :, : 16 * block] + np.random.default_rng(0).random((16 * block, 1))
        images = images.astype("float32")
        blocks = images.reshape(len(images), 16, block, 16, block, -1)
        np.testing.assert_allclose(ReduceTo(16)(images), blocks.mean((2, 4)), atol=1e-5)

    def test_save_and_load_with_mixed_precision(self, tmp_path):
        image = keras.Input((None, None, 3))
        model = keras.Model(image, ReduceTo(16, dtype="mixed_bfloat16")(image))
        assert model.output.shape == (None, None, None, 3)
        model.save(tmp_path / "model.keras")
        images = np.random.default_rng(0).random((1, 48, 32, 3), "float32")
        result = keras.saving.load_model(tmp_path / "model.keras")(images)
        assert keras.backend.standardize_dtype(result.dtype) == "bfloat16"
        np.testing.assert_array_equal(result, model(images))
