"""Builds the two matting networks from their blocks."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from kmatting.errors import ConfigError
from kmatting.layers import BilinearUpsampling, CWise, ResizeLike, SWise
from kmatting.models.blocks import (
    DETAIL_FUSION_FILTERS,
    DETAIL_LOW_LEVEL_FILTERS,
    FUSION_FILTERS,
    LOW_LEVEL_FILTERS,
    apply_decoder,
    apply_detail_decoder,
    apply_estimate,
    apply_fusion,
    apply_low_level_branch,
)
from kmatting.models.encoder import build_encoder, with_reduced_image
from kmatting.models.weights import (
    explain,
    load_high_level,
    load_weights,
    trained_high_level_size,
)
from kmatting.networks.shipped import find_weights

if TYPE_CHECKING:
    from kmatting.config import ModelConfig


def model1(
    encoder: str = "densenet201",
    encoder_weights: str = "imagenet",
    skips: bool = False,
    high_level_size: int | None = None,
) -> keras.Model:
    """Builds Model 1: a high-level branch for semantics, a low-level branch for structure, fusion.

    Args:
        encoder: a name in `kmatting.models.names.ENCODERS`.
        encoder_weights: `imagenet`, the path of a weights file, or `none`.
        skips: whether the decoder also gets the encoder's features at strides 8, 4 and 2.
        high_level_size: the high-level branch sees the image reduced to the area of a square of
            this side, a multiple of 16. With `skips`, a second copy of the encoder, up to stride 8,
            gives the decoder what the full image shows.

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
    return _build("model1", branch, skips, high_level_size)


def model2(
    encoder: str = "densenet201",
    encoder_weights: str = "imagenet",
    skips: bool = False,
    high_level_size: int | None = None,
) -> keras.Model:
    """Builds Model 2: Model 1 with attention, channel-wise on semantics, spatial on structure.

    Args:
        encoder: as in `model1`.
        encoder_weights: as in `model1`.
        skips: as in `model1`.
        high_level_size: as in `model1`.

    Returns:
        Keras functional model with the same input and output as `model1`.

    Raises:
        ConfigError: as in `model1`.

    Reference:
        Qiao et al. 2020, Attention-Guided Hierarchical Structure Aggregation for Image Matting
        (CVPR), for which features get which attention.
    """
    branch = build_encoder(encoder, encoder_weights)
    c_wise, s_wise = CWise(name="c_wise"), SWise(name="s_wise")
    return _build("model2", branch, skips, high_level_size, c_wise, s_wise)


def _build(
    name: str,
    branch: keras.Model,
    skips: bool,
    high_level_size: int | None,
    channel_attention: keras.layers.Layer | None = None,
    spatial_attention: keras.layers.Layer | None = None,
) -> keras.Model:
    """Builds a network from its encoder, and from attention if it has some."""
    full_image = branch.get_layer("normalisation").output
    details: list[Any] = []
    filters: list[tuple[int, ...]] = [LOW_LEVEL_FILTERS, FUSION_FILTERS]
    if high_level_size is not None:
        branch, full_image, details = with_reduced_image(branch, high_level_size)
        filters = [DETAIL_LOW_LEVEL_FILTERS, DETAIL_FUSION_FILTERS]
    semantics, *skipped = branch.outputs
    if channel_attention:
        semantics = channel_attention(semantics)
    structure = apply_low_level_branch(full_image, filters[0])
    if spatial_attention:
        structure = spatial_attention(structure)
    semantics = apply_decoder(semantics, skipped if skips else ())
    estimate = apply_estimate(semantics) if high_level_size else None
    if skips and details:
        semantics = apply_detail_decoder(semantics, details)
    if high_level_size:
        semantics = ResizeLike(name="high_level")(semantics, structure)
    else:  # a tie to `structure` would change the order of layers, by which Keras finds weights
        semantics = BilinearUpsampling(name="high_level")(semantics)
    alpha = apply_fusion(semantics, structure, filters[1], estimate)
    return keras.Model(branch.input, alpha, name=name)


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
    parts = config.skips, config.high_level_size
    if config.weights is None:
        return builder(config.encoder, config.encoder_weights, *parts)
    model = builder(config.encoder, "none", *parts)
    path = find_weights(config.weights)
    try:
        _load_start(model, path, config.high_level_size)
    except Exception as error:  # h5py and Keras raise many types for a wrong file
        raise ConfigError(
            f"model.weights: {config.weights} does not fit {config.name} with {config.encoder}: "
            f"{explain(error)}."
        ) from error
    return model


def _load_start(model: keras.Model, path: Path, high_level_size: int | None) -> None:
    """Loads the weights to start from, also those of one resolution into a network of two."""
    if path.suffix == ".keras":
        trained_with = trained_high_level_size(path)
        if high_level_size and not trained_with:
            load_high_level(model, path)
            return
        if trained_with and not high_level_size:
            raise ConfigError(
                f"that network has two resolutions; set model.high_level_size={trained_with}"
            )
    load_weights(model, path)
