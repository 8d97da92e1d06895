"""Keras layers of the matting networks. Importing this registers them for loading models."""

from kmatting.layers.attention import CWise, SWise
from kmatting.layers.normalization import FusedBatchNormalization
from kmatting.layers.upsample import BilinearUpsampling, ResizeLike

__all__ = ["BilinearUpsampling", "CWise", "FusedBatchNormalization", "ResizeLike", "SWise"]
