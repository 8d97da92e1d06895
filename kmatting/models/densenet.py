"""DenseNets as encoders, cut behind their third dense block."""

import keras

from kmatting.models.keras_application import build_from_keras

_DENSENETS = {
    "densenet121": keras.applications.DenseNet121,
    "densenet169": keras.applications.DenseNet169,
    "densenet201": keras.applications.DenseNet201,
}
# A dense block ends in a concatenation (`conv4_block48_concat` is the third of DenseNet201). A
# batch norm and a ReLU, here `pool4_bn` and `pool4_relu`, close its last pre-activation block.
_OUTPUTS = ("pool4_relu", "pool3_relu", "pool2_relu", "conv1_relu")


def build(encoder: str, weights: str) -> keras.Model:
    """Builds a DenseNet encoder.

    Args:
        encoder: `densenet121`, `densenet169` or `densenet201`.
        weights: `imagenet` (Keras downloads them), the path of a weights file of the DenseNet
            without its top, or `none`.

    Returns:
        The encoder, as `kmatting.models.encoder.build_encoder` describes it; 1024, 1280 or 1792
        channels at stride 16.

    Raises:
        ConfigError: if the weights are missing or do not fit.

    Reference:
        Huang et al. 2017, Densely Connected Convolutional Networks
        (https://arxiv.org/abs/1608.06993).
    """
    return build_from_keras(_DENSENETS[encoder], encoder, weights, _OUTPUTS)
