"""Builds the two matting networks from their blocks."""

from typing import TYPE_CHECKING

import keras

from kmatting.errors import ConfigError
from kmatting.layers import CWise, SWise
from kmatting.models.blocks import (
    apply_decoder,
    apply_fusion,
    apply_low_level_branch,
)
from kmatting.models.encoder import build_encoder
from kmatting.models.weights import explain, load_weights
from kmatting.networks.shipped import shipped_model

if TYPE_CHECKING:
    from kmatting.config import ModelConfig


def model1(
    encoder: str = "densenet201", encoder_weights: str = "imagenet", skips: bool = False
) -> keras.Model:
    """Builds Model 1: a high-level branch for semantics, a low-level branch for structure, fusion.

    Args:
        encoder: a name in `kmatting.models.names.ENCODERS`.
        encoder_weights: `imagenet`, the path of a weights file, or `none`.
        skips: whether the decoder also gets the encoder's features at strides 8, 4 and 2.

    Returns:
        Keras functional model. Input `image`: float32 (N, H, W, 3) in [0, 1], H and W multiples
        of 16. Output `alpha`: float32 (N, H, W, 1) in [0, 1].

    Raises:
        ConfigError: for an unknown encoder, or weights that are missing or do not fit.

    Examples:
        >>> model = model1(encoder_weights="none")
        >>> alpha = model.predict(images)
    """
    branch = build_encoder(encoder, encoder_weights)
    semantics, *skipped = branch.outputs
    structure = apply_low_level_branch(branch.get_layer("normalisation").output)
    semantics = apply_decoder(semantics, skipped if skips else ())
    alpha = apply_fusion(semantics, structure)
    return keras.Model(branch.input, alpha, name="model1")


def model2(
    encoder: str = "densenet201", encoder_weights: str = "imagenet", skips: bool = False
) -> keras.Model:
    """Builds Model 2: Model 1 with attention, channel-wise on semantics, spatial on structure.

    Args:
        encoder: as in `model1`.
        encoder_weights: as in `model1`.
        skips: as in `model1`.

    Returns:
        Keras functional model with the same input and output as `model1`.

    Raises:
        ConfigError: as in `model1`.

    Reference:
        Qiao et al. 2020, Attention-Guided Hierarchical Structure Aggregation for Image Matting
        (CVPR), for which features get which attention.
    """
    branch = build_encoder(encoder, encoder_weights)
    semantics, *skipped = branch.outputs
    semantics = CWise(name="c_wise")(semantics)
    structure = apply_low_level_branch(branch.get_layer("normalisation").output)
    structure = SWise(name="s_wise")(structure)
    semantics = apply_decoder(semantics, skipped if skips else ())
    alpha = apply_fusion(semantics, structure)
    return keras.Model(branch.input, alpha, name="model2")


def build_model(config: "ModelConfig") -> keras.Model:
    """Builds the network of a config.

    Args:
        config: the `model` section of a config.

    Returns:
        The Keras model, with `config.weights` loaded if given.

    Raises:
        ConfigError: if weights are missing or do not fit.
    """
    builder = {"model1": model1, "model2": model2}[config.name]
    if config.weights is None:
        return builder(config.encoder, config.encoder_weights, config.skips)
    model = builder(config.encoder, "none", config.skips)
    try:
        shipped = str(config.weights) == "shipped"
        load_weights(model, shipped_model(".keras") if shipped else config.weights)
    except Exception as error:  # h5py and Keras raise many types for a wrong file
        raise ConfigError(
            f"model.weights: {config.weights} does not fit {config.name} with {config.encoder}: "
            f"{explain(error)}."
        ) from error
    return model
