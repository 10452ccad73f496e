"""Building blocks: attention, position codes, deformable sampling, MLP, norms, scaling."""

from .attention import CrossAttentionLayer, FFNLayer, SelfAttentionLayer, attend
from .deform_conv import DeformConv, offset_conv
from .deformable import MSDeformAttn, cell_centres
from .mlp import MLP
from .norm import ConvNorm, FrozenBatchNorm2d, SyncBatchNorm, build_norm, group_norm
from .onednn import Conv2d, Linear
from .padding import pad_sequences
from .positional import sine_position
from .standardisation import Standardisation

__all__ = [
    "MLP",
    "Conv2d",
    "ConvNorm",
    "CrossAttentionLayer",
    "DeformConv",
    "FFNLayer",
    "FrozenBatchNorm2d",
    "Linear",
    "MSDeformAttn",
    "SelfAttentionLayer",
    "Standardisation",
    "SyncBatchNorm",
    "attend",
    "build_norm",
    "cell_centres",
    "group_norm",
    "offset_conv",
    "pad_sequences",
    "sine_position",
]
