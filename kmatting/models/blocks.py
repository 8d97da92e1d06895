"""The parts of the networks between image, encoder and alpha."""

from collections.abc import Sequence
from typing import Any

from keras import layers

from kmatting.layers import BatchNormalization, BilinearUpsampling
from kmatting.models.encoder import BATCH_NORM_MOMENTUM

DECODER_FILTERS = (256, 128, 64, 32)  # at strides 16, 8, 4 and 2
SKIP_FILTERS = (64, 32, 16)  # at strides 8, 4 and 2
LOW_LEVEL_FILTERS = (16, 16, 32, 32)  # four 3x3 convolutions see 9 pixels, 15 with SWise behind
FUSION_FILTERS = (32, 16)


def apply_conv_block(x: Any, filters: int, name: str, kernel_size: int = 3) -> Any:
    """Applies convolution, batch norm and ReLU.

    Args:
        x: Keras tensor (N, H, W, C).
        filters: channels of the output.
        name: prefix of the layers' names.
        kernel_size: side of the convolution in pixels.

    Returns:
        Keras tensor (N, H, W, filters).
    """
    x = layers.Conv2D(
        filters,
        kernel_size,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    x = BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{name}_bn")(x)
    return layers.Activation("relu", name=f"{name}_relu")(x)


def apply_decoder(features: Any, skips: Sequence[Any] = ()) -> Any:
    """Brings semantic features back to full resolution.

    Args:
        features: Keras tensor (N, H / 16, W / 16, C).
        skips: Keras tensors at strides 8, 4 and 2 of any channels, or none.

    Returns:
        Keras tensor (N, H, W, 32).
    """
    # The wide features meet a 1x1 convolution: at stride 16 a 3x3 has nothing to add to an encoder.
    x = apply_conv_block(features, DECODER_FILTERS[0], "high_level_16", kernel_size=1)
    for index, stride in enumerate((8, 4, 2)):
        x = BilinearUpsampling(name=f"high_level_{stride}_up")(x)
        if skips:
            skip = apply_conv_block(skips[index], SKIP_FILTERS[index], f"skip_{stride}", 1)
            x = layers.Concatenate(name=f"high_level_{stride}_concat")([x, skip])
        x = apply_conv_block(x, DECODER_FILTERS[index + 1], f"high_level_{stride}")
    return BilinearUpsampling(name="high_level")(x)


def apply_low_level_branch(image: Any) -> Any:
    """Extracts structure at full resolution; shallow, so that it stays local.

    Args:
        image: Keras tensor (N, H, W, 3), normalised.

    Returns:
        Keras tensor (N, H, W, 32); each pixel of it sees 9x9 pixels of the image.
    """
    x = image
    for index, filters in enumerate(LOW_LEVEL_FILTERS, start=1):
        x = apply_conv_block(x, filters, f"low_level_{index}")
    return x


def apply_fusion(high_level: Any, low_level: Any) -> Any:
    """Fuses both branches to an alpha.

    Args:
        high_level: Keras tensor (N, H, W, C1).
        low_level: Keras tensor (N, H, W, C2).

    Returns:
        Keras tensor `alpha` (N, H, W, 1) in [0, 1], float32 also under mixed precision.
    """
    x = layers.Concatenate(name="fusion")([high_level, low_level])
    for index, filters in enumerate(FUSION_FILTERS, start=1):
        x = apply_conv_block(x, filters, f"fusion_{index}")
    x = layers.Conv2D(1, 1, dtype="float32", name="logit")(x)
    return layers.Activation("sigmoid", dtype="float32", name="alpha")(x)
