"""Quantizes a TFLite model to 8 bits, and leaves in floats what would suffer most."""

import contextlib
import copy
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kmatting.errors import UsageError

# Layers kept in float, since 8 bits cost accuracy there and save little time: the colours, the
# channel attention, the logit.
_FLOAT_LAYERS = ("normalisation", "full_normalisation", "reduced", "c_wise", "logit")
# So are layers with few weights, such as an encoder's first and its depthwise ones. Those that run
# at full resolution are the exception: 8 bits do them no harm, and they would take the most time.
_FEW_WEIGHTS = 1024
_FULL_RESOLUTION = ("low_level_", "full_", "detail_", "fusion_")
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_LARGEST_CODE = 127  # of a weight
_LARGEST_BIAS = 2**30  # as a 32-bit code, with room for the sum that it is added to


@dataclass
class _Activation:
    """What a tensor was on the photos: its extremes, and the mean of each channel."""

    low: float
    high: float
    means: np.ndarray


def quantize(content: bytes, photos: Sequence[np.ndarray]) -> bytes:
    """Quantizes weights and activations to 8 bits; input and output stay float32.

    Weights get a scale for each output channel, activations the range that they have on the photos.
    Rounding the weights shifts the mean of what a layer returns; its biases are corrected by that
    shift.

    Args:
        content: flat buffer of a float32 model with one input.
        photos: uint8 arrays (H, W, 3) of the model's size, at least one.

    Returns:
        The flat buffer of the quantized model.

    Raises:
        ModuleNotFoundError: without the extra `quantize`.
        ValueError: without photos.

    Reference:
        Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction
        (https://arxiv.org/abs/1906.04721), section 4.2.
    """
    from ai_edge_litert.tools import flatbuffer_utils
    from ai_edge_quantizer import quantizer

    if not photos:
        raise UsageError("Expected at least one photo to calibrate on, received none.")
    model = flatbuffer_utils.read_model_from_bytearray(content)
    activations = _measure(content, model, photos)
    floats = {_label(model, operation) for operation in _float_operations(model)}
    for operation in model.subgraphs[0].operators:
        if _kind(model, operation) in _CONVOLUTIONS and _label(model, operation) not in floats:
            _correct_bias(model, operation, activations)
    _empty_unused_buffers(model)
    ranges = {
        _name(model, tensor): {
            "min": np.reshape(np.float32(seen.low), [1] * seen.means.ndim),
            "max": np.reshape(np.float32(seen.high), [1] * seen.means.ndim),
        }
        for tensor, seen in activations.items()
    }
    corrected = bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    with _silence():
        result = quantizer.Quantizer(corrected, _recipe(floats)).quantize(ranges)
    return bytes(result.quantized_model)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Hides the quantizer's report and progress bar, and the warning that all tensors are kept."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(action="ignore", category=UserWarning),
    ):
        yield


