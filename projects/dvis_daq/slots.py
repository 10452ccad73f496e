"""Slot branch of the tracker: tracks and background compete for what a frame shows.

Shapes: n slots (P tracks, then S background slots), Q frame queries, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vidseg.assignment import linear_sum_assignment
from vidseg.layers.assignment import assign_rows
from vidseg.layers.attention import attend
from vidseg.layers.onednn import Linear
from vidseg.layers.recording import without_autocast

__all__ = [
    "SLOT_ASSIGNMENTS",
    "SlotCompetition",
    "SlotCrossAttentionLayer",
    "assign_slot_queries",
]

SLOT_ASSIGNMENTS = ("optimal", "greedy")

_ROWS = 128
_MANY_SLOTS = 512  # above it the order of sums, and so their last bits, are others
_GREEDY_ROUNDS = 16


class SlotCrossAttentionLayer(nn.Module):
    """Reads the frame into the slots, which then compete for what was read."""

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(d_model, num_heads, batch_first=True)
        self.slot_attn = SlotCompetition(d_model)
        self.norm = nn.LayerNorm(d_model)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self,
        slots: Tensor,
        memory: Tensor,
        *,
        content: Tensor,
        keys: Tensor,
        hidden: Tensor | None = None,
        empty: Tensor | None = None,
    ) -> Tensor:
        """Updates the slots ``(n, C)``.

        Args:
            slots: the slots of the layer before, ``(n, C)``.
            memory: frame embeddings ``(Q, C)``.
            content: added to the slots where they read the frame, ``(n, C)``.
            keys: what the slots compete with, ``(n, C)``.
            hidden: bool ``(Q,)``, True where the frame must not be read.
            empty: bool ``(n,)``, rows that are no slots, as if they were not there.
        """
        read = attend(
            self.multihead_attn,
            (slots + content)[None],
            memory[None],
            memory[None],
            key_padding_mask=None if hidden is None else hidden[None],
        )
        read = read[0]
        return self.norm(slots + self.slot_attn(read, slots + read, keys, empty))


class SlotCompetition(nn.Module):
    """One step of slot attention without recurrence: inputs are shared out among the slots.

    Source: Slot Attention (Locatello et al., NeurIPS 2020), without GRU, MLP and value projection.
    """

    def __init__(self, d_model: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.scale = d_model**-0.5
        self.norm_inputs = nn.LayerNorm(d_model)
        self.project_q = nn.Sequential(nn.LayerNorm(d_model), Linear(d_model, d_model, bias=False))
        self.project_k = Linear(d_model, d_model, bias=False)

    def forward(
        self, inputs: Tensor, input_keys: Tensor, slots: Tensor, empty: Tensor | None = None
    ) -> Tensor:
        """Gives each slot ``(m, C)`` its weighted mean of ``inputs`` ``(n, C)``.

        Args:
            inputs: what is shared out.
            input_keys: ``(n, C)``.
            slots: that compete.
            empty: bool ``(n,)``, rows that are neither input nor slot; m is n then.
        """
        keys = self.scale * self.project_k(self.norm_inputs(input_keys)).float()
        queries = self.project_q(slots).float()
        if empty is not None:
            share = (keys @ queries.T).masked_fill(empty, -torch.inf).softmax(dim=1) + self.eps
            share = share.masked_fill(empty[:, None], 0.0)
            return (share / share.sum(dim=0, keepdim=True)).T.to(inputs.dtype) @ inputs
        if len(keys) > _MANY_SLOTS and not (keys.requires_grad or queries.requires_grad):
            return self._in_parts(inputs, keys, queries)
        share = _shared_out(keys @ queries.T, self.eps)  # (n, m)
        return share.T.to(inputs.dtype) @ inputs

    def _in_parts(self, inputs: Tensor, keys: Tensor, queries: Tensor) -> Tensor:
        """Computes the same without the matrix of all pairs, larger than all else of the frame."""
        total = queries.new_zeros(len(queries), inputs.shape[1])
        shares = queries.new_zeros(len(queries), 1)
        for part, own in zip(inputs.split(_ROWS), keys.split(_ROWS), strict=True):
            share = (own @ queries.T).softmax(dim=1).add_(self.eps)  # (_ROWS, m)
            total.addmm_(share.T, part.float())
            shares += share.sum(dim=0)[:, None]
        return total.div_(shares).to(inputs.dtype)


def _shared_out(logits: Tensor, eps: float) -> Tensor:
    """Shares inputs out among slots, ``(n, m)``, and lets the inputs of each slot sum to 1.

    Without a graph it is done in place.
    """
    if logits.requires_grad:
        share = logits.softmax(dim=1) + eps
        return share / share.sum(dim=0, keepdim=True)
    for rows in logits.split(_ROWS):
        rows.copy_(rows.softmax(dim=1)).add_(eps)
    return logits.div_(logits.sum(dim=0, keepdim=True))


def assign_slot_queries(
    content: Tensor,
    query_table: Tensor,
    *,
    assignment: str = "optimal",
    empty: Tensor | None = None,
) -> Tensor:
    """Chooses the frame decoder's query feature that each slot starts from.

    Every row takes its most similar query feature; the rows of a one-to-one assignment then take
    the assigned one. With more rows than features the rest keep the nearest.

    Args:
        content: ``(n, C)``, track embeddings and background slots.
        query_table: ``(Q, C)``.
        assignment: ``"optimal"`` asks the host for the one of greatest similarity in total;
            ``"greedy"`` takes the most similar pairs first and waits for nobody.
        empty: bool ``(n,)``, rows that take no part; what they are given means nothing.

    Returns:
        int64 ``(n,)``, rows of ``query_table``.
    """
    left, right = content.detach().float(), query_table.detach().float()
    left = left / (left.norm(dim=1, keepdim=True) + 1e-6)
    right = right / (right.norm(dim=1, keepdim=True) + 1e-6)
    with without_autocast(content.device):
        similarity = left @ right.T
    if assignment == "greedy":
        return _greedy_pairs(similarity, empty)
    chosen = similarity.argmax(dim=1)
    if empty is not None:
        columns = assign_rows((1 - similarity).nan_to_num(nan=2.0), ~empty)
        return torch.where(columns >= 0, columns, chosen)
    rows, columns = linear_sum_assignment((1 - similarity).nan_to_num(nan=2.0).cpu().numpy())
    chosen[torch.as_tensor(rows, device=chosen.device)] = torch.as_tensor(
        columns, device=chosen.device
    )
    return chosen


def _greedy_pairs(similarity: Tensor, empty: Tensor | None) -> Tensor:
    """Pairs rows and columns that are each other's best among those left, some rounds long.

    That is what taking the best pair again and again comes to. The number of rounds is fixed, since
    asking whether any are left means to wait for the device; who is left keeps the nearest.
    """
    rows, columns = (torch.arange(size, device=similarity.device) for size in similarity.shape)
    left, chosen = similarity.nan_to_num(nan=-2.0), similarity.argmax(dim=1)
    if empty is not None:
        left = left.masked_fill(empty[:, None], -torch.inf)
    for _ in range(_GREEDY_ROUNDS if len(rows) else 0):
        value, best = left.max(dim=1)
        best_row = left.argmax(dim=0)
        paired = (best_row[best] == rows) & (value > -torch.inf)  # (n,)
        taken = paired[best_row] & (best[best_row] == columns)  # (Q,)
        chosen = torch.where(paired, best, chosen)
        left = left.masked_fill(paired[:, None] | taken, -torch.inf)
    return chosen
