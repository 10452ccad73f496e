"""Attention and feed-forward blocks with residual and norm, as used by every decoder here.

Shapes: B batch, N queries, M memory tokens, C channels, h heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .onednn import Linear, linear
from .recording import is_recorded

__all__ = ["CrossAttentionLayer", "FFNLayer", "SelfAttentionLayer", "attend", "attend_nearby"]

_LEAST_BLOCK = 32

# In inference the inner layer of a feed-forward block exists for so many rows at a time: the parts
# in which oneDNN gets a few hundred anyway, so that no kernel of another size is made and kept for
# the day on which they are more. Pixels go at once.
_PART, _MANY_ROWS = 128, 4096


class CrossAttentionLayer(nn.Module):
    """Queries read a memory: residual multi-head attention with a LayerNorm.

    Args:
        d_model: width of queries and memory.
        num_heads: attention heads, a divisor of ``d_model``.
        dropout: of the attention weights and of the block's output.
        pre_norm: norm before the attention instead of after the residual.
    """

    def __init__(
        self, d_model: int, num_heads: int, *, dropout: float = 0.0, pre_norm: bool = False
    ) -> None:
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(
            d_model, num_heads, dropout=dropout, batch_first=True
        )
        self.norm = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.pre_norm = pre_norm
        _init_matrices(self)

    def forward(
        self,
        queries: Tensor,
        memory: Tensor,
        *,
        query_pos: Tensor | None = None,
        memory_pos: Tensor | None = None,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Runs the block.

        Args:
            queries: ``(B, N, C)``.
            memory: ``(B, M, C)``, the values; keys are ``memory + memory_pos``.
            query_pos: added to the queries of the attention, broadcast to ``(B, N, C)``.
            memory_pos: added to the keys, broadcast to ``(B, M, C)``.
            attn_mask: bool, True = blocked; ``(N, M)``, ``(B, N, M)`` or ``(B*h, N, M)``.
            key_padding_mask: bool ``(B, M)``, True = blocked for every query.

        Returns:
            ``(B, N, C)``.
        """
        x = self.norm(queries) if self.pre_norm else queries
        update = attend(
            self.multihead_attn,
            _with_pos(x, query_pos),
            _with_pos(memory, memory_pos),
            memory,
            attn_mask=attn_mask,
            key_padding_mask=key_padding_mask,
        )
        x = queries + self.dropout(update)
        return x if self.pre_norm else self.norm(x)


class SelfAttentionLayer(nn.Module):
    """Queries read each other: residual multi-head self-attention with a LayerNorm.

    Args:
        d_model: width of the queries.
        num_heads: attention heads, a divisor of ``d_model``.
        dropout: of the attention weights and of the block's output.
        pre_norm: norm before the attention instead of after the residual.
        radius: neighbours to each side that a query of a sequence reads; 0: it reads all.
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        *,
        dropout: float = 0.0,
        pre_norm: bool = False,
        radius: int = 0,
    ) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(
            d_model, num_heads, dropout=dropout, batch_first=True
        )
        self.norm = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.pre_norm = pre_norm
        self.radius = radius
        _init_matrices(self)

    def forward(
        self,
        queries: Tensor,
        *,
        query_pos: Tensor | None = None,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Runs the block.

        Args:
            queries: ``(B, N, C)``.
            query_pos: added to queries and keys, not to the values.
            attn_mask: bool, True = blocked; ``(N, N)``, ``(B, N, N)`` or ``(B*h, N, N)``. Not of a
                layer with a radius, which has its own.
            key_padding_mask: bool ``(B, N)``, True = blocked for every query.

        Returns:
            ``(B, N, C)``.
        """
        x = self.norm(queries) if self.pre_norm else queries
        key = _with_pos(x, query_pos)
        if self.radius:
            update = attend_nearby(
                self.self_attn, key, x, radius=self.radius, key_padding_mask=key_padding_mask
            )
        else:
            update = attend(
                self.self_attn, key, key, x, attn_mask=attn_mask, key_padding_mask=key_padding_mask
            )
        x = queries + self.dropout(update)
        return x if self.pre_norm else self.norm(x)


class FFNLayer(nn.Module):
    """Residual two-layer ReLU network with a LayerNorm.

    Args:
        d_model: width of input and output.
        hidden: width of the inner layer.
        dropout: after the activation and of the block's output.
        pre_norm: norm before the network instead of after the residual.
    """

    def __init__(
        self, d_model: int, hidden: int, *, dropout: float = 0.0, pre_norm: bool = False
    ) -> None:
        super().__init__()
        self.linear1 = Linear(d_model, hidden)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = Linear(hidden, d_model)
        self.norm = nn.LayerNorm(d_model)
        self.pre_norm = pre_norm
        _init_matrices(self)

    def forward(self, x: Tensor) -> Tensor:
        """Runs the block on ``(..., C)``."""
        if is_recorded() or torch.is_grad_enabled() or self.training:
            return self._run(x)
        num_rows = x.numel() // max(x.shape[-1], 1)
        if not _PART < num_rows < _MANY_ROWS:
            return self._run(x)
        parts = [self._run(part) for part in x.reshape(num_rows, x.shape[-1]).split(_PART)]
        return torch.cat(parts).view(x.shape)

    def _run(self, x: Tensor) -> Tensor:
        inner = self.norm(x) if self.pre_norm else x
        update = self.linear2(self.dropout(self.linear1(inner, relu=True)))
        out = x + self.dropout(update)
        return out if self.pre_norm else self.norm(out)


