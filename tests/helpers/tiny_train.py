"""Runs `kmatting.train` with a network small enough for tests, in a process of its own.

A process can be killed, and logical devices can only be made before TensorFlow starts. With the
environment variable TINY_WAITS it waits behind each epoch, so that a kill comes before the end.
TINY_RAISES is the name of an exception to raise in the second step.
"""

import os
import sys
import time

import keras
import tensorflow as tf

import kmatting.models
from kmatting.layers import FusedBatchNormalization, SWise
from kmatting.train import main
from kmatting.training import callbacks


def build_tiny(config):
    """Builds a network with the layers that training looks for, in place of a DenseNet."""
    image = keras.Input((None, None, 3), name="image")
    x = keras.layers.Conv2D(4, 3, padding="same", name="conv1_conv")(image)
    x = FusedBatchNormalization(name="conv1_bn")(x)
    x = keras.layers.Activation("relu", name="pool4_relu")(x)
    x = keras.layers.Conv2D(4, 1, name="high_level_16_conv")(x)
    x = SWise(name="s_wise")(x)
    alpha = keras.layers.Conv2D(1, 1, activation="sigmoid", dtype="float32", name="alpha")(x)
    return keras.Model(image, alpha, name=config.name)


class WaitingCheckpoint(callbacks.Checkpoint):
    """Leaves time for a kill."""

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        time.sleep(60)


def raise_in_second_step(throughput, batch, logs=None):
    """Fails as a network does that is too large, or a program that is wrong."""
    if batch == 1:
        errors = {
            "ResourceExhaustedError": tf.errors.ResourceExhaustedError(None, None, "too large"),
            "RuntimeError": RuntimeError("a fault"),
        }
        raise errors[os.environ["TINY_RAISES"]]


if __name__ == "__main__":
    if "TINY_RAISES" in os.environ:
        callbacks.Throughput.on_train_batch_end = raise_in_second_step
    if "TINY_WAITS" in os.environ:
        callbacks.Checkpoint = WaitingCheckpoint
    kmatting.models.build_model = build_tiny
    sys.exit(main())
