"""Keras layers of the matting networks. Importing this registers them for loading models."""

from kmatting.layers.attention import CWise, SWise
from kmatting.layers.normalization import BatchNormalization
from kmatting.layers.upsample import BilinearUpsampling, ResizeLike

__all__ = ["BatchNormalization", "BilinearUpsampling", "CWise", "ResizeLike", "SWise"]
