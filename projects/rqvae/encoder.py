"""Transformer over the frames of a document, and the clock that frames and windows share.

Shapes: B documents, T frames, C latent width. Masks are bool, True = valid frame.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from vidseg.layers.attention import FFNLayer, SelfAttentionLayer

__all__ = [
    "POSITION_SCALE",
    "DocumentEncoder",
    "PositionalQueries",
    "sinusoidal_positions",
    "start_small",
]

POSITION_SCALE = 0.3
"""Of positions that are added to features of variance 1, which they would drown at first."""

_TEMPERATURE = 10000.0
_BRANCH_SCALE = 0.3


def sinusoidal_positions(times: Tensor, channels: int) -> Tensor:
    """Encodes places in time (Vaswani et al., 2017, section 3.5).

    Args:
        times: ``(...)`` in frames; need not be whole.
        channels: width of the code, even: the first half are sines, the second cosines.

    Returns:
        ``(..., channels)`` float32.
    """
    half = torch.arange(channels // 2, dtype=torch.float64, device=times.device)
    # Late in a long document float32 would be too coarse for the fastest of the waves.
    angles = times.double()[..., None] * _TEMPERATURE ** (-2 * half / channels)
    angles = angles.remainder(2 * math.pi).float()
    return torch.cat([angles.sin(), angles.cos()], -1)


def start_small(*branches: Any) -> None:
    """Lets residual branches add little at first, as deep pre-norm networks want it.

    Args:
        branches: multi-head attentions and feed-forward networks.

    Source: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019,
    section 2.3.
    """
    with torch.no_grad():
        for branch in branches:
            last = branch.linear2 if isinstance(branch, FFNLayer) else branch.out_proj
            last.weight.mul_(_BRANCH_SCALE)


class DocumentEncoder(nn.Module):
    """Pre-norm transformer encoder whose attention may be confined to a neighbourhood.

    Args:
        latent_dim: C.
        num_layers: blocks of self-attention and feed-forward network.
        nhead: attention heads.
        dim_feedforward: inner width of the networks; 0 for 4 C.
        dropout: of attention weights and of what blocks add.
        context: frames to each side that every layer sees; 0 for the whole document.
    """

    def __init__(
        self,
        latent_dim: int,
        num_layers: int,
        nhead: int = 8,
        *,
        dim_feedforward: int = 0,
        dropout: float = 0.0,
        context: int = 0,
    ) -> None:
        super().__init__()
        hidden = dim_feedforward or 4 * latent_dim
        self.attention_layers = nn.ModuleList(
            SelfAttentionLayer(latent_dim, nhead, dropout=dropout, pre_norm=True, radius=context)
            for _ in range(num_layers)
        )
        self.ffn_layers = nn.ModuleList(
            FFNLayer(latent_dim, hidden, dropout=dropout, pre_norm=True) for _ in range(num_layers)
        )
        for attention, ffn in zip(self.attention_layers, self.ffn_layers, strict=True):
            start_small(attention.self_attn, ffn)
        # Frames to each side on which an output depends; None: all.
        self.reach = context * num_layers if context or not num_layers else None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encodes frames.

        Args:
            x: ``(B, T, C)`` with positions.
            mask: ``(B, T)``; None if all frames are valid.

        Returns:
            ``(B, T, C)``; what stands at masked frames means nothing.
        """
        padding = None if mask is None else mask.logical_not()
        for attention, ffn in zip(self.attention_layers, self.ffn_layers, strict=True):
            x = ffn(attention(x, key_padding_mask=padding))
        return x


class PositionalQueries(nn.Module):
    """What a frame of the decoder starts from: its time, and a learned vector of its place.

    Args:
        length: of the learned table. That of a longer document is stretched.
        latent_dim: C.
    """

    def __init__(self, length: int, latent_dim: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(length, latent_dim))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, times: Tensor, num_frames: int) -> Tensor:
        """Gives the queries of frames.

        Args:
            times: int64 ``(T,)``.
            num_frames: of the whole document.

        Returns:
            ``(T, C)``.
        """
        length, channels = self.table.shape
        if num_frames <= length:
            learned = self.table[times]
        else:
            place = ((times + 0.5) * (length / num_frames) - 0.5).clamp_min(0)
            before = place.long()
            after = (before + 1).clamp_max(length - 1)
            learned = torch.lerp(self.table[before], self.table[after], (place - before)[:, None])
        return learned + POSITION_SCALE * sinusoidal_positions(times, channels)
