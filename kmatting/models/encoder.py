"""The encoder of the high-level branch, chosen by name."""

import importlib
from typing import Any

import keras

from kmatting.errors import ConfigError
from kmatting.layers import ReduceTo
from kmatting.models.blocks import FULL
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


def with_reduced_image(branch: keras.Model, size: int) -> tuple[keras.Model, Any, list[Any]]:
    """Lets an encoder see a reduced image, and a copy of its first part the full one.

    Args:
        branch: an encoder from `build_encoder`.
        size: side in pixels of the square to whose area images are reduced.

    Returns:
        small: the encoder, with a layer `reduced` before `normalisation`.
        full_image: Keras tensor (N, H, W, 3), the full image with the encoder's colours.
        details: the copy's features of the full image at strides 8, 4 and 2. The layers of the copy
            have the prefix `FULL`, and the encoder's weights.
    """

    def reduced(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        if layer.name == "normalisation":
            args = (ReduceTo(size, name="reduced")(args[0]),)
        return layer(*args, **kwargs)

    def renamed(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config({**layer.get_config(), "name": FULL + layer.name})

    small = keras.models.clone_model(branch, call_function=reduced)
    small.set_weights(branch.get_weights())
    full_image = branch.get_layer("normalisation").output
    first_part = keras.Model(branch.input, [full_image, *branch.outputs[1:]])
    # On the same input, so that both become parts of one network.
    copy = keras.models.clone_model(first_part, input_tensors=small.input, clone_function=renamed)
    copy.set_weights(first_part.get_weights())
    full_image, *details = copy.outputs
    return small, full_image, details


def encoder_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Lists the layers of a matting network that belong to its encoder, to freeze them.

    Args:
        model: a network from `model1` or `model2`.

    Returns:
        The layers from the image to the features of stride 16; with `high_level_size` also those of
        the copy that sees the full image.
    """
    # The first layer behind the encoder, with attention and without.
    behind = next(layer for layer in model.layers if layer.name in ("c_wise", "high_level_16_conv"))
    layers = keras.Model(model.input, behind.input).layers
    names = {FULL + layer.name for layer in layers}
    return layers + [layer for layer in model.layers if layer.name in names]