def _measure(content: bytes, model: Any, photos: Sequence[np.ndarray]) -> dict[int, _Activation]:
    """Runs the model on the photos; returns what was seen of each tensor that it computes."""
    from ai_edge_litert.interpreter import Interpreter

    with _silence():
        interpreter = Interpreter(model_content=content, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    image = interpreter.get_input_details()[0]["index"]
    graph = model.subgraphs[0]
    tensors = [image, *(tensor for operation in graph.operators for tensor in operation.outputs)]
    seen: dict[int, _Activation] = {}
    for photo in photos:
        interpreter.set_tensor(image, photo[None] / np.float32(255))
        interpreter.invoke()
        for tensor in tensors:
            values = interpreter.get_tensor(tensor)
            low, high = float(values.min()), float(values.max())
            means = values.mean(axis=tuple(range(values.ndim - 1)), keepdims=True) / len(photos)
            if tensor in seen:
                before = seen[tensor]
                low, high = min(low, before.low), max(high, before.high)
                means = means + before.means
            seen[tensor] = _Activation(low, high, means)
    return seen


def _float_operations(model: Any) -> list[Any]:
    """Lists the operations that stay in floats."""

    def stays(operation: Any) -> bool:
        label, kind = _label(model, operation), _kind(model, operation)
        # The largest code of an 8-bit sigmoid is 255/256: nothing would be opaque.
        if kind == "LOGISTIC" or label.startswith(_FLOAT_LAYERS):
            return True
        if kind not in _CONVOLUTIONS or label.startswith(_FULL_RESOLUTION):
            return False
        return _constant(model, operation.inputs[1]).size < _FEW_WEIGHTS

    return [operation for operation in model.subgraphs[0].operators if stays(operation)]


def _correct_bias(model: Any, operation: Any, activations: dict[int, _Activation]) -> None:
    """Subtracts from a layer's biases the shift that the rounding of its weights will cause."""
    features, weights, *biases = operation.inputs
    if not biases or biases[0] < 0:
        return
    before, bias = _constant(model, weights), _constant(model, biases[0])
    # Output channels come last in depthwise kernels, (1, H, W, C), else first, (C, H, W, input).
    depthwise = _kind(model, operation) == "DEPTHWISE_CONV_2D"
    axes = tuple(range(before.ndim - 1)) if depthwise else tuple(range(1, before.ndim))
    kernel = _with_room_for_bias(before, bias, axes, activations[features])
    scale = np.abs(kernel).max(axis=axes, keepdims=True) / _LARGEST_CODE
    rounded = np.rint(kernel / np.where(scale > 0, scale, 1)) * scale
    shift = ((rounded - before) * activations[features].means.ravel()).sum(axis=axes)
    _replace(model, operation, 1, kernel)
    _replace(model, operation, 2, bias - shift)


def _with_room_for_bias(
    kernel: np.ndarray, bias: np.ndarray, axes: tuple[int, ...], features: _Activation
) -> np.ndarray:
    """Raises a weight of channels that have hardly any, or their biases would overflow.

    The code of a bias counts in units of the features' scale times the weights' scale. The change
    of the output is below a ten-thousandth of the bias.
    """
    units = _LARGEST_BIAS * max(features.high - features.low, 1e-6) / (255 * _LARGEST_CODE)
    least = np.abs(bias) / units
    kernel = kernel.copy()
    channels = np.moveaxis(kernel, -1, 0) if axes[0] == 0 else kernel
    weak = np.abs(kernel).max(axis=axes) < least
    channels[(weak, *[0] * (kernel.ndim - 1))] = least[weak]
    return kernel


def _replace(model: Any, operation: Any, position: int, values: np.ndarray) -> None:
    """Gives an operation another constant, since converters let operations share one."""
    tensors = model.subgraphs[0].tensors
    tensor = copy.copy(tensors[operation.inputs[position]])
    tensor.name = tensor.name + b"/" + tensors[operation.outputs[0]].name
    buffer = copy.copy(model.buffers[tensor.buffer])
    buffer.data = np.frombuffer(values.astype(np.float32).tobytes(), np.uint8)
    tensor.buffer = len(model.buffers)
    operation.inputs[position] = len(tensors)
    model.buffers.append(buffer)
    tensors.append(tensor)


def _empty_unused_buffers(model: Any) -> None:
    """Drops constants that were replaced: the quantizer would write them in floats."""
    graph = model.subgraphs[0]
    used = {graph.tensors[i].buffer for op in graph.operators for i in op.inputs if i >= 0}
    for tensor in graph.tensors:
        if tensor.buffer not in used:
            model.buffers[tensor.buffer].data = None


def _recipe(floats: set[str]) -> Any:
    """Describes to the quantizer what becomes 8 bits: all but the operations in `floats`."""
    from ai_edge_quantizer import recipe_manager
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.quantizer import AlgorithmName

    manager = recipe_manager.RecipeManager()
    manager.add_static_config(
        ".*", TFLOperationName.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8
    )
    for end in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
        manager.add_quantization_config(".", end, algorithm_key=AlgorithmName.NO_QUANTIZE)
    if floats:
        names = "|".join(re.escape(name) for name in sorted(floats))
        manager.add_quantization_config(
            f"^({names});", TFLOperationName.ALL_SUPPORTED, algorithm_key=AlgorithmName.NO_QUANTIZE
        )
    return manager.get_quantization_recipe()


def _kind(model: Any, operation: Any) -> str:
    """Names an operation's kind, such as CONV_2D."""
    from ai_edge_litert.tools import flatbuffer_utils

    return str(flatbuffer_utils.opcode_to_name(model, operation.opcodeIndex))


def _name(model: Any, tensor: int) -> str:
    return str(model.subgraphs[0].tensors[tensor].name.decode())


def _label(model: Any, operation: Any) -> str:
    """Names an operation as the quantizer does, by its output."""
    return _name(model, operation.outputs[0])


def _constant(model: Any, tensor: int) -> np.ndarray:
    """Returns a float32 constant."""
    about = model.subgraphs[0].tensors[tensor]
    return np.frombuffer(bytes(model.buffers[about.buffer].data), np.float32).reshape(about.shape)
