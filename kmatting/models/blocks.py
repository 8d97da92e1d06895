"""The parts of the networks between image, encoder and alpha."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from kmatting.layers import BilinearUpsampling, FusedBatchNormalization, ResizeLike

# With Keras's 0.99 the averages lag a hundred steps behind, and early validations are noise.
BATCH_NORM_MOMENTUM = 0.97

DECODER_FILTERS = (256, 128, 64, 32)  # at strides 16, 8, 4 and 2
SKIP_FILTERS = (64, 32, 16)  # at strides 8, 4 and 2
LOW_LEVEL_FILTERS = (16, 16, 32, 32)  # a receptive field of 9 pixels, or 15 with SWise
FUSION_FILTERS = (32, 16)
FULL = "full_"  # prefix of the layers that see the full image with an encoder's weights
# With two resolutions: the input is larger, and the decoder of details has done part of the work.
DETAIL_FILTERS = (48, 32, 16)  # at strides 8, 4 and 2 of the input
DETAIL_LOW_LEVEL_FILTERS = (8, 8)  # a receptive field of 5 pixels, or 11 with SWise
ESTIMATE_FILTERS = 16
DETAIL_FUSION_FILTERS = (8, 8)


def normalised_image(mean: Sequence[float], std: Sequence[float]) -> tuple[Any, Any]:
    """Makes the input of a network, and the image with the colours that its encoder expects.

    Args:
        mean: mean of each channel, of pixels in [0, 1].
        std: standard deviation of each channel.

    Returns:
        Keras tensors `image`, float32 (N, H, W, 3) in [0, 1], and `normalisation` of the same
        shape: (image - mean) / std.
    """
    image = keras.Input((None, None, 3), dtype="float32", name="image")
    normalise = layers.Rescaling(
        scale=[1 / deviation for deviation in std],
        offset=[-average / deviation for average, deviation in zip(mean, std, strict=True)],
        name="normalisation",
    )
    return image, normalise(image)


def apply_conv_block(x: Any, filters: int, name: str, kernel_size: int = 3) -> Any:
    """Applies convolution, batch norm and ReLU.

    Args:
        x: Keras tensor (N, H, W, C).
        filters: output channels.
        name: prefix of the layers' names.
        kernel_size: side of the kernel in pixels.

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
    x = FusedBatchNormalization(BATCH_NORM_MOMENTUM, name=f"{name}_bn")(x)
    return layers.Activation("relu", name=f"{name}_relu")(x)


def apply_decoder(features: Any, skips: Sequence[Any] = ()) -> Any:
    """Brings semantic features back to half the resolution of the image.

    Args:
        features: Keras tensor (N, H / 16, W / 16, C).
        skips: Keras tensors at strides 8, 4 and 2 with any number of channels, or none.

    Returns:
        Keras tensor (N, H / 2, W / 2, 32).
    """
    # 1x1, since a 3x3 kernel over so many channels is costly and adds little behind an encoder.
    x = apply_conv_block(features, DECODER_FILTERS[0], "high_level_16", kernel_size=1)
    for index, stride in enumerate((8, 4, 2)):
        x = BilinearUpsampling(name=f"high_level_{stride}_up")(x)
        if skips:
            skip = apply_conv_block(skips[index], SKIP_FILTERS[index], f"skip_{stride}", 1)
            x = layers.Concatenate(name=f"high_level_{stride}_concat")([x, skip])
        x = apply_conv_block(x, DECODER_FILTERS[index + 1], f"high_level_{stride}")
    return x


def apply_detail_decoder(high_level: Any, skips: Sequence[Any]) -> Any:
    """Brings semantic features of a reduced image to the full one, along its details.

    Args:
        high_level: Keras tensor (N, h, w, C) of the reduced image.
        skips: Keras tensors of the full image at strides 8, 4 and 2.

    Returns:
        Keras tensor (N, H / 2, W / 2, 16).
    """
    x = None
    for stride, skip, filters in zip((8, 4, 2), skips, DETAIL_FILTERS, strict=True):
        parts = [apply_conv_block(skip, skip.shape[-1], f"detail_skip_{stride}", 1)]
        if x is not None:
            parts.append(BilinearUpsampling(name=f"detail_{stride}_up")(x))
        if stride > 2:
            parts.append(ResizeLike(name=f"detail_{stride}_high_level")(high_level, skip))
        x = layers.Concatenate(name=f"detail_{stride}_concat")(parts)
        x = apply_conv_block(x, filters, f"detail_{stride}")
    return x


def apply_low_level_branch(image: Any, widths: Sequence[int] = LOW_LEVEL_FILTERS) -> Any:
    """Extracts structure at full resolution. It is shallow, so that it stays local.

    Args:
        image: Keras tensor (N, H, W, 3), normalised.
        widths: channels of each layer.

    Returns:
        Keras tensor (N, H, W, C); each layer widens the receptive field by 2 pixels.
    """
    x = image
    for index, filters in enumerate(widths, start=1):
        x = apply_conv_block(x, filters, f"low_level_{index}")
    return x


def apply_estimate(high_level: Any) -> Any:
    """Estimates the alpha from semantic features alone.

    Args:
        high_level: Keras tensor (N, h, w, C) of the reduced image.

    Returns:
        Keras tensor (N, h, w, 1), the estimate's logit; float32 also under mixed precision.
    """
    x = apply_conv_block(high_level, ESTIMATE_FILTERS, "estimate")
    return layers.Conv2D(1, 1, dtype="float32", name="logit_estimate")(x)


def apply_fusion(
    high_level: Any,
    low_level: Any,
    widths: Sequence[int] = FUSION_FILTERS,
    estimate: Any | None = None,
) -> Any:
    """Fuses both branches into an alpha.

    Args:
        high_level: Keras tensor (N, H, W, C1).
        low_level: Keras tensor (N, H, W, C2).
        widths: channels of each layer.
        estimate: Keras tensor (N, h, w, 1), a logit that the fusion corrects; or None.

    Returns:
        Keras tensor `alpha` (N, H, W, 1) in [0, 1], float32 also under mixed precision.
    """
    x = layers.Concatenate(name="fusion")([high_level, low_level])
    for index, filters in enumerate(widths, start=1):
        x = apply_conv_block(x, filters, f"fusion_{index}")
    x = layers.Conv2D(1, 1, dtype="float32", name="logit")(x)
    if estimate is not None:
        enlarged = ResizeLike(dtype="float32", name="logit_estimate_up")(estimate, x)
        x = layers.Add(dtype="float32", name="logit_sum")([x, enlarged])
    return layers.Activation("sigmoid", dtype="float32", name="alpha")(x)
