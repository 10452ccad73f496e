"""Branches over action tokens: transformer layers, or a GRU over a transcript (FACT, section 3.2).

Shapes: M tokens, T frames, A token width, H output width.
"""

from __future__ import annotations

from torch import Tensor, nn

from vidseg.layers.attention import attend
from vidseg.layers.onednn import Linear

from .sinusoid import add_position

__all__ = ["SADecoder", "SCADecoder", "TranscriptGRU"]


class SCADecoder(nn.Module):
    """Layers of self-attention among tokens and cross-attention to frames, for input blocks.

    Args:
        dim: A.
        frame_dim: width of the frames.
        out_dim: H.
        num_layers: layers.
        num_heads: attention heads, a divisor of A.
        ff_dim: inner width of the feed-forward networks.
        dropout: of attention weights, inner features and what layers add.

    Shape:
        - input: tokens ``(M, A)``, frames ``(T, frame_dim)``
        - output: ``(M, H)``
    """

    def __init__(
        self,
        dim: int,
        frame_dim: int,
        out_dim: int,
        *,
        num_layers: int,
        num_heads: int,
        ff_dim: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _SCALayer(dim, frame_dim, num_heads, ff_dim, dropout) for _ in range(num_layers)
        )
        self.out_linear = Linear(dim, out_dim)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        tokens: Tensor,
        frames: Tensor,
        *,
        frame_pos: Tensor | None = None,
        token_pos: Tensor | None = None,
    ) -> Tensor:
        """Runs the layers; see the class for shapes. Positions may be narrower than features."""
        keys = add_position(frames, frame_pos)
        for layer in self.layers:
            tokens = layer(tokens, frames, keys, token_pos)
        return self.out_linear(self.norm(tokens))


class SADecoder(nn.Module):
    """Layers of self-attention among tokens, for update blocks.

    Args:
        dim: A.
        out_dim: H.
        num_layers: layers.
        num_heads: attention heads, a divisor of A.
        ff_dim: inner width of the feed-forward networks.
        dropout: of attention weights, inner features and what layers add.

    Shape:
        - input: tokens ``(M, A)``
        - output: ``(M, H)``
    """

    def __init__(
        self,
        dim: int,
        out_dim: int,
        *,
        num_layers: int,
        num_heads: int,
        ff_dim: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _SALayer(dim, num_heads, ff_dim, dropout) for _ in range(num_layers)
        )
        self.out_linear = Linear(dim, out_dim)

    def forward(self, tokens: Tensor, *, token_pos: Tensor | None = None) -> Tensor:
        """Runs the layers; see the class for shapes."""
        for layer in self.layers:
            tokens = layer(tokens, token_pos)
        return self.out_linear(tokens)


class TranscriptGRU(nn.Module):
    """A bidirectional GRU over the segments of a transcript, for input blocks.

    Args:
        dim: A, even.
        out_dim: H.
        num_layers: layers.
        dropout: between layers.
        out_map: whether a linear map leads to H; else A must be H.

    Shape:
        - input: tokens ``(M, A)``
        - output: ``(M, H)``

    Raises:
        ValueError: if the widths do not fit.
    """

    def __init__(
        self, dim: int, out_dim: int, *, num_layers: int, dropout: float = 0.0, out_map: bool
    ) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"both directions share the width, so {dim} must be even")
        if not out_map and dim != out_dim:
            raise ValueError(f"width {dim} must be {out_dim} without a map at the end")
        between = dropout if num_layers > 1 else 0.0
        self.gru = nn.GRU(dim, dim // 2, num_layers, dropout=between, bidirectional=True)
        self.layernorm = nn.LayerNorm(dim)
        self.out_map = Linear(dim, out_dim) if out_map else nn.Identity()

    def forward(
        self,
        tokens: Tensor,
        frames: Tensor | None = None,
        *,
        frame_pos: Tensor | None = None,
        token_pos: Tensor | None = None,
    ) -> Tensor:
        """Runs over the tokens alone; see the class for shapes.

        Frames and positions are those of the other branches of input blocks, and have no effect.
        """
        return self.out_map(self.layernorm(self.gru(tokens)[0]))


class _SCALayer(nn.Module):
    """Self-attention, cross-attention and feed-forward network, each with residual and norm."""

    def __init__(
        self, dim: int, frame_dim: int, num_heads: int, ff_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, num_heads, dropout=dropout)
        self.multihead_attn = nn.MultiheadAttention(
            dim, num_heads, kdim=frame_dim, vdim=frame_dim, dropout=dropout
        )
        self.linear1 = Linear(dim, ff_dim)
        self.linear2 = Linear(ff_dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, tokens: Tensor, frames: Tensor, keys: Tensor, token_pos: Tensor | None
    ) -> Tensor:
        """Takes tokens ``(M, A)`` and frames, once without and once with positions."""
        query = add_position(tokens, token_pos)
        tokens = self.norm1(tokens + self.dropout(_attend(self.self_attn, query, query, tokens)))
        query = add_position(tokens, token_pos)
        read = _attend(self.multihead_attn, query, keys, frames)
        tokens = self.norm2(tokens + self.dropout(read))
        added = self.linear2(self.dropout(self.linear1(tokens, relu=True)))
        return self.norm3(tokens + self.dropout(added))


class _SALayer(nn.Module):
    """Self-attention and feed-forward network, each with residual and norm."""

    def __init__(self, dim: int, num_heads: int, ff_dim: int, dropout: float) -> None:
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(dim, num_heads, dropout=dropout)
        self.linear1 = Linear(dim, ff_dim)
        self.linear2 = Linear(ff_dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, token_pos: Tensor | None) -> Tensor:
        """Takes tokens ``(M, A)``."""
        query = add_position(tokens, token_pos)
        read = _attend(self.multihead_attn, query, query, tokens)
        tokens = self.norm1(tokens + self.dropout(read))
        added = self.linear2(self.dropout(self.linear1(tokens, relu=True)))
        return self.norm2(tokens + self.dropout(added))


def _attend(attention: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attends without a batch dimension, ``(N, C)``."""
    # Equal inputs stay one tensor, which takes one product with the packed weights.
    batched = {id(x): x[None] for x in (query, key, value)}
    return attend(attention, *(batched[id(x)] for x in (query, key, value)))[0]
