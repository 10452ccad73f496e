"""A transformer over the blobs of a clip that tells which of them belong to persistent objects.

Shapes: B clips, N tokens of the longest of them, R tokens of all clips together, C channels, L
layers, h heads, M keys: N, or N + 1 with the null key, which comes last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.layers.attention import FFNLayer
from vidseg.layers.mlp import MLP
from vidseg.layers.onednn import Linear

from .object_queries import ObjectQueries, QueryOutput
from .pair_bias import PairBias
from .tokenizer import Tokens

__all__ = ["ObjectPersistenceTransformer", "TokenAttention", "TransformerOutput", "received"]


@dataclass
class TransformerOutput:
    """What the transformer says of a batch; values in the padding mean nothing.

    Attributes:
        logits: ``(B, N)``, of "persistent".
        hidden: ``(B, N, C)``, the tokens after the last layer.
        weights: of each layer ``(B, h, N, M)``, rows sum to 1; empty unless asked for.
        summary: ``(B, N)``, what the summary query reads, mean over heads, sum 1; None without it.
        durations: ``(B, N)`` in [0, 1]; None without that head.
        contrast: ``(B, N, C)`` of length 1; None without that head.
        queries: None without object queries.
    """

    logits: Tensor
    hidden: Tensor
    weights: list[Tensor]
    summary: Tensor | None
    durations: Tensor | None
    contrast: Tensor | None
    queries: QueryOutput | None


class ObjectPersistenceTransformer(nn.Module):
    """Pre-norm encoder layers over tokens, and a logit for each.

    Args:
        dim: C.
        num_layers: L.
        num_heads: h, a divisor of ``dim``.
        dim_feedforward: inner width of the feed-forward networks.
        dropout: of attention weights and of what the blocks add.
        relative_bias: see ``PairBias``, as the next three.
        motion_gate: see there.
        track_bias: see there.
        null_key: see there.
        summary_query: a learned query looks at the tokens after the last layer. No token learns
            what it found: it shows where the supervision of attention draws it, nothing else.
        num_queries: object queries; 0 for none.
        query_layers: decoder layers of the object queries.
        durations: predict the share of the clip in which the object of a token is visible.
        contrast: map tokens to where those of one object, or class, are near.

    Raises:
        ValueError: if the heads do not share the width evenly.
    """

    def __init__(
        self,
        dim: int = 256,
        num_layers: int = 2,
        num_heads: int = 8,
        *,
        dim_feedforward: int = 512,
        dropout: float = 0.1,
        relative_bias: str = "none",
        motion_gate: float = 3.5,
        track_bias: bool = False,
        null_key: bool = False,
        summary_query: bool = False,
        num_queries: int = 0,
        query_layers: int = 2,
        durations: bool = False,
        contrast: bool = False,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"{num_heads} heads cannot share a width of {dim} evenly")
        self.pair_bias = PairBias(
            relative_bias,
            num_layers,
            num_heads,
            motion_gate=motion_gate,
            track_bias=track_bias,
            null_key=null_key,
        )
        self.layers = nn.ModuleList(
            _EncoderLayer(dim, num_heads, dim_feedforward, dropout) for _ in range(num_layers)
        )
        self.summary = _SummaryQuery(dim, num_heads) if summary_query else None
        self.norm = nn.LayerNorm(dim)
        self.classifier = nn.Linear(dim, 1)
        self.duration_head = MLP(dim, dim, 1, 2) if durations else None
        self.contrast_head = MLP(dim, dim, dim, 2) if contrast else None
        self.queries = (
            ObjectQueries(num_queries, dim, num_heads, query_layers, dim_feedforward, dropout)
            if num_queries
            else None
        )

    @property
    def needs_tracks(self) -> bool:
        """Whether the forward pass wants the tracks of the tokens."""
        return self.pair_bias.track_bias

    def forward(
        self, tokens: Tokens, tracks: Tensor | None = None, *, return_attention: bool = False
    ) -> TransformerOutput:
        """Decides on the tokens of a batch.

        Args:
            tokens: from the tokenizer.
            tracks: int64 ``(B, N)``, -1 for none; where ``needs_tracks``.
            return_attention: give the weights of the layers, which torch's fused attention, used
                otherwise, does not.
        """
        rows = _Rows(tokens.padding_mask)
        biases = self.pair_bias(tokens, tracks)
        x = rows.pack(tokens.tokens)
        weights = []
        for layer, bias in zip(self.layers, biases, strict=True):
            x, layer_weights = layer(x, rows, bias, return_weights=return_attention)
            if layer_weights is not None:
                weights.append(layer_weights)
        summary = None
        if self.summary is not None:
            summary = self.summary(x, rows)
        x = self.norm(x)
        logits = self.classifier(x)[:, 0]
        durations = None if self.duration_head is None else self.duration_head(x)[:, 0].sigmoid()
        contrast = (
            None
            if self.contrast_head is None
            else F.normalize(self.contrast_head(x).float(), dim=-1)
        )
        hidden = rows.unpack(x)
        queries = None if self.queries is None else self.queries(replace(tokens, tokens=hidden))
        return TransformerOutput(
            logits=rows.unpack(logits),
            hidden=hidden,
            weights=weights,
            summary=summary,
            durations=None if durations is None else rows.unpack(durations),
            contrast=None if contrast is None else rows.unpack(contrast),
            queries=queries,
        )


def received(weights: Tensor, padding_mask: Tensor) -> Tensor:
    """Gives how much of the attention of a layer each token receives.

    Args:
        weights: ``(B, h, N, M)``.
        padding_mask: bool ``(B, N)``, True = padding.

    Returns:
        float32 ``(B, N)``: mean over queries and heads, without the share of the null key,
        normalised to sum 1; all 0 in a clip without tokens.
    """
    length = padding_mask.shape[1]
    is_token = (~padding_mask).float()
    total = torch.einsum("bhnm,bn->bm", weights.float()[..., :length], is_token) * is_token
    return total / total.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)


class TokenAttention(nn.Module):
    """Multi-head self-attention with an additive bias and, at will, its weights.

    Args:
        dim: C.
        num_heads: h.
        dropout: of the weights.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.in_proj = Linear(dim, 3 * dim)
        self.out_proj = Linear(dim, dim)
        for layer in (self.in_proj, self.out_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, x: Tensor, rows: _Rows, bias: Tensor, *, return_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Lets the tokens of each clip read each other.

        Args:
            x: ``(R, C)``.
            rows: where they stand.
            bias: ``(B, h|1, N|1, M)``; the key beyond N, if any, has no content.
            return_weights: compute them, with the same result.

        Returns:
            ``(R, C)``, and ``(B, h, N, M)`` before dropout or None.
        """
        projected = rows.unpack(self.in_proj(x)).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = projected.permute(2, 0, 3, 1, 4)  # (B, h, N, C/h) each
        empty = bias.shape[-1] - k.shape[2]
        if empty:
            k, v = (F.pad(one, (0, 0, 0, empty)) for one in (k, v))
        dropout = self.dropout if self.training else 0.0
        weights = None
        if return_weights:
            logits = (q / math.sqrt(q.shape[-1])) @ k.mT + bias
            weights = logits.softmax(-1)
            out = F.dropout(weights, dropout) @ v
        else:
            out = F.scaled_dot_product_attention(
                q, k, v, attn_mask=bias.to(q.dtype), dropout_p=dropout
            )
        packed = rows.pack(out.transpose(1, 2).flatten(2))
        return self.out_proj(packed), weights


class _EncoderLayer(nn.Module):
    def __init__(self, dim: int, num_heads: int, dim_feedforward: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = TokenAttention(dim, num_heads, dropout)
        self.dropout = nn.Dropout(dropout)
        self.ffn = FFNLayer(dim, dim_feedforward, dropout=dropout, pre_norm=True)

    def forward(
        self, x: Tensor, rows: _Rows, bias: Tensor, *, return_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        update, weights = self.attention(self.norm(x), rows, bias, return_weights=return_weights)
        return self.ffn(x + self.dropout(update)), weights


class _SummaryQuery(nn.Module):
    """One learned query looks at the tokens of a clip.

    Without biases: they would add the same to the logits of all tokens, which the softmax drops.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, bias=False)
        self.query = nn.Parameter(torch.randn(num_heads, dim // num_heads))
        self.key_proj = Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, rows: _Rows) -> Tensor:
        """Takes ``(R, C)`` to the attention ``(B, N)``, the mean over heads."""
        heads, width = self.query.shape
        keys = rows.unpack(self.key_proj(self.norm(x))).unflatten(-1, (heads, width))
        logits = torch.einsum("hc,bnhc->bhn", self.query, keys).float() / math.sqrt(width)
        closed = rows.padding_mask[:, None]
        weights = logits.masked_fill(closed, torch.finfo(torch.float32).min).softmax(-1)
        return weights.masked_fill(closed, 0.0).mean(1)


class _Rows:
    """Where the tokens of a padded batch stand, to compute on them without the padding."""

    def __init__(self, padding_mask: Tensor) -> None:
        self.padding_mask = padding_mask
        self.index = (~padding_mask).flatten().nonzero()[:, 0]  # (R,)
        self.clip = self.index // padding_mask.shape[1]

    def pack(self, x: Tensor) -> Tensor:
        """Takes ``(B, N, ...)`` to ``(R, ...)``."""
        return x.flatten(0, 1).index_select(0, self.index)

    def unpack(self, x: Tensor) -> Tensor:
        """Takes ``(R, ...)`` to ``(B, N, ...)``, zeros in the padding."""
        out = x.new_zeros(self.padding_mask.numel(), *x.shape[1:])
        return out.index_copy(0, self.index, x).unflatten(0, self.padding_mask.shape)
