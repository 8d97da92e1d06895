"""Keras layers of the matting networks. Importing this registers them for loading models."""

from kmatting.layers.attention import CWise, SWise
from kmatting.layers.normalization import BatchNormalization
from kmatting.layers.upsample import BilinearUpsampling

__all__ = ["BatchNormalization", "BilinearUpsampling", "CWise", "SWise"]
