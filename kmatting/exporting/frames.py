"""Joins TFLite models of several sizes in one file that holds their weights once."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from kmatting.networks.network import FRAME_SIGNATURE, SIGNATURE
from kmatting.sizes import size_text


def signature_name(size: tuple[int, int]) -> str:
    """Names the signature of a size, height and width, in a file of several: `matte_288x512`."""
    return FRAME_SIGNATURE.format(size_text(size))


def join(models: Mapping[tuple[int, int], bytes]) -> bytes:
    """Joins TFLite models of several sizes in one file.

    Each size keeps its graph as it is. Constants that are equal in two of them, such as weights,
    are stored once.

    Args:
        models: for each size, height and width, a flat buffer with one signature.

    Returns:
        A flat buffer with a signature for each size, see `signature_name`. The first is also there
        as `serving_default`. A single model is returned as it is.
    """
    first, *others = models.values()
    if not others:
        return first
    from ai_edge_litert.tools import flatbuffer_utils

    joined = _read(first)
    places = {_content(buffer): place for place, buffer in enumerate(joined.buffers) if place}
    default = copy.deepcopy(joined.signatureDefs[0])
    for content in others:
        _add(joined, _read(content), places)
    for size, graph, signature in zip(models, joined.subgraphs, joined.signatureDefs, strict=True):
        graph.name = signature.signatureKey = signature_name(size).encode()
    default.signatureKey = SIGNATURE.encode()
    joined.signatureDefs.insert(0, default)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(joined))


def _read(content: bytes) -> Any:
    """Reads a flat buffer; its constants become arrays, which are written fast."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(content)
    for buffer in model.buffers:
        if buffer.data is not None:
            buffer.data = np.frombuffer(bytes(buffer.data), np.uint8)
    return model


def _add(joined: Any, model: Any, places: dict[bytes, int]) -> None:
    """Adds the graph of a model to another model.

    Args:
        joined: the model that is extended.
        model: the model whose graph is moved.
        places: where in `joined.buffers` each constant is; extended.
    """
    (graph,), (signature,) = model.subgraphs, model.signatureDefs
    for tensor in graph.tensors:
        buffer = model.buffers[tensor.buffer]
        content = _content(buffer)
        if content and content not in places:
            places[content] = len(joined.buffers)
            joined.buffers.append(buffer)
        tensor.buffer = places[content] if content else 0  # the first one is empty, for all
    first = len(joined.operatorCodes)
    joined.operatorCodes += model.operatorCodes
    for operation in graph.operators:
        operation.opcodeIndex += first
    signature.subgraphIndex = len(joined.subgraphs)
    joined.subgraphs.append(graph)
    joined.signatureDefs.append(signature)


def _content(buffer: Any) -> bytes:
    return b"" if buffer.data is None else buffer.data.tobytes()