def attend(
    attention: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    attn_mask: Tensor | None = None,
    key_padding_mask: Tensor | None = None,
) -> Tensor:
    """Multi-head attention with the weights of ``attention``, masks kept broadcast over heads.

    The module's own forward copies a bool mask once per head and turns it into floats; with
    masks of (queries x pixels) that copy costs more than the attention itself.

    Args:
        attention: holder of the packed weights; its dropout applies in training mode.
        query: ``(B, N, C)``.
        key: ``(B, M, C)``, or as wide as the module's ``kdim`` says.
        value: ``(B, M, C)``, or ``vdim``.
        attn_mask: bool, True = blocked; ``(N, M)``, ``(B, N, M)`` or ``(B*h, N, M)``.
        key_padding_mask: bool ``(B, M)``, True = blocked.

    Returns:
        ``(B, N, C)`` after the output projection. A query that is blocked everywhere reads zeros.
    """
    heads = attention.num_heads
    q, k, v = (
        x.unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, h, N or M, C/h)
        for x in _project(attention, query, key, value)
    )
    out = F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=_open_positions(attn_mask, key_padding_mask, query.shape[0], heads),
        dropout_p=attention.dropout if attention.training else 0.0,
    )
    del q, k, v  # larger than all that follows
    out = out.transpose(1, 2).flatten(2)  # (B, N, C)
    return linear(out, attention.out_proj.weight, attention.out_proj.bias)


def attend_nearby(
    attention: nn.MultiheadAttention,
    query: Tensor,
    value: Tensor,
    *,
    radius: int,
    key_padding_mask: Tensor | None = None,
) -> Tensor:
    """Multi-head self-attention of a sequence, in which everything reads its neighbours only.

    Blocks of queries meet the keys of their own and of both neighbouring blocks, so that time and
    memory grow with the length of the sequence, not with its square.

    Args:
        attention: holder of the packed weights; its dropout applies in training mode.
        query: ``(B, N, C)``, queries and keys.
        value: ``(B, N, C)``.
        radius: query n reads the keys ``n - radius`` to ``n + radius``; at least 1.
        key_padding_mask: bool ``(B, N)``, True = blocked.

    Returns:
        ``(B, N, C)`` after the output projection. A query that is blocked everywhere reads zeros.
    """
    batch, length, _ = query.shape
    heads, size = attention.num_heads, max(radius, _LEAST_BLOCK)
    num_blocks = -(-length // size)
    padding = num_blocks * size - length
    q, k, v = (
        F.pad(x, (0, 0, 0, padding)).unflatten(1, (num_blocks, size))  # (B, n, b, C)
        for x in _project(attention, query, query, value)
    )
    is_open = query.new_ones(batch, length, dtype=torch.bool)
    if key_padding_mask is not None:
        is_open = key_padding_mask.logical_not()
    is_open = F.pad(is_open, (0, padding)).unflatten(1, (num_blocks, size, 1))
    place = torch.arange(3 * size, device=query.device)
    near = (place - size - place[:size, None]).abs() <= radius  # (b, 3b)
    q, k, v = (
        x.flatten(0, 1).unflatten(-1, (heads, -1)).transpose(1, 2)  # (B n, h, b or 3b, C/h)
        for x in (q, _with_neighbours(k), _with_neighbours(v))
    )
    out = F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=_with_neighbours(is_open).flatten(0, 1).mT[:, None] & near,
        dropout_p=attention.dropout if attention.training else 0.0,
    )
    out = out.transpose(1, 2).flatten(2).view(batch, num_blocks * size, -1)[:, :length]
    return linear(out, attention.out_proj.weight, attention.out_proj.bias)


def _with_neighbours(blocks: Tensor) -> Tensor:
    """Puts the blocks before and after each of ``(B, n, b, C)`` beside it, ``(B, n, 3b, C)``."""
    padded = F.pad(blocks, (0, 0, 0, 0, 1, 1))
    return torch.cat([padded[:, :-2], padded[:, 1:-1], padded[:, 2:]], 2)


def _project(
    attention: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, ...]:
    """Maps queries, keys and values; what comes as one tensor goes through one product."""
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    if weight is None:  # keys and values of other widths than queries
        weights = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
        inputs = (query, key, value)
        return tuple(
            linear(x, w, b) for x, w, b in zip(inputs, weights, bias.chunk(3), strict=True)
        )
    width = attention.embed_dim
    if query is key is value:
        return linear(query, weight, bias).chunk(3, dim=-1)
    if query is key:
        q, k = linear(query, weight[: 2 * width], bias[: 2 * width]).chunk(2, dim=-1)
        return q, k, linear(value, weight[2 * width :], bias[2 * width :])
    q = linear(query, weight[:width], bias[:width])
    if key is value:
        return q, *linear(key, weight[width:], bias[width:]).chunk(2, dim=-1)
    k = linear(key, weight[width : 2 * width], bias[width : 2 * width])
    return q, k, linear(value, weight[2 * width :], bias[2 * width :])


def _open_positions(
    blocked: Tensor | None, key_padding_mask: Tensor | None, batch: int, heads: int
) -> Tensor | None:
    """Joins both masks into one that is True where attention is allowed, ``(B|1, h|1, N|1, M)``."""
    if blocked is not None:
        if blocked.dim() == 2:
            blocked = blocked[None, None]
        elif blocked.shape[0] == batch:
            blocked = blocked[:, None]
        else:
            blocked = blocked.unflatten(0, (batch, heads))
    if key_padding_mask is not None:
        padding = key_padding_mask[:, None, None, :]
        blocked = padding if blocked is None else blocked | padding
    return None if blocked is None else blocked.logical_not()


def _with_pos(x: Tensor, pos: Tensor | None) -> Tensor:
    return x if pos is None else x + pos


def _init_matrices(module: nn.Module) -> None:
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
