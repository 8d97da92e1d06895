"""The encoder of the high-level branch: a DenseNet cut at its third dense block, or a light one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from kmatting.config import ConfigError
from kmatting.layers import BatchNormalization
from kmatting.models import efficientnet_lite

_DENSENETS = {
    "densenet121": keras.applications.DenseNet121,
    "densenet169": keras.applications.DenseNet169,
    "densenet201": keras.applications.DenseNet201,
}
# The third dense block ends in a concatenation (`conv4_block48_concat` in DenseNet201); the batch
# norm and the ReLU that follow close its last pre-activation block. This is that ReLU.
_DENSENET_END = "pool4_relu"
# What the encoder made at strides 8, 4 and 2, normalised and cut at 0 like its output.
_DENSENET_SKIPS = ("pool3_relu", "pool2_relu", "conv1_relu")

# Keras's 0.99 lags a hundred steps behind the weights, so that validation is noise for long.
BATCH_NORM_MOMENTUM = 0.97

# As `keras.applications.densenet` in torch mode, for pixels in [0, 1].
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)

_CHOICES = "Choose encoder_weights: imagenet | path of a weights file | none."


def build_encoder(encoder: str, weights: str) -> keras.Model:
    """Builds an encoder that takes plain pixels.

    Args:
        encoder: `densenet121`, `densenet169`, `densenet201`, `efficientnet_lite0`,
            `efficientnet_lite1` or `efficientnet_lite2`.
        weights: `imagenet`, `none`, or the path of a weights file: of the DenseNet without its top,
            or PyTorch's of the EfficientNet-Lite.

    Returns:
        Keras functional model. Input `image`: float32 (N, H, W, 3) in [0, 1]. Layer
        `normalisation`: the image with the colours that the encoder expects. Outputs: features (N,
        H / 16, W / 16, C), of a DenseNet behind batch norm and ReLU; and features of strides 8, 4
        and 2. C is 1024, 1280 or 1792 of a DenseNet, 432 or 472 of the others.

    Raises:
        ConfigError: for an unknown encoder, or weights that cannot be had.

    Reference:
        Huang et al. 2017, Densely Connected Convolutional Networks
        (https://arxiv.org/abs/1608.06993); `efficientnet_lite` names its own.
    """
    if encoder in _DENSENETS:
        return _build_densenet(encoder, weights)
    if encoder in efficientnet_lite.SCALES:
        return _build_efficientnet_lite(encoder, weights)
    choices = sorted({*_DENSENETS, *efficientnet_lite.SCALES})
    raise ConfigError(f"model.encoder: expected one of {choices}, received {encoder!r}.")


def encoder_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Lists the layers of a matting model that belong to its encoder, for freezing them.

    Args:
        model: what `model1` or `model2` returned.

    Returns:
        The layers from the image to the end of the encoder.
    """
    ends = (_DENSENET_END, efficientnet_lite.END)
    (end,) = (layer for layer in model.layers if layer.name in ends)
    return keras.Model(model.input, end.output).layers


def _build_densenet(encoder: str, weights: str) -> keras.Model:
    image, normalised = _image(_IMAGENET_MEAN, _IMAGENET_STD)
    densenet = _DENSENETS[encoder](include_top=False, weights=None, input_tensor=normalised)
    _load_densenet_weights(densenet, encoder, weights)
    ends = [densenet.get_layer(name).output for name in (_DENSENET_END, *_DENSENET_SKIPS)]
    truncated = keras.Model(image, ends)
    fused = keras.models.clone_model(truncated, clone_function=_with_fused_batch_norm)
    if weights != "none":
        fused.set_weights(truncated.get_weights())
    return fused


def _build_efficientnet_lite(encoder: str, weights: str) -> keras.Model:
    image, normalised = _image(efficientnet_lite.MEAN, efficientnet_lite.STD)
    features, skips = efficientnet_lite.apply_efficientnet_lite(
        encoder, normalised, BATCH_NORM_MOMENTUM
    )
    model = keras.Model(image, [features, *skips])
    if weights == "none":
        return model
    try:
        path = (
            efficientnet_lite.imagenet_weights(encoder) if weights == "imagenet" else Path(weights)
        )
        efficientnet_lite.load_weights(model, path)
    except (ModuleNotFoundError, OSError, ValueError) as error:
        raise ConfigError(
            f"The {weights} weights of {encoder} could not be loaded ({error}). {_CHOICES}"
        ) from error
    return model


def _image(mean: Sequence[float], std: Sequence[float]) -> tuple[Any, Any]:
    """Makes the input, and the same with the colours that an encoder expects."""
    image = keras.Input((None, None, 3), dtype="float32", name="image")
    normalised = keras.layers.Rescaling(
        scale=[1 / one for one in std],
        offset=[-middle / one for middle, one in zip(mean, std, strict=True)],
        name="normalisation",
    )(image)
    return image, normalised


def _with_fused_batch_norm(layer: keras.layers.Layer) -> keras.layers.Layer:
    if isinstance(layer, keras.layers.BatchNormalization):
        config = {**layer.get_config(), "momentum": BATCH_NORM_MOMENTUM}
        return BatchNormalization.from_config(config)
    return type(layer).from_config(layer.get_config())


def _load_densenet_weights(densenet: keras.Model, encoder: str, weights: str) -> None:
    if weights == "none":
        return
    if weights == "imagenet":
        try:
            source = _DENSENETS[encoder](include_top=False, weights="imagenet")
        except Exception as error:  # the download raises a bare Exception
            raise ConfigError(
                f"The ImageNet weights of {encoder} could not be downloaded "
                f"({_first_line(error)}). {_CHOICES}"
            ) from error
        densenet.set_weights(source.get_weights())
        return
    if not Path(weights).is_file():
        raise ConfigError(f"There is no encoder weights file {weights!r}. {_CHOICES}")
    try:
        densenet.load_weights(weights)
    except Exception as error:  # h5py and Keras raise many types on a wrong file
        raise ConfigError(
            f"{weights}: not a weights file of {encoder} without its top "
            f"({_first_line(error)}). {_CHOICES}"
        ) from error


def _first_line(error: Any) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
