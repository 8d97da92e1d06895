"""Small models for the tests of export: all layers of the real ones, traced in a second."""

import numpy as np


def tiny_model(path):
    """Makes a network of stride 16 with the real branches and attention, and saves it.

    The statistics of its batch norms are not those of a new one, so that folding them shows.
    Returns the Keras model, with the path as `file`.
    """
    import keras

    from kmatting.layers import CWise, FusedBatchNormalization, ResizeLike, SWise
    from kmatting.models.blocks import (
        apply_conv_block,
        apply_decoder,
        apply_fusion,
        apply_low_level_branch,
    )

    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 3), dtype="float32", name="image")
    normalised = keras.layers.Rescaling([4.0, 4.1, 4.2], [-2.0, -1.9, -1.8])(image)
    x = normalised
    for stride in (4, 16):
        x = keras.layers.AveragePooling2D(4)(x)
        x = keras.layers.Concatenate()([x, apply_conv_block(x, 24, f"encoder_{stride}")])
        x = keras.layers.Activation("relu")(
            FusedBatchNormalization(name=f"encoder_{stride}_0_bn")(x)
        )
    structure = SWise()(apply_low_level_branch(normalised))
    semantics = ResizeLike()(apply_decoder(CWise(ratio=4)(x)), structure)
    alpha = apply_fusion(semantics, structure)
    model = keras.Model(image, alpha, name="tiny")
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, FusedBatchNormalization):
            shape = layer.gamma.shape
            layer.gamma.assign(rng.uniform(0.5, 1.5, shape))
            layer.beta.assign(rng.normal(0, 0.3, shape))
            layer.moving_mean.assign(rng.normal(0, 0.3, shape))
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, shape))
    model.save(path)
    model.file = path
    return model


def plain_model(path):
    """Saves a Keras model that is no matting network."""
    import keras

    keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)]).save(path)


def alpha_by_keras(model, images):
    """Runs a Keras model on uint8 images (N, H, W, 3), padded by their edges; crops its alphas."""
    height, width = images.shape[1:3]
    margins = ((0, 0), (0, -height % 16), (0, -width % 16), (0, 0))
    padded = np.pad(images, margins, mode="edge") / np.float32(255)
    return np.asarray(model(padded, training=False))[:, :height, :width]


def error_after_steps(written):
    """Returns the one line that an export ends with; those before it announce its steps."""
    *steps, error = written.splitlines()
    assert all(step.endswith(" ...") for step in steps), written
    assert error.startswith("error: "), written
    return error
