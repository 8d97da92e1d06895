"""The networks: a high-level and a low-level branch, fused; built by name."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kmatting.models.builders import build_model, model1, model2
    from kmatting.models.encoder import encoder_layers
    from kmatting.models.recompute import recompute_dense_blocks

__all__ = ["build_model", "encoder_layers", "model1", "model2", "recompute_dense_blocks"]

# Imported on first use: `kmatting.models.names` must not import Keras.
_HOMES = {
    "build_model": "kmatting.models.builders",
    "encoder_layers": "kmatting.models.encoder",
    "model1": "kmatting.models.builders",
    "model2": "kmatting.models.builders",
    "recompute_dense_blocks": "kmatting.models.recompute",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
