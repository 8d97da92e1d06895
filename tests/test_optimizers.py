import keras
import numpy as np
import tensorflow as tf

from kmatting.training.optimizer import Adam

SETTINGS = {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.999, "global_clipnorm": 1.0}


def descend(optimizer, steps=20):
    """Minimises a quartic, in a graph as in training; returns the path."""
    rng = np.random.default_rng(0)
    target = rng.normal(size=(5, 3)).astype("float32")
    variable = keras.Variable(rng.normal(size=(5, 3)).astype("float32"))
    optimizer.build([variable])

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((variable.value - target) ** 4)
        optimizer.apply([tape.gradient(loss, variable.value)], [variable])

    path = []
    for _ in range(steps):
        step()
        path.append(variable.numpy().copy())
    return np.stack(path)


def test_takes_the_same_path_as_keras():
    fused, plain = descend(Adam(**SETTINGS)), descend(keras.optimizers.Adam(**SETTINGS))
    np.testing.assert_allclose(fused, plain, atol=5e-6)  # rounding, over a way of 0.2
    assert np.abs(fused[-1] - fused[0]).max() > 0.05  # it went somewhere


def test_survives_serialization():
    optimizer = keras.optimizers.deserialize(keras.optimizers.serialize(Adam(**SETTINGS)))
    assert type(optimizer) is Adam
    assert optimizer.beta_1 == 0.5
