"""Makes an encoder from a network of `keras.applications`."""

from collections.abc import Callable, Sequence
from pathlib import Path

import keras

from kmatting.errors import ConfigError
from kmatting.layers import FusedBatchNormalization
from kmatting.models.blocks import BATCH_NORM_MOMENTUM, normalised_image
from kmatting.models.weights import CHOICES, explain

# Of pixels in [0, 1], as `keras.applications` normalises them in its torch mode.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def build_from_keras(
    application: Callable[..., keras.Model], encoder: str, weights: str, outputs: Sequence[str]
) -> keras.Model:
    """Builds an encoder from a network of `keras.applications`, cut where it is not needed.

    Args:
        application: function of `keras.applications` for ImageNet's mean and standard deviation.
        encoder: its name in messages.
        weights: `imagenet` (Keras downloads them), the path of a weights file of the network
            without its top, or `none`.
        outputs: names of the layers at strides 16, 8, 4 and 2; layers behind them are left out.

    Returns:
        The encoder, as `kmatting.models.encoder.build_encoder` describes it.

    Raises:
        ConfigError: if the weights are missing or do not fit.
    """
    image, normalised = normalised_image(_MEAN, _STD)
    if weights not in ("imagenet", "none") and not Path(weights).is_file():
        raise ConfigError(f"There is no encoder weights file {weights!r}. {CHOICES}")
    try:
        network = application(
            include_top=False,
            weights=None if weights == "none" else weights,
            input_tensor=normalised,
        )
    except Exception as error:  # a download or a wrong file raises nearly any type
        raise ConfigError(
            f"The {weights} weights of {encoder} could not be loaded: {explain(error)}. {CHOICES}"
        ) from error
    whole = keras.Model(image, [network.get_layer(name).output for name in outputs])
    fused = keras.models.clone_model(whole, clone_function=_with_fused_batch_norm)
    fused.set_weights(whole.get_weights())
    return fused


def _with_fused_batch_norm(layer: keras.layers.Layer) -> keras.layers.Layer:
    if isinstance(layer, keras.layers.BatchNormalization):
        return FusedBatchNormalization(
            BATCH_NORM_MOMENTUM, layer.epsilon, name=layer.name, dtype=layer.dtype_policy
        )
    return type(layer).from_config(layer.get_config())
