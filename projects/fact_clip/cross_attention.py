"""Cross attention that carries information from one branch to the other (FACT, section 3.3).

Shapes: N rows of X, M rows of Y, H channels.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from vidseg.layers.onednn import Linear

from .sinusoid import add_position

__all__ = ["CrossAttention"]


class CrossAttention(nn.Module):
    """Lets Y gather from X by one attention head, without residual or norm.

    Args:
        x_dim: width of X.
        y_dim: width of Y.
        out_dim: width of the result.
        head_dim: width of keys, queries and values.
        dropout: of Y and what it gathered, before the last map.

    Shape:
        - input: X ``(N, x_dim)`` and Y ``(M, y_dim)``, with positions that may be narrower
        - output: ``(M, out_dim)``; attention logits and attention, both ``(M, N)``
    """

    def __init__(
        self, x_dim: int, y_dim: int, out_dim: int, *, head_dim: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.X_K = Linear(x_dim, head_dim)
        self.X_V = Linear(x_dim, head_dim)
        self.Y_Q = Linear(y_dim, head_dim)
        self.Y_W = Linear(y_dim + head_dim, out_dim)
        self.dropout = nn.Dropout(dropout)
        self.y_dim = y_dim
        self.scale = 1 / math.sqrt(head_dim)

    def forward(
        self, x: Tensor, y: Tensor, *, x_pos: Tensor | None = None, y_pos: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gathers; positions take part in keys and queries, not in values. Shapes as above."""
        keys = self.X_K(add_position(x, x_pos))  # (N, H)
        queries = self.Y_Q(add_position(y, y_pos))  # (M, H)
        logits = queries @ keys.t() * self.scale  # (M, N)
        attention = logits.softmax(-1)
        gathered = attention @ self.X_V(x)  # (M, H)
        weight = self.Y_W.weight
        out = nn.functional.linear(self.dropout(y), weight[:, : self.y_dim], self.Y_W.bias)
        out = out + nn.functional.linear(self.dropout(gathered), weight[:, self.y_dim :])
        return out, logits, attention
