import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

from kmatting.config import ScheduleConfig, TrainingConfig
from kmatting.training.optimizer import FusedAdam, make_optimizer

SETTINGS = {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.999}


def make_step(optimizer):
    """Returns a graph that minimises a quartic by a step, and its variable."""
    rng = np.random.default_rng(0)
    target = rng.normal(size=(5, 3)).astype("float32")
    variable = keras.Variable(rng.normal(size=(5, 3)).astype("float32"))
    optimizer.build([variable])

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((variable.value - target) ** 4)
        optimizer.apply([tape.gradient(loss, variable.value)], [variable])

    return step, variable


def descend(optimizer, steps=20):
    """Returns the path of the variable."""
    step, variable = make_step(optimizer)
    path = []
    for _ in range(steps):
        step()
        path.append(variable.numpy().copy())
    return np.stack(path)


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_takes_the_same_path_as_keras(clip_norm):
    fused = descend(FusedAdam(clip_norm=clip_norm, **SETTINGS))
    plain = descend(keras.optimizers.Adam(global_clipnorm=clip_norm, **SETTINGS))
    np.testing.assert_allclose(fused, plain, atol=5e-6)  # rounding, over a distance of 0.2
    assert np.abs(fused[-1] - fused[0]).max() > 0.05  # it moved


def test_after_a_restart_the_path_is_that_of_a_new_optimizer():
    optimizer = FusedAdam(**SETTINGS)
    step, variable = make_step(optimizer)
    start = variable.numpy().copy()
    for _ in range(50):
        step()
    variable.assign(start)
    optimizer.restart()
    step()
    restarted = variable.numpy().copy()
    assert optimizer.iterations.numpy() == 51  # the schedule of the rate goes on
    np.testing.assert_allclose(restarted, descend(FusedAdam(**SETTINGS), 1)[0], atol=1e-6)


def test_slowed_variables_learn_at_a_share_of_the_rate():
    def slowed(rate, share):
        optimizer = FusedAdam(**{**SETTINGS, "learning_rate": rate})
        step, variable = make_step(optimizer)
        optimizer.slow_down([variable], share)
        for _ in range(20):
            step()
        return variable.numpy()

    np.testing.assert_allclose(slowed(0.01, 0.25), slowed(0.0025, 1), atol=1e-6)
    assert np.abs(slowed(0.01, 0.25) - slowed(0.01, 1)).max() > 0.05


def test_keras_still_writes_out_its_update():
    """When this fails, Keras has a fused update: use keras.optimizers.Adam, and clip in `apply`."""
    nodes = {}
    for optimizer in (FusedAdam(**SETTINGS), keras.optimizers.Adam(**SETTINGS)):
        step, _ = make_step(optimizer)
        graph = step.get_concrete_function().graph.as_graph_def()
        nodes[type(optimizer)] = str(graph).count(' op: "')  # of functions in it, too
    assert nodes[keras.optimizers.Adam] > nodes[FusedAdam] + 10


def test_survives_serialization():
    optimizer = FusedAdam(clip_norm=2.0, **SETTINGS)
    optimizer = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(optimizer) is FusedAdam
    assert (optimizer.beta_1, optimizer.clip_norm) == (0.5, 2.0)


def test_settings_of_the_config_arrive():
    config = TrainingConfig(learning_rate=0.3, beta_1=0.2, beta_2=0.7, clip_norm=0.9)
    optimizer = make_optimizer(config, 10)
    assert optimizer.learning_rate.numpy() == np.float32(0.3)
    assert (optimizer.beta_1, optimizer.beta_2, optimizer.clip_norm) == (0.2, 0.7, 0.9)


def rates_of(schedule, epochs=4, steps_per_epoch=10):
    config = TrainingConfig(learning_rate=0.1, epochs=epochs, schedule=schedule)
    optimizer = make_optimizer(config, steps_per_epoch)
    rates = []
    for step in range(epochs * steps_per_epoch + 1):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    return np.array(rates)


@pytest.mark.parametrize("kind", ["constant", "cosine"])
def test_warm_up_rises_linearly_and_its_first_step_learns(kind):
    rates = rates_of(ScheduleConfig(kind=kind, warmup_epochs=0.5))
    np.testing.assert_allclose(rates[:6], [0.02, 0.036, 0.052, 0.068, 0.084, 0.1], rtol=1e-5)


def test_cosine_falls_to_its_final_share():
    rates = rates_of(ScheduleConfig(kind="cosine", final=0.05))
    assert rates[0] == pytest.approx(0.1)
    assert rates[20] == pytest.approx((0.1 + 0.005) / 2)
    assert rates[-1] == pytest.approx(0.005)
    assert (np.diff(rates) <= 0).all()


def test_constant_rate_stays_after_its_warm_up():
    np.testing.assert_allclose(rates_of(ScheduleConfig(warmup_epochs=0.01)), 0.1)
    np.testing.assert_allclose(rates_of(ScheduleConfig(warmup_epochs=1))[10:], 0.1)


def test_clips_the_norm_of_the_whole_gradient_on_two_replicas():
    """Subtracts the gradients, so that the step shows what is left of them."""
    code = """
        import keras, numpy as np, tensorflow as tf
        from kmatting.training.optimizer import FusedAdam

        class Gradients(FusedAdam):
            def update_step(self, gradient, variable, learning_rate):
                variable.assign_sub(gradient)

        (cpu,) = tf.config.list_physical_devices("CPU")
        halves = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, halves)
        x = np.array([[8, 1], [8, -1], [8, 2], [8, -2]], "float32") / 16
        for precision in ("float32", "mixed_float16"):
            keras.config.set_dtype_policy(precision)
            steps = []
            for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
                with tf.distribute.MirroredStrategy(devices).scope():
                    number = keras.Input((2,))
                    dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
                    model = keras.Model(number, dense(number))
                    model.compile(Gradients(clip_norm=0.01), "mse")
                data = tf.data.Dataset.from_tensors((x, np.ones((4, 1), "float32")))
                model.fit(data, verbose=0)
                steps.append(dense.kernel.numpy())
            norms = [float(np.linalg.norm(step)) for step in steps]
            np.testing.assert_allclose(norms, 0.01, rtol=1e-3, err_msg=precision)
            np.testing.assert_allclose(*steps, rtol=1e-3, atol=1e-6, err_msg=precision)
        print("agreed")
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert "agreed" in result.stdout, result.stderr
