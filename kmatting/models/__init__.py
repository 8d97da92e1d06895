"""The two matting networks."""

from kmatting.models.builders import build_model, model1, model2
from kmatting.models.encoder import encoder_layers
from kmatting.models.recompute import recompute_dense_blocks

__all__ = ["build_model", "encoder_layers", "model1", "model2", "recompute_dense_blocks"]
