"""The Keras metrics against the same figures in numpy, in training, saving and distribution."""

import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from kmatting.scoring import metrics
from kmatting.training.keras_metrics import MAD, MSE, SAD

FIGURES = {SAD: metrics.sad, MSE: metrics.mse, MAD: metrics.mad}


def make_batch(size=5, shape=(24, 20), seed=0):
    """Alphas of 8-bit levels, so that the numpy figures see the same numbers."""
    levels = np.random.default_rng(seed).integers(0, 256, (2, size, *shape, 1))
    return levels.astype(np.uint8), (levels / 255).astype(np.float32)


@pytest.mark.parametrize("metric_class", FIGURES)
def test_is_the_mean_of_the_numpy_figure_over_images(metric_class):
    levels, (truth, prediction) = make_batch()
    expected = [FIGURES[metric_class](t[..., 0], p[..., 0]) for t, p in zip(*levels, strict=True)]
    metric = metric_class()
    assert metric.name == metric_class.__name__.lower()
    metric.update_state(truth[:3], prediction[:3])
    metric.update_state(truth[3:], prediction[3:])
    assert float(metric.result()) == pytest.approx(np.mean(expected), rel=1e-5)
    metric.reset_state()
    metric.update_state(truth, prediction, sample_weight=[1.0, 0.0, 2.0, 0.5, 0.0])
    assert float(metric.result()) == pytest.approx(
        np.average(expected, weights=[1, 0, 2, 0.5, 0]), rel=1e-5
    )


@pytest.mark.parametrize("metric_class", FIGURES)
def test_empty_metric_and_equal_alphas_give_0(metric_class):
    _, (truth, _) = make_batch()
    metric = metric_class()
    assert float(metric.result()) == 0
    metric.update_state(truth, truth)
    assert float(metric.result()) == 0
    metric.update_state(truth[:0], truth[:0])  # an empty share of a batch
    assert float(metric.result()) == 0


def test_by_hand():
    truth = np.zeros((2, 10, 10, 1), np.float32)
    prediction = truth.copy()
    prediction[0] = 0.5  # SAD 100 * 0.5 / 1000, MSE 0.25, MAD 0.5; the second image is perfect
    for metric, expected in ((SAD(), 0.025), (MSE(), 0.125), (MAD(), 0.25)):
        metric.update_state(truth, prediction)
        assert float(metric.result()) == pytest.approx(expected)


def test_unknown_pixels_count_as_right():
    truth = np.zeros((1, 10, 10, 1), np.float32)
    truth[:, :5] = -1
    prediction = np.full_like(truth, 0.5)
    for metric, expected in ((SAD(), 0.025), (MSE(), 0.125), (MAD(), 0.25)):  # half of it all
        metric.update_state(truth, prediction)
        assert float(metric.result()) == pytest.approx(expected)


@pytest.mark.parametrize("metric_class", FIGURES)
def test_computes_in_float32_under_mixed_precision(metric_class):
    truth = np.zeros((1, 512, 512, 1), np.float16)
    prediction = np.full_like(truth, 0.5)  # in float16 the sum, 131072, is infinite
    expected = {SAD: 131.072, MSE: 0.25, MAD: 0.5}[metric_class]
    keras.config.set_dtype_policy("mixed_float16")
    try:
        metric = metric_class()
        metric.update_state(truth, prediction)
        assert metric.dtype == "float32"
        assert float(metric.result()) == pytest.approx(expected, rel=1e-6)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("metric_class", FIGURES)
def test_is_saved_and_loaded_by_name(metric_class):
    metric = metric_class(name="val")
    saved = keras.saving.serialize_keras_object(metric)
    assert saved["registered_name"] == f"kmatting>{metric_class.__name__}"
    loaded = keras.saving.deserialize_keras_object(saved)
    assert type(loaded) is metric_class
    assert loaded.name == "val"


@pytest.mark.parametrize("shape", [(5, 24, 20), (5, 24, 21, 1), (1, 24, 20, 1), (5, 24, 20, 3)])
def test_other_shapes_are_refused_not_broadcast(shape):
    _, (truth, _) = make_batch()
    for metric_class in FIGURES:
        with pytest.raises(ValueError, match=r"same shape.*\(5, 24, 20, 1\) and"):
            metric_class().update_state(truth, np.zeros(shape, np.float32))


def per_image_loss(truth, prediction):
    return keras.ops.mean(keras.ops.abs(prediction - truth), axis=(1, 2, 3))


def test_in_fit_and_evaluate_of_a_size_free_model():
    image = keras.Input((None, None, 3))
    alpha = keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid")(image)
    model = keras.Model(image, alpha)
    model.compile("sgd", per_image_loss, weighted_metrics=[SAD(), MSE(), MAD()])
    images = np.random.default_rng(1).random((5, 16, 16, 3), np.float32)
    alphas = np.random.default_rng(2).random((5, 16, 16, 1), np.float32)
    weights = np.array([1, 1, 0, 3, 1], np.float32)
    history = model.fit(
        images,
        alphas,
        batch_size=2,
        epochs=2,
        validation_data=(images, alphas),
        verbose=0,
    )
    assert {"sad", "mse", "mad", "val_sad", "val_mse", "val_mad"} <= set(history.history)
    logs = model.evaluate(
        images, alphas, batch_size=2, sample_weight=weights, return_dict=True, verbose=0
    )
    per_image = np.abs(model.predict(images, verbose=0) - alphas).mean(axis=(1, 2, 3))
    assert logs["mad"] == pytest.approx(np.average(per_image, weights=weights), rel=1e-5)
    assert logs["sad"] == pytest.approx(logs["mad"] * 256 / 1000, rel=1e-5)


def test_under_two_replicas_that_do_not_divide_the_data():
    # In a process of its own: the logical devices must be made before TensorFlow starts.
    code = """
        import numpy as np, tensorflow as tf, keras
        from kmatting.training.keras_metrics import MAD, MSE, SAD

        (cpu,) = tf.config.list_physical_devices("CPU")
        halves = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, halves)
        images = np.random.default_rng(1).random((5, 16, 16, 3), np.float32)
        alphas = np.random.default_rng(2).random((5, 16, 16, 1), np.float32)
        with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
            image = keras.Input((16, 16, 3))
            alpha = keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid")(image)
            model = keras.Model(image, alpha)
            model.compile("sgd", "mae", metrics=[SAD(), MSE(), MAD()])
        # Batches of 4 and 1: one replica gets nothing of the last.
        logs = model.evaluate(images, alphas, batch_size=4, return_dict=True, verbose=0)
        difference = np.asarray(model(images)) - alphas
        expected = {
            "sad": np.abs(difference).sum((1, 2, 3)).mean() / 1000,
            "mse": np.square(difference).mean(),
            "mad": np.abs(difference).mean(),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(logs[name], value, rtol=1e-5)
        print("agreed")
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert "agreed" in result.stdout, result.stderr
