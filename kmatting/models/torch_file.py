"""Reads the tensors of a PyTorch weights file without PyTorch."""

import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """Reads a state dict that `torch.save` wrote before PyTorch 1.6 (a row of pickles).

    Nothing in the file is run: what is no plain tensor or container is refused.

    Args:
        path: the file.

    Returns:
        Arrays by name, float32 or int64.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is something else.
    """
    with path.open("rb") as file:
        try:
            for _ in ("magic number", "protocol", "about the machine that wrote it"):
                _Unpickler(file).load()
            tensors: dict[str, _Tensor] = _Unpickler(file).load()
            dtypes = {tensor.storage: tensor.dtype for tensor in tensors.values()}
            keys = _Unpickler(file).load()
            storages = {key: _read_storage(file, dtypes[key]) for key in keys}
            return {name: tensor.of(storages[tensor.storage]) for name, tensor in tensors.items()}
        except (pickle.UnpicklingError, EOFError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: no state dict of PyTorch's old format ({error}).") from error


@dataclass(frozen=True)
class _Tensor:
    """Where a tensor lies in which storage."""

    storage: str
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, storage: np.ndarray) -> np.ndarray:
        pairs = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((side - 1) * stride for side, stride in pairs)
        if min(self.offset, *self.strides, 0) < 0 or last >= len(storage):
            raise pickle.UnpicklingError("a tensor reaches beyond its storage")
        strides = [stride * storage.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(storage[self.offset :], self.shape, strides)


class _Unpickler(pickle.Unpickler):
    """Knows tensors and ordered dictionaries, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if name in _DTYPES:
            return _DTYPES[name]
        known = {"OrderedDict": OrderedDict, "_rebuild_tensor_v2": _rebuild_tensor}
        if name not in known:
            raise pickle.UnpicklingError(f"it holds a {module}.{name}")
        return known[name]

    def persistent_load(self, saved: Any) -> Any:
        _, dtype, key, *_ = saved
        return key, dtype


def _rebuild_tensor(storage: Any, offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
    key, dtype = storage
    return _Tensor(key, dtype, offset, tuple(shape), tuple(strides))


def _read_storage(file: BinaryIO, dtype: np.dtype) -> np.ndarray:
    count = int.from_bytes(file.read(8), "little")
    data = file.read(count * dtype.itemsize)
    if len(data) != count * dtype.itemsize:
        raise EOFError("it is truncated")
    return np.frombuffer(data, dtype)
