"""Runs `kmatting.train` with a network small enough for tests, in a process of its own.

A process can be killed, and logical devices can only be made before TensorFlow starts. Environment
variables:

- TINY_WAITS: it waits after each epoch, so that a kill comes before the end.
- TINY_STOPS: it is interrupted after an epoch.
- TINY_RAISES: name of an exception to raise in the second step.
- TINY_HIDES: name of a package that seems not to be installed.
"""

import os
import sys
import time

if "TINY_HIDES" in os.environ:
    from importlib.machinery import PathFinder

    class Hiding(PathFinder):
        """Finds every package but one."""

        @classmethod
        def find_spec(cls, fullname, path=None, target=None):
            hidden = fullname.partition(".")[0] == os.environ["TINY_HIDES"]
            return None if hidden else super().find_spec(fullname, path, target)

    sys.meta_path = [Hiding if finder is PathFinder else finder for finder in sys.meta_path]

import keras

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


class StoppingCheckpoint(callbacks.Checkpoint):
    """Ends the run after its first epoch."""

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        raise KeyboardInterrupt


def raise_in_second_step(throughput, batch, logs=None):
    """Fails as a network does that is too large, or a program that is wrong."""
    if batch == 1:
        import tensorflow as tf

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
    if "TINY_STOPS" in os.environ:
        callbacks.Checkpoint = StoppingCheckpoint
    kmatting.models.build_model = build_tiny
    sys.exit(main())
