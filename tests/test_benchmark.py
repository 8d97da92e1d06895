"""What the benchmark counts and prints; how long anything takes is not tested."""

import pickle
import time

import pytest
import tensorflow as tf

from kmatting import benchmark
from kmatting.measuring import data, machine, rows, training


def graph_of(function, *shapes):
    specs = [tf.TensorSpec(shape) for shape in shapes]
    return tf.function(function).get_concrete_function(*specs).graph


def test_operations_of_a_convolution_by_hand():
    def run(image, kernel):
        return tf.nn.conv2d(image, kernel, 2, "SAME")

    graph = graph_of(run, (2, 8, 6, 3), (5, 5, 3, 7))
    assert machine.operations(graph) == 2 * (2 * 4 * 3 * 7) * (5 * 5 * 3)


def test_operations_of_a_training_step_are_three_times_those_of_the_forward_pass():
    def run(image, kernel):
        return tf.nn.conv2d(image, kernel, 1, "SAME")

    def step(image, kernel):
        with tf.GradientTape() as tape:
            tape.watch([image, kernel])
            loss = tf.reduce_sum(run(image, kernel) ** 2)
        return tape.gradient(loss, [image, kernel])

    shapes = (2, 8, 6, 3), (3, 3, 3, 7)
    assert machine.operations(graph_of(step, *shapes)) == 3 * machine.operations(
        graph_of(run, *shapes)
    )


@pytest.mark.parametrize("transposed", [False, True])
def test_operations_of_a_matrix_product(transposed):
    def run(left, right):
        return tf.matmul(left, right, transpose_a=transposed)

    graph = graph_of(run, (5, 4) if transposed else (4, 5), (5, 6))
    assert machine.operations(graph) == 2 * 4 * 5 * 6


def test_unknown_shapes_are_refused():
    def run(image, kernel):
        return tf.nn.conv2d(image, kernel, 1, "SAME")

    graph = graph_of(run, (None, 8, 8, 3), (3, 3, 3, 7))
    with pytest.raises(ValueError, match="known shapes"):
        machine.operations(graph)


def test_reading_gives_a_row(monkeypatch):
    monkeypatch.setattr(data, "_SAMPLES", 8)
    monkeypatch.setattr(data, "_PHOTOS", 8)
    for kind, augmentation in data.pipelines():
        row = data.input_pipeline(kind, augmentation, 32)
        assert (row.group, row.includes) == ("data", augmentation)
        assert row.name.startswith(kind)
        assert row.milliseconds * row.images_per_second == pytest.approx(1000)
        assert row.megabytes > 50


def test_rows_stand_in_columns_whatever_is_missing():
    full = rows.Row("train", "model1", "all", 12.34, 81.0, 100.0, 0.5, 30.0, 900.0)
    part = rows.Row("data", "pairs", "all", 12.34, 81.0)
    assert rows.TITLES.index("includes") == len(rows.row_text(part)) - len("all")
    lines = [rows.row_text(row) for row in (full, part)]
    assert "50%" in lines[0]
    assert len(lines[0]) == len(lines[1])
    assert lines[0].endswith("  all")
    assert lines[0].index("81.00") == lines[1].index("81.00")


def test_the_median_leaves_the_first_calls_out(monkeypatch):
    seconds = iter([100.0] * machine.WARM_UP + [float(n) for n in (7, 6, 5, 4, 3, 2, 1)])
    clock = [0.0]

    def run():
        clock[0] += next(seconds)

    monkeypatch.setattr(machine.time, "perf_counter", lambda: clock[0])
    assert machine.median_seconds(run) == 4
    assert next(seconds, None) is None


def test_a_step_ends_when_the_device_has_finished(monkeypatch):
    """A callback is called while a GPU still works; reading the loss waits for it."""
    read = []

    class Loss(float):
        def __float__(self):
            read.append(time.perf_counter())
            return 1.0

    import keras

    def fit(self, data, callbacks, steps_per_epoch, **_):
        for step in range(steps_per_epoch):
            callbacks[0].on_train_batch_end(step, {"loss": Loss(1)})

    monkeypatch.setattr(keras.Model, "fit", fit)
    monkeypatch.setattr(training, "matrix_rate", lambda dtype: 1.0)
    training.training_step("efficientnet_lite0", "model1", 32, 1, "float32")
    assert len(read) == 1 + machine.WARM_UP + machine.REPEATS


def test_the_machines_rate_leaves_out_the_copy_of_the_product(monkeypatch):
    shapes = []

    def once(run):
        shapes.append(run().shape)
        return 0.5

    monkeypatch.setattr(machine, "_MATRIX", {"CPU": 8, "GPU": 8})
    monkeypatch.setattr(machine, "median_seconds", once)
    assert machine.matrix_rate(tf.float32) == 2 * 8**3 / 0.5
    assert shapes == [()]


def test_a_command_without_its_extra_says_so(monkeypatch, capsys):
    """The error comes from the process of a row; on its way it keeps the name of the package."""
    missing = ModuleNotFoundError("No module named 'pydantic'", name="pydantic")

    def alone(*_):
        raise pickle.loads(pickle.dumps(missing))

    monkeypatch.setattr(benchmark, "_alone", alone)
    assert benchmark.main(["--data"]) == 2
    assert capsys.readouterr().err == (
        'error: pydantic is not installed: pip install -e ".[train]"\n'
    )
