"""Reordering of slots after the fact, so that slot k stays with its object.

Shapes: B clips, T frames, K slots, N tokens, S slot features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg.assignment import linear_sum_assignment

__all__ = ["LinkState", "link_slots", "reorder_slots"]

_CONTENT_WEIGHT = 0.5


@dataclass(frozen=True)
class LinkState:
    """What the next frames of a video are linked to.

    Attributes:
        slots: of the last frame in linked order, ``(B, K, S)``.
        attn: likewise, ``(B, K, N)``.
    """

    slots: Tensor
    attn: Tensor


@torch.no_grad()
def link_slots(
    slots: Tensor, attn: Tensor, state: LinkState | None = None
) -> tuple[Tensor, LinkState]:
    """Matches the slots of every frame one to one with those of the frame before.

    Two slots are alike by the overlap of their masks, the sum of the smaller values over that of
    the larger ones, plus half the cosine of their features.

    Args:
        slots: ``(B, T, K, S)``.
        attn: masks, ``(B, T, K, N)``, not negative.
        state: from the call for the frames before these; None if these are the first.

    Returns:
        For each place of the new order the slot that goes there, int64 ``(B, T, K)``, to be
        applied by :func:`reorder_slots`; and the state for the frames after these.
    """
    directions = F.normalize(slots.float(), dim=-1)
    masks = attn.float()
    last = None if state is None else (F.normalize(state.slots.float(), dim=-1), state.attn.float())
    num_clips, num_frames, num_slots, _ = slots.shape
    order = torch.arange(num_slots).repeat(num_clips, num_frames, 1)
    for frame in range(num_frames):
        own_directions, own_masks = directions[:, frame], masks[:, frame]
        if last is not None:
            alike = _overlap(last[1], own_masks) + _CONTENT_WEIGHT * last[0] @ own_directions.mT
            for clip, scores in enumerate(alike.double().cpu().numpy()):
                order[clip, frame] = torch.from_numpy(linear_sum_assignment(-scores)[1])
        taken = order[:, frame, :, None].to(slots.device)
        last = own_directions.take_along_dim(taken, 1), own_masks.take_along_dim(taken, 1)
    order = order.to(slots.device)
    final = order[:, -1:]
    ends = (reorder_slots(x[:, -1:], final)[:, 0] for x in (slots, attn))
    return order, LinkState(*ends)


def reorder_slots(x: Tensor, order: Tensor) -> Tensor:
    """Brings whatever slots have, ``(B, T, K, ...)``, into the order of :func:`link_slots`."""
    return x.take_along_dim(order.reshape(*order.shape, *[1] * (x.dim() - 3)), 2)


def _overlap(a: Tensor, b: Tensor) -> Tensor:
    """Sum of minima over sum of maxima of masks ``(B, K, N)`` in pairs, ``(B, K, K)``."""
    smaller = torch.stack([torch.minimum(row[:, None], b).sum(-1) for row in a.unbind(1)], 1)
    larger = a.sum(-1)[:, :, None] + b.sum(-1)[:, None] - smaller
    return smaller / larger.clamp_min(torch.finfo(larger.dtype).tiny)
