"""Stateless building blocks: attention, position codes, deformable sampling, MLP, norms."""

from .attention import CrossAttentionLayer, FFNLayer, SelfAttentionLayer, attend
from .deformable import MSDeformAttn, cell_centres
from .mlp import MLP
from .norm import ConvNorm, FrozenBatchNorm2d, build_norm, group_norm
from .positional import sine_position

__all__ = [
    "MLP",
    "ConvNorm",
    "CrossAttentionLayer",
    "FFNLayer",
    "FrozenBatchNorm2d",
    "MSDeformAttn",
    "SelfAttentionLayer",
    "attend",
    "build_norm",
    "cell_centres",
    "group_norm",
    "sine_position",
]
