"""EfficientNetV2-B0, a light encoder whose ImageNet weights Keras downloads."""

import functools

import keras

from kmatting.models.keras_application import build_from_keras

_OUTPUTS = ("block5e_add", "block3b_add", "block2b_add", "block1a_project_activation")


def build(encoder: str, weights: str) -> keras.Model:
    """Builds an EfficientNetV2-B0 encoder, cut behind its fifth stage.

    Args:
        encoder: `efficientnet_v2b0`.
        weights: `imagenet` (Keras downloads them), the path of a weights file of the network
            without its top, or `none`.

    Returns:
        The encoder, as `kmatting.models.encoder.build_encoder` describes it; 112 channels at
        stride 16.

    Raises:
        ConfigError: if the weights are missing or do not fit.

    Reference:
        Tan and Le 2021, EfficientNetV2 (https://arxiv.org/abs/2104.00298).
    """
    network = functools.partial(keras.applications.EfficientNetV2B0, include_preprocessing=False)
    return build_from_keras(network, encoder, weights, _OUTPUTS)
