"""Stateless building blocks: attention, position codes, deformable sampling, MLP, norms."""

from .attention import CrossAttentionLayer, FFNLayer, SelfAttentionLayer, attend
from .mlp import MLP
from .positional import sine_position

__all__ = [
    "MLP",
    "CrossAttentionLayer",
    "FFNLayer",
    "SelfAttentionLayer",
    "attend",
    "sine_position",
]
