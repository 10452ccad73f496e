"""Cross attention that carries information from one branch to the other (FACT, section 3.3).

Shapes: N rows of X, M rows of Y, H channels.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from vidseg.layers.onednn import Linear, linear

from .filters import filter_frames
from .sinusoid import add_position
from .taps import PointwiseTaps

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
        """Gathers; positions take part in keys and queries, not in values. Shapes as above.

        Frames are many and tokens few, so matrices act on the tokens wherever the order of linear
        maps is free: the maps of keys, queries and values then cost next to nothing.
        """
        x_is_longer = len(x) > len(y)
        logits = self._logits(add_position(x, x_pos), add_position(y, y_pos), maps_y=x_is_longer)
        attention = logits.float().softmax(-1).to(logits.dtype)
        y_weight, x_weight = self.Y_W.weight.split([self.y_dim, self.X_V.out_features], 1)
        if x_is_longer:  # rows of the attention sum to 1, so the bias of the values stays
            gathered = linear(self.dropout(self.X_V(attention @ x)), x_weight)
        elif self.training and self.dropout.p:
            gathered = linear(self.dropout(attention @ self.X_V(x)), x_weight)
        else:
            gathered = attention @ linear(self.X_V(x), x_weight)
        weights = (y_weight, self.Y_W.bias)
        out = filter_frames(self.dropout(y), PointwiseTaps(), weights, residual=gathered)
        return out, logits, attention

    def _logits(self, x: Tensor, y: Tensor, *, maps_y: bool) -> Tensor:
        """Gives ``(M, N)``, products of queries and keys; maps only Y or only X."""
        if maps_y:
            queries = self.Y_Q(y)  # (M, H)
            asked, bias = queries @ self.X_K.weight, queries @ self.X_K.bias
            return (asked @ x.t() + bias[:, None]) * self.scale
        keys = self.X_K(x)  # (N, H)
        asked, bias = keys @ self.Y_Q.weight, keys @ self.Y_Q.bias
        return (y @ asked.t() + bias) * self.scale
