"""The temporal slot transformer: every slot of a clip corrected by what it was before and after.

Shapes: B clips, T frames, K slots, D slot width, L frames of a window.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.layers.attention import FFNLayer, SelfAttentionLayer

from .frame_masking import interpolate
from .windows import map_windows

__all__ = ["AXES", "FILLS", "TIME_POSITIONS", "TemporalSlotTransformer"]

AXES = ("time", "factorised", "joint")
FILLS = ("interpolation", "none")
TIME_POSITIONS = ("sinusoidal", "learned")


class TemporalSlotTransformer(nn.Module):
    """Pre-norm layers over the tracks of slots, in both directions of time.

    The result is the input plus what the transformer adds. Its last projection starts at zero, so
    an untrained one changes nothing. For hidden slots the input is a guess, see ``fill``.

    Args:
        dim: D.
        num_layers: transformer layers.
        num_heads: a divisor of ``dim``.
        ffn_ratio: inner width of the feed-forward networks, relative to D.
        axis: a layer attends along ``"time"``; ``"factorised"``, every other one over the slots of
            a frame; ``"joint"``, over all slots of all frames.
        position: code of time, ``"sinusoidal"`` or ``"learned"``.
        position_length: frames of the learned table, interpolated for other lengths.
        num_identities: K, to add a learned code of the slot; 0 for none.
        fill: guess at hidden slots: ``"interpolation"`` of the nearest visible ones of the slot, or
            ``"none"``, zeros. A learned mask token is added to what the layers read of either.
        window: L. Longer clips are read in windows.
        stride: frames from one window to the next.

    Raises:
        ValueError: if the heads do not share the width evenly, or windows leave frames out.

    Source: bidirectional masked modelling as in BERT (Devlin et al., NAACL 2019) on the slots of
    Locatello et al. (NeurIPS 2020).
    """

    def __init__(
        self,
        dim: int,
        *,
        num_layers: int = 3,
        num_heads: int = 4,
        ffn_ratio: int = 4,
        axis: str = "time",
        position: str = "sinusoidal",
        position_length: int = 24,
        num_identities: int = 0,
        fill: str = "interpolation",
        window: int = 24,
        stride: int = 12,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"{num_heads} heads cannot share a width of {dim} evenly")
        if not 1 <= stride <= window:
            raise ValueError(f"windows of {window} frames every {stride} frames leave some out")
        self.axis, self.fill = axis, fill
        self.window, self.stride = window, stride
        self.mask_token = nn.Embedding(1, dim)
        self.time = nn.Embedding(position_length, dim) if position == "learned" else None
        self.identity = nn.Embedding(num_identities, dim) if num_identities else None
        self.layers = nn.ModuleList(
            _Layer(dim, num_heads, ffn_ratio * dim) for _ in range(num_layers)
        )
        # Slots have no common scale, and codes of time would drown beside long ones.
        self.input_norm = nn.LayerNorm(dim)
        self.norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, dim)
        for table in (self.mask_token, self.time, self.identity):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, slots: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Corrects visible slots and predicts hidden ones.

        Args:
            slots: ``(B, T, K, D)``; what stands in hidden entries is not read.
            hidden: bool ``(B, T, K)``; None if all are visible.

        Returns:
            ``(B, T, K, D)`` of the type of ``slots``.
        """
        known, tokens = slots, slots
        if hidden is not None:
            if self.fill == "interpolation":
                known = interpolate(slots, hidden)
            else:
                known = slots.masked_fill(hidden[..., None], 0.0)
            tokens = known + hidden[..., None] * self.mask_token.weight[0]
        if self.identity is not None:
            tokens = tokens + self.identity.weight
        return known + map_windows(self._run, tokens, self.window, self.stride).to(slots.dtype)

    def _run(self, tokens: Tensor) -> Tensor:
        """Gives what is added to the slots of windows, ``(M, L, K, D)``."""
        x = self.input_norm(tokens) + self._time_code(tokens)[:, None]
        num_windows, length, num_slots, _ = x.shape
        for number, layer in enumerate(self.layers):
            if self.axis == "joint":
                x = layer(x.flatten(1, 2)).unflatten(1, (length, num_slots))
            elif self.axis == "factorised" and number % 2:
                x = layer(x.flatten(0, 1)).unflatten(0, (num_windows, length))
            else:
                tracks = x.transpose(1, 2).flatten(0, 1)  # (M K, L, D)
                x = layer(tracks).unflatten(0, (num_windows, num_slots)).transpose(1, 2)
        added: Tensor = self.output(self.norm(x))
        return added

    def _time_code(self, tokens: Tensor) -> Tensor:
        """Codes the frames of a window, ``(L, D)``."""
        length, dim = tokens.shape[1], tokens.shape[-1]
        if self.time is None:
            return _sinusoids(length, dim, tokens.device).to(tokens.dtype)
        table = self.time.weight
        if length == len(table):
            return table
        return F.interpolate(table.T[None], size=length, mode="linear", align_corners=length > 1)[
            0
        ].T


class _Layer(nn.Module):
    """Self-attention and a feed-forward network over ``(M, N, D)``."""

    def __init__(self, dim: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.attention = SelfAttentionLayer(dim, num_heads, pre_norm=True)
        self.ffn = FFNLayer(dim, hidden, pre_norm=True)

    def forward(self, x: Tensor) -> Tensor:
        """Runs the layer."""
        out: Tensor = self.ffn(self.attention(x))
        return out


def _sinusoids(length: int, dim: int, device: torch.device) -> Tensor:
    """Sines and cosines of the frame's number at geometrically falling frequencies, ``(L, D)``."""
    half = -(-dim // 2)
    rate = torch.exp(torch.arange(half, device=device) * (-math.log(10000.0) / half))
    phase = torch.arange(length, device=device)[:, None] * rate
    return torch.cat([phase.sin(), phase.cos()], 1)[:, :dim]
