"""Runs `kmatting.train` with a network small enough for tests, in a process of its own.

A process can be killed, and logical devices can only be made before TensorFlow starts. With the
environment variable TINY_WAITS it waits behind each epoch, so that a kill comes before the end.
"""

import os
import sys
import time

import keras

import kmatting.models
from kmatting.layers import BatchNormalization, SWise
from kmatting.train import main
from kmatting.training import callbacks


def build_tiny(config):
    """Builds a network with the layers that training looks for, in place of a DenseNet."""
    image = keras.Input((None, None, 3), name="image")
    x = keras.layers.Conv2D(4, 3, padding="same", name="conv1_conv")(image)
    x = BatchNormalization(name="conv1_bn")(x)
    x = keras.layers.Activation("relu", name="pool4_relu")(x)
    x = SWise(name="s_wise")(x)
    alpha = keras.layers.Conv2D(1, 1, activation="sigmoid", dtype="float32", name="alpha")(x)
    return keras.Model(image, alpha, name=config.name)


class WaitingCheckpoint(callbacks.Checkpoint):
    """Leaves time for a kill."""

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        time.sleep(60)


if __name__ == "__main__":
    if "TINY_WAITS" in os.environ:
        callbacks.Checkpoint = WaitingCheckpoint
    kmatting.models.build_model = build_tiny
    sys.exit(main())
