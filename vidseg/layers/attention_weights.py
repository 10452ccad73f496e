"""Attention weights for those who want to look at them; the layers themselves never make any.

Fused attention gives no weights, so they are computed a second time, from what a layer was called
with and for as long as somebody records.

Shapes: B batch, N queries, M memory tokens, C channels, h heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .attention import CrossAttentionLayer

__all__ = ["attention_weights", "recorded_attention"]


def attention_weights(
    layer: CrossAttentionLayer,
    queries: Tensor,
    memory: Tensor,
    *,
    query_pos: Tensor | None = None,
    memory_pos: Tensor | None = None,
    attn_mask: Tensor | None = None,
    key_padding_mask: Tensor | None = None,
) -> Tensor:
    """Gives how much each query reads of each token, mean over heads.

    Args: as those of the layer's forward; ``attn_mask`` without a head axis.

    Returns:
        float32 ``(B, N, M)``, sum 1 over M; all 0 for a query that is blocked everywhere.
    """
    x = layer.norm(queries) if layer.pre_norm else queries
    query = x if query_pos is None else x + query_pos
    key = memory if memory_pos is None else memory + memory_pos
    blocked = _joined(attn_mask, key_padding_mask)
    # Sample by sample: the weights of all heads are many times as large as what is kept of them.
    weights = torch.empty(*query.shape[:2], key.shape[1], device=query.device)
    for b in range(len(query)):
        closed = None if blocked is None else blocked.expand(len(query), -1, -1)[b]
        weights[b] = _mean_weights(layer, query[b], key[b], closed)
    return weights


@contextmanager
def recorded_attention(
    layer: CrossAttentionLayer, receive: Callable[[Tensor], object]
) -> Iterator[None]:
    """Hands the weights of every call of a layer to ``receive`` while the context lasts.

    What the layer computes stays the same.

    Args:
        layer: any cross-attention of a model.
        receive: called with ``(B, N, M)``, see :func:`attention_weights`.
    """

    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], _: Tensor) -> None:
        with torch.no_grad():
            receive(attention_weights(module, *args, **kwargs))

    handle = layer.register_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _joined(attn_mask: Tensor | None, key_padding_mask: Tensor | None) -> Tensor | None:
    """Joins both masks, True = blocked, ``(B|1, N|1, M)``."""
    blocked = attn_mask[None] if attn_mask is not None and attn_mask.dim() == 2 else attn_mask
    if key_padding_mask is None:
        return blocked
    padding = key_padding_mask[:, None]
    return padding if blocked is None else blocked | padding


def _mean_weights(
    layer: CrossAttentionLayer, query: Tensor, key: Tensor, blocked: Tensor | None
) -> Tensor:
    """Weights ``(N, M)`` of one sample: queries ``(N, C)``, keys ``(M, C)``."""
    attention = layer.multihead_attn
    weight_q, weight_k, _ = attention.in_proj_weight.float().chunk(3)
    bias_q, bias_k, _ = attention.in_proj_bias.float().chunk(3)
    with torch.autocast(device_type=query.device.type, enabled=False):
        q = F.linear(query.float(), weight_q, bias_q).unflatten(-1, (attention.num_heads, -1))
        k = F.linear(key.float(), weight_k, bias_k).unflatten(-1, (attention.num_heads, -1))
        logits = torch.einsum("nhc,mhc->hnm", q, k) * q.shape[-1] ** -0.5
        if blocked is not None:
            logits = logits.masked_fill(blocked, float("-inf"))
        return logits.softmax(dim=-1).nan_to_num(0.0).mean(dim=0)
