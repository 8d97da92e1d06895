"""Keras layers of the matting networks. Importing this registers them for loading models."""

from kmatting.layers.attention import CWise, SWise
from kmatting.layers.normalization import FusedBatchNormalization
from kmatting.layers.upsample import BilinearUpsampling, ReduceTo, ResizeLike

__all__ = [
    "BilinearUpsampling",
    "CWise",
    "FusedBatchNormalization",
    "ReduceTo",
    "ResizeLike",
    "SWise",
]
