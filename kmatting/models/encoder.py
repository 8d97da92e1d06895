"""The encoder of the high-level branch: a DenseNet cut at its third dense block."""

from pathlib import Path
from typing import Any

import keras

from kmatting.config import ConfigError
from kmatting.layers import BatchNormalization

_DENSENETS = {
    "densenet121": keras.applications.DenseNet121,
    "densenet169": keras.applications.DenseNet169,
    "densenet201": keras.applications.DenseNet201,
}
# The third dense block ends in a concatenation (`conv4_block48_concat` in DenseNet201); the batch
# norm and the ReLU that follow close its last pre-activation block. This is that ReLU.
_LAST_LAYER = "pool4_relu"
# What the encoder made at strides 8, 4 and 2, normalised and cut at 0 like its output.
_SKIP_LAYERS = ("pool3_relu", "pool2_relu", "conv1_relu")

# Keras's 0.99 lags a hundred steps behind the weights, so that validation is noise for long.
BATCH_NORM_MOMENTUM = 0.97

# As `keras.applications.densenet` in torch mode, for pixels in [0, 1].
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


def build_encoder(encoder: str, weights: str) -> keras.Model:
    """Builds a truncated DenseNet that takes plain pixels.

    Args:
        encoder: `densenet121`, `densenet169` or `densenet201`.
        weights: `imagenet`, `none`, or the path of a weights file of the DenseNet without its top.

    Returns:
        Keras functional model. Input `image`: float32 (N, H, W, 3) in [0, 1]. Layer
        `normalisation`: the image with the colours that ImageNet encoders expect. Output: features
        (N, H / 16, W / 16, C) behind batch norm and ReLU; C is 1024, 1280 or 1792.

    Raises:
        ConfigError: for an unknown encoder, or weights that cannot be had.

    Reference:
        Huang et al. 2017, Densely Connected Convolutional Networks
        (https://arxiv.org/abs/1608.06993).
    """
    if encoder not in _DENSENETS:
        raise ConfigError(
            f"model.encoder: expected one of {sorted(_DENSENETS)}, received {encoder!r}."
        )
    image = keras.Input((None, None, 3), dtype="float32", name="image")
    normalised = keras.layers.Rescaling(
        scale=[1 / std for std in _IMAGENET_STD],
        offset=[-mean / std for mean, std in zip(_IMAGENET_MEAN, _IMAGENET_STD, strict=True)],
        name="normalisation",
    )(image)
    densenet = _DENSENETS[encoder](include_top=False, weights=None, input_tensor=normalised)
    _load_weights(densenet, encoder, weights)
    truncated = keras.Model(image, densenet.get_layer(_LAST_LAYER).output)
    fused = keras.models.clone_model(truncated, clone_function=_with_fused_batch_norm)
    if weights != "none":
        fused.set_weights(truncated.get_weights())
    return fused


def skip_features(encoder: keras.Model) -> list[Any]:
    """Lists features on the way to an encoder's output.

    Args:
        encoder: what `build_encoder` returned.

    Returns:
        Keras tensors at strides 8, 4 and 2 of 512, 256 and 64 channels.
    """
    return [encoder.get_layer(name).output for name in _SKIP_LAYERS]


def encoder_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Lists the layers of a matting model that belong to its encoder, for freezing them.

    Args:
        model: what `model1` or `model2` returned.

    Returns:
        The layers from the image to the end of the encoder.
    """
    return keras.Model(model.input, model.get_layer(_LAST_LAYER).output).layers


def _with_fused_batch_norm(layer: keras.layers.Layer) -> keras.layers.Layer:
    if isinstance(layer, keras.layers.BatchNormalization):
        config = {**layer.get_config(), "momentum": BATCH_NORM_MOMENTUM}
        return BatchNormalization.from_config(config)
    return type(layer).from_config(layer.get_config())


def _load_weights(densenet: keras.Model, encoder: str, weights: str) -> None:
    if weights == "none":
        return
    choices = "Choose encoder_weights: imagenet | path of a weights file | none."
    if weights == "imagenet":
        try:
            source = _DENSENETS[encoder](include_top=False, weights="imagenet")
        except Exception as error:  # the download raises a bare Exception
            raise ConfigError(
                f"The ImageNet weights of {encoder} could not be downloaded "
                f"({_first_line(error)}). {choices}"
            ) from error
        densenet.set_weights(source.get_weights())
        return
    if not Path(weights).is_file():
        raise ConfigError(f"There is no encoder weights file {weights!r}. {choices}")
    try:
        densenet.load_weights(weights)
    except Exception as error:  # h5py and Keras raise many types on a wrong file
        raise ConfigError(
            f"{weights}: not a weights file of {encoder} without its top "
            f"({_first_line(error)}). {choices}"
        ) from error


def _first_line(error: Any) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
