"""Runs `kmatting.train` with a network small enough for tests, in a process of its own.

A process can be killed, and logical devices can only be made before TensorFlow starts.
"""

import sys

import keras

import kmatting.models
from kmatting.layers import BatchNormalization, SWise
from kmatting.train import main


def build_tiny(config):
    """Builds a network with the layers that training looks for, in place of a DenseNet."""
    image = keras.Input((None, None, 3), name="image")
    x = keras.layers.Conv2D(4, 3, padding="same", name="conv1_conv")(image)
    x = BatchNormalization(name="conv1_bn")(x)
    x = keras.layers.Activation("relu", name="pool4_relu")(x)
    x = SWise(name="s_wise")(x)
    alpha = keras.layers.Conv2D(1, 1, activation="sigmoid", dtype="float32", name="alpha")(x)
    return keras.Model(image, alpha, name=config.name)


if __name__ == "__main__":
    kmatting.models.build_model = build_tiny
    sys.exit(main())
