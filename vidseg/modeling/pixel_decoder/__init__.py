"""Pixel decoders: backbone maps to mask features and three maps for the query decoder."""

from .base import PixelFeatures
from .fpn import FPNPixelDecoder
from .msdeform import MSDeformPixelDecoder

__all__ = ["FPNPixelDecoder", "MSDeformPixelDecoder", "PixelFeatures"]
