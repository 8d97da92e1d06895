"""Model metadata inside a `.tflite` file, which MediaPipe and Android's tools read.

It says how pixels become the input, what the output is, and the terms of the weights. The format is
a flat buffer of its own, TFLite's `metadata_schema.fbs` (https://ai.google.dev/edge/litert/models/metadata),
kept in the model under the name TFLITE_METADATA. Programs that do not know it ignore it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np

_NAME, _IDENTIFIER = b"TFLITE_METADATA", b"M001"
_MIN_PARSER_VERSION = "1.0.0"
# Values of unions and enumerations in the schema.
_IMAGE_PROPERTIES, _NORMALIZATION_OPTIONS, _RGB = 2, 1, 1


def with_model_metadata(content: bytes, metadata: Mapping[str, Any]) -> bytes:
    """Adds the model metadata to a TFLite model, or replaces it. The weights stay as they are.

    Args:
        content: the flat buffer.
        metadata: content of `kmatting.json`, see `kmatting.exporting.tflite.describe`.

    Returns:
        The flat buffer.
    """
    from ai_edge_litert.schema_py_generated import BufferT, MetadataT
    from ai_edge_litert.tools import flatbuffer_utils

    model = read_model(content)
    is_float = metadata["input"]["dtype"] == "float32"
    packed = np.frombuffer(_pack(metadata, is_float, len(model.subgraphs)), np.uint8)
    entries = {entry.name: entry for entry in model.metadata or ()}
    if _NAME in entries:
        model.buffers[entries[_NAME].buffer].data = packed
    else:
        entry, buffer = MetadataT(), BufferT()
        entry.name, entry.buffer, buffer.data = _NAME, len(model.buffers), packed
        model.metadata = [*(model.metadata or ()), entry]
        model.buffers.append(buffer)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def read_model(content: bytes) -> Any:
    """Reads a flat buffer; its constants become arrays, which are written fast."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    for buffer in model.buffers:
        if buffer.data is not None:
            buffer.data = np.frombuffer(bytes(buffer.data), np.uint8)
    return model


def _pack(metadata: Mapping[str, Any], is_float: bool, subgraphs: int) -> bytes:
    """Packs a `ModelMetadata` of the schema; numbers below are its fields, in their order."""
    builder = flatbuffers.Builder(1024)
    image = _pack_tensor(builder, metadata["input"], is_image=True, is_float=is_float)
    alpha = _pack_tensor(builder, metadata["output"], is_image=False, is_float=is_float)
    graph = _table(builder, {2: _vector(builder, [image]), 3: _vector(builder, [alpha])})
    texts = {
        0: metadata["name"],
        1: "Trimap-free image matting: photo in, alpha matte out.",
        2: str(metadata["version"]),
        5: metadata.get("licence"),
        7: _MIN_PARSER_VERSION,
    }
    offsets = {field: builder.CreateString(text) for field, text in texts.items() if text}
    offsets[3] = _vector(builder, [graph] * subgraphs)
    builder.Finish(_table(builder, offsets), _IDENTIFIER)
    return bytes(builder.Output())


def _pack_tensor(
    builder: flatbuffers.Builder, about: Mapping[str, Any], is_image: bool, is_float: bool
) -> int:
    """Packs a `TensorMetadata`: its name, that it is an RGB photo, and how levels become floats."""
    offsets = {0: builder.CreateString(about["name"])}
    if is_image:
        properties = _table(builder, {}, {0: _RGB})
        offsets[3] = _table(builder, {1: properties}, {0: _IMAGE_PROPERTIES})
        if is_float:  # (level - mean) / std
            mean, std = (builder.CreateNumpyVector(np.array([v], "<f4")) for v in (0, 255))
            normalization = _table(builder, {0: mean, 1: std})
            unit = _table(builder, {1: normalization}, {0: _NORMALIZATION_OPTIONS})
            offsets[4] = _vector(builder, [unit])
    return _table(builder, offsets)


def _table(
    builder: flatbuffers.Builder,
    offsets: Mapping[int, int],
    numbers: Mapping[int, int] | None = None,
) -> int:
    """Packs a table of fields that are other objects, and of fields that are small numbers."""
    numbers = numbers or {}
    builder.StartObject(1 + max((*offsets, *numbers)))
    for field, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(field, offset, 0)
    for field, number in numbers.items():
        builder.PrependUint8Slot(field, number, 0)
    return int(builder.EndObject())


def _vector(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())
