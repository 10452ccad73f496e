"""Learned queries that each find one object of a clip (Carion et al., ECCV 2020).

Shapes: B clips, N tokens, Q queries, T frames of the longest clip, C channels, M objects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.assignment import linear_sum_assignment
from vidseg.layers.attention import CrossAttentionLayer, FFNLayer, SelfAttentionLayer
from vidseg.layers.mlp import MLP
from vidseg.layers.onednn import Linear

from .tokenizer import Tokens

__all__ = ["NUM_CLASSES", "ObjectQueries", "QueryOutput", "match_queries", "query_losses"]

NUM_CLASSES = 2  # transient, persistent; the next one is "no object"
_NO_OBJECT_WEIGHT = 0.1
_ABSENT = -5.0  # logit of presence in a frame without any token


@dataclass
class QueryOutput:
    """What the queries say of a batch.

    Attributes:
        logits: float32 ``(B, Q, 3)``, of transient, persistent and no object.
        presence: float32 ``(B, Q, T)``, logits of "visible in the frame".
        durations: float32 ``(B, Q)`` in [0, 1], visible share of the clip.
    """

    logits: Tensor
    presence: Tensor
    durations: Tensor


class ObjectQueries(nn.Module):
    """Queries read the tokens of a clip and predict class, presence per frame and duration.

    An object is visible in a frame where some token of that frame is near to its query: the logit
    of its presence is the log-sum-exp of their products less a learned threshold. So clips may have
    any number of frames.

    Args:
        num_queries: Q.
        dim: C.
        num_heads: of the attention.
        num_layers: of the decoder.
        dim_feedforward: inner width of the feed-forward networks.
        dropout: in the layers.
    """

    def __init__(
        self,
        num_queries: int,
        dim: int,
        num_heads: int,
        num_layers: int = 2,
        dim_feedforward: int = 512,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.query_embed = nn.Embedding(num_queries, dim)
        self.layers = nn.ModuleList(
            _DecoderLayer(dim, num_heads, dim_feedforward, dropout) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.class_head = Linear(dim, NUM_CLASSES + 1)
        self.duration_head = MLP(dim, dim, 1, 2)
        self.member_query, self.member_token = Linear(dim, dim), Linear(dim, dim)
        self.threshold = nn.Parameter(torch.zeros(()))

    def forward(self, tokens: Tokens) -> QueryOutput:
        """Reads tokens, those of the transformer's last layer."""
        memory, closed = tokens.tokens, tokens.padding_mask
        x = self.query_embed.weight.to(memory.dtype).expand(len(memory), -1, -1)
        for layer in self.layers:
            x = layer(x, memory, closed)
        x = self.norm(x)
        products = self.member_query(x) @ self.member_token(memory).mT
        products = products.float() / math.sqrt(memory.shape[-1]) - self.threshold
        return QueryOutput(
            logits=self.class_head(x).float(),
            presence=_per_frame(products, tokens),
            durations=self.duration_head(x)[..., 0].float().sigmoid(),
        )


class _DecoderLayer(nn.Module):
    def __init__(self, dim: int, num_heads: int, dim_feedforward: int, dropout: float) -> None:
        super().__init__()
        self.cross = CrossAttentionLayer(dim, num_heads, dropout=dropout, pre_norm=True)
        self.own = SelfAttentionLayer(dim, num_heads, dropout=dropout, pre_norm=True)
        self.ffn = FFNLayer(dim, dim_feedforward, dropout=dropout, pre_norm=True)

    def forward(self, queries: Tensor, memory: Tensor, closed: Tensor) -> Tensor:
        x: Tensor = self.cross(queries, memory, key_padding_mask=closed)
        x = self.ffn(self.own(x))
        return x


def _per_frame(products: Tensor, tokens: Tokens) -> Tensor:
    """Log-sum-exp of ``(B, Q, N)`` over the tokens of each frame and a floor, ``(B, Q, T)``."""
    num_clips, num_queries, _ = products.shape
    closed = tokens.padding_mask[:, None]
    index = tokens.frame_index[:, None].expand(-1, num_queries, -1)
    products = products.masked_fill(closed, _ABSENT)
    peak = products.new_full((num_clips, num_queries, max(tokens.num_frames)), _ABSENT)
    peak = peak.scatter_reduce(2, index, products.detach(), "amax")
    shares = (products - peak.gather(2, index)).exp().masked_fill(closed, 0.0)
    return peak + (_ABSENT - peak).exp().scatter_add(2, index, shares).log()


@torch.no_grad()
def match_queries(output: QueryOutput, objects: list[dict[str, Tensor]]) -> list[tuple[Any, Any]]:
    """Assigns every object of a clip to one query at the smallest total cost.

    The cost is minus the class probability, plus the binary cross entropy of the presence, plus
    the absolute error of the duration.

    Args:
        output: of the queries.
        objects: of each clip ``labels (M,)``, ``presence (M, T)`` bool and ``durations (M,)``.

    Returns:
        Query rows and object rows of each clip.
    """
    pairs = []
    probabilities = output.logits.softmax(-1)
    for number, one in enumerate(objects):
        logits = output.presence[number, :, : one["presence"].shape[1]]
        target = one["presence"].to(logits)
        softplus = F.softplus(logits).mean(1, keepdim=True)  # BCE = softplus(x) - x y
        cost = softplus - logits @ target.mT / max(target.shape[1], 1)
        cost = cost - probabilities[number][:, one["labels"].to(logits.device)]
        cost = cost + (output.durations[number][:, None] - one["durations"].to(logits)).abs()
        values = np.nan_to_num(cost.cpu().numpy(), nan=1e6, posinf=1e6, neginf=-1e6)
        pairs.append(linear_sum_assignment(values))
    return pairs


def query_losses(output: QueryOutput, objects: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Scores the queries against the objects that they are matched with.

    Args:
        output: of the queries.
        objects: see :func:`match_queries`.

    Returns:
        ``loss_query_class`` over all queries, ``loss_query_presence`` and ``loss_query_duration``
        over those matched; 0 with gradients where none is.
    """
    device = output.logits.device
    classes = torch.full(output.logits.shape[:2], NUM_CLASSES, device=device)
    presence, durations, num_matched = output.presence.sum() * 0, output.durations.sum() * 0, 0
    for number, (rows, columns) in enumerate(match_queries(output, objects)):
        one = objects[number]
        query, target = (torch.as_tensor(index, device=device) for index in (rows, columns))
        classes[number, query] = one["labels"].to(device)[target]
        seen = one["presence"].to(device)[target].float()
        logits = output.presence[number, query, : seen.shape[1]]
        errors = F.binary_cross_entropy_with_logits(logits, seen, reduction="none")
        presence = presence + errors.sum() / max(seen.shape[1], 1)
        own = one["durations"].to(device)[target].float()
        durations = durations + F.smooth_l1_loss(
            output.durations[number, query], own, reduction="sum", beta=0.1
        )
        num_matched += len(query)
    weight = output.logits.new_tensor([1.0] * NUM_CLASSES + [_NO_OBJECT_WEIGHT])
    return {
        "loss_query_class": F.cross_entropy(output.logits.flatten(0, 1), classes.flatten(), weight),
        "loss_query_presence": presence / max(num_matched, 1),
        "loss_query_duration": durations / max(num_matched, 1),
    }
