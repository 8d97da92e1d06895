"""Reads the tensors of a PyTorch weights file without PyTorch."""

import os
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kmatting.errors import ConfigError

_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """Reads a state dict in the format of `torch.save` before PyTorch 1.6, a series of pickles.

    No code in the file is run: anything but plain tensors and containers is refused.

    Args:
        path: the file.

    Returns:
        Arrays by name, float32 or int64.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is damaged, or in another format.
    """
    with path.open("rb") as file:
        try:
            for _ in ("magic number", "protocol", "the machine that wrote it"):
                _Unpickler(file).load()
            tensors: dict[str, _Tensor] = _Unpickler(file).load()
            dtypes = {tensor.storage: tensor.dtype for tensor in tensors.values()}
            keys = _Unpickler(file).load()
            storages = {key: _read_storage(file, dtypes[key]) for key in keys}
            return {name: tensor.of(storages[tensor.storage]) for name, tensor in tensors.items()}
        # pickle raises nearly any type on a damaged file.
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise ConfigError(
                f"{path}: not a state dict in PyTorch's format before 1.6 ({reason})"
            ) from error


@dataclass(frozen=True)
class _Tensor:
    """The place of a tensor in a storage; offset and strides count elements."""

    storage: str
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, storage: np.ndarray) -> np.ndarray:
        """Returns the tensor as a view of its storage."""
        pairs = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((side - 1) * stride for side, stride in pairs)
        if min(self.offset, *self.strides, 0) < 0 or last >= len(storage):
            raise pickle.UnpicklingError("a tensor reaches beyond its storage")
        strides = [stride * storage.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(storage[self.offset :], self.shape, strides)


class _Unpickler(pickle.Unpickler):
    """Loads tensors and ordered dictionaries, and refuses everything else."""

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
    size = int.from_bytes(file.read(8), "little") * dtype.itemsize
    left = os.fstat(file.fileno()).st_size - file.tell()
    if size > left:  # checked before reading: a damaged size could be more than the memory
        raise EOFError(f"it is truncated: {size} bytes of weights expected, {left} left")
    return np.frombuffer(file.read(size), dtype)
