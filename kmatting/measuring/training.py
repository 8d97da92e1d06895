"""Rows of the group `train`: a step of training."""

import statistics
import time
from typing import Any

import numpy as np

from kmatting.keras_setup import import_keras
from kmatting.measuring.machine import REPEATS, WARM_UP, matrix_rate, operations, peak_memory
from kmatting.measuring.rows import Row
from kmatting.quiet import quiet

__all__ = ["training_step"]


def training_step(
    encoder: str, name: str, size: int, batch: int, precision: str, recompute: bool = False
) -> Row:
    """Measures a training step on random images: loss, gradients, update.

    Args:
        encoder: as in a config.
        name: `model1` or `model2`.
        size: side of the images.
        batch: images a step.
        precision: Keras dtype policy.
        recompute: as in a config.

    Returns:
        The row; its operations are those of forward and backward pass.
    """
    start = time.perf_counter()
    with quiet():
        import_keras(tensorflow=True)
        import keras
        import tensorflow as tf

        from kmatting import models
        from kmatting.config import TrainingConfig
        from kmatting.training.compiling import compile_model
        from kmatting.training.optimizer import make_optimizer
    imported = time.perf_counter() - start
    dtype = tf.bfloat16 if precision == "mixed_bfloat16" else tf.float32
    before = matrix_rate(dtype)

    start = time.perf_counter()
    keras.config.set_dtype_policy(precision)
    model = getattr(models, name)(encoder, encoder_weights="none")
    if recompute:
        models.recompute_dense_blocks(model)
    config = TrainingConfig(batch_size=batch)
    compile_model(model, make_optimizer(config, 1), config)
    images = tf.random.uniform((batch, size, size, 3))
    alphas = tf.random.uniform((batch, size, size, 1))
    data = tf.data.Dataset.from_tensors((images, alphas)).repeat()
    ends: list[float] = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
            float(logs["loss"])  # waits for the device
            ends.append(time.perf_counter())

    steps = 1 + WARM_UP + REPEATS
    with quiet():
        model.fit(data, steps_per_epoch=steps, callbacks=[Clock()], verbose=0, shuffle=False)
    megabytes = peak_memory()
    seconds = statistics.median(np.diff(ends)[WARM_UP:])
    after = matrix_rate(dtype)

    @tf.function
    def gradients(images: Any, alphas: Any) -> Any:
        with tf.GradientTape() as tape:
            cost = model.loss(alphas, model(images, training=True))
        return tape.gradient(cost, model.trainable_variables)

    count = operations(gradients.get_concrete_function(images, alphas).graph)
    return Row(
        "train",
        f"{name} {encoder} {size} px, batch {batch}, {precision.removeprefix('mixed_')}"
        + (", recomputed" if recompute else ""),
        "forward, backward, update",
        milliseconds=1000 * seconds,
        images_per_second=batch / seconds,
        gflops=count / seconds / 1e9,
        share=count / seconds / ((before + after) / 2),
        first_seconds=imported + ends[0] - start,
        megabytes=megabytes,
    )
