"""Batches on their way to Keras."""

import keras
import numpy as np
import pytest
from test_data_pipeline import build, write_pairs

from kmatting.errors import DataError
from kmatting.training.feeding import feed, own_errors, scale_on_device, to_floats


def l1(alpha, predicted):
    return keras.ops.mean(abs(alpha - predicted), axis=(1, 2, 3))


@pytest.fixture
def red_channel():
    """A network whose alpha is the red channel."""
    model = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Lambda(lambda x: x[..., :1])])
    model.compile(loss=l1, weighted_metrics=[l1])
    scale_on_device(model)
    return model


def test_keras_evaluates_to_the_mean_over_the_real_samples(tmp_path, red_channel):
    source = write_pairs(tmp_path, 10)
    data = build([source], validation=[source])
    loss, metric = red_channel.evaluate(feed(data.validation(), data), verbose=0)
    expected = np.mean([(35 + 2 * number) / 255 for number in range(10)])
    assert loss == pytest.approx(expected, rel=1e-5)
    assert metric == pytest.approx(expected, rel=1e-5)


def test_fit_validates_each_epoch_on_the_same_samples(tmp_path, red_channel):
    source = write_pairs(tmp_path, 10)
    data = build([source], validation=[source])
    history = red_channel.fit(
        feed(data.train(), data),
        validation_data=feed(data.validation(), data),
        steps_per_epoch=data.steps_per_epoch,
        validation_steps=data.validation_steps,
        epochs=3,
        verbose=0,
    ).history
    expected = np.mean([(35 + 2 * number) / 255 for number in range(10)])
    np.testing.assert_allclose(history["val_loss"], expected, rtol=1e-5)


def test_integers_become_floats_from_0_to_1_and_unknown_stays_unknown():
    image = np.array([[[[0, 51, 255]]]], np.uint8)
    alpha = np.array([[[[-1], [0], [102], [255]]]], np.int16)
    scaled, levels = to_floats((image, alpha))
    np.testing.assert_allclose(np.ravel(scaled), [0, 0.2, 1])
    np.testing.assert_allclose(np.ravel(levels), [-1, 0, 0.4, 1])


def test_floats_pass():
    batch = np.zeros((1, 2, 2, 3), np.float32), np.full((1, 2, 2, 1), -1, np.float32)
    assert to_floats(batch) is batch


def test_a_file_that_goes_bad_is_named_in_fit(tmp_path, red_channel):
    data = build([write_pairs(tmp_path, 4)])
    (tmp_path / "alpha" / "002.png").unlink()
    train = data.train()
    with pytest.raises(DataError, match=r"002\.png"), own_errors(train):
        red_channel.fit(feed(train, data), steps_per_epoch=1, verbose=0)


def test_other_errors_pass_unchanged(tmp_path):
    with pytest.raises(KeyError), own_errors(build([write_pairs(tmp_path, 4)]).train()):
        raise KeyError("another")
