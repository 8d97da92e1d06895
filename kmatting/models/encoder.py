"""The encoder of the high-level branch, chosen by name."""

import importlib

import keras

from kmatting.errors import ConfigError
from kmatting.models.names import ENCODERS


def build_encoder(encoder: str, weights: str) -> keras.Model:
    """Builds an encoder that takes plain pixels.

    The module that `kmatting.models.names.ENCODERS` names does it, by its function `build(encoder,
    weights)`, which has the same arguments and returns the same as this one.

    Args:
        encoder: a name in `kmatting.models.names.ENCODERS`.
        weights: `imagenet`, the path of a weights file, or `none`.

    Returns:
        Keras functional model. Input `image`: float32 (N, H, W, 3) in [0, 1], H and W multiples of
        16. Layer `normalisation`: the image with the colours that the encoder expects. Outputs:
        features at strides 16, 8, 4 and 2, in this order; (N, H / 16, W / 16, C) the first.

    Raises:
        ConfigError: for an unknown encoder, or weights that are missing or do not fit.
    """
    if encoder not in ENCODERS:
        raise ConfigError(
            f"model.encoder: expected one of {', '.join(ENCODERS)}; received {encoder!r}."
        )
    module = importlib.import_module(f"kmatting.models.{ENCODERS[encoder]}")
    return module.build(encoder, weights)


def encoder_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Lists the layers of a matting network that belong to its encoder, to freeze them.

    Args:
        model: a network from `model1` or `model2`.

    Returns:
        The layers from the image to the features of stride 16.
    """
    # The first layer behind the encoder, with attention and without.
    behind = next(layer for layer in model.layers if layer.name in ("c_wise", "high_level_16_conv"))
    return keras.Model(model.input, behind.input).layers
