"""Signs that slots collapse: few of them used, one covering all, or all of them alike.

Shapes: K slots, Ds slot width, P positions.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from .losses import entropy_loss, slot_cosines

__all__ = ["collapse_figures", "collapse_warnings"]

_LEAST_SHARE = 0.01  # of a frame, for a slot to count as used
_LEAST_USED = 2
_MOST_COSINE = 0.95


@torch.no_grad()
def collapse_figures(attn: Tensor, slots: Tensor) -> dict[str, Tensor]:
    """Gives the signs of a collapse as means over frames.

    Args:
        attn: ``(..., K, P)``, sum 1 over K.
        slots: ``(..., K, Ds)``.

    Returns:
        Scalars ``used_slots`` (those with the largest mask on more than 1 % of a frame),
        ``max_mask`` (the mean of the largest mask at a position), ``largest_share`` (of a frame,
        covered by its largest slot), ``mask_entropy`` in [0, 1] and ``slot_cosine`` (the mean over
        pairs of slots; 0 for a single one).
    """
    attn = attn.float()
    num_slots, num_positions = attn.shape[-2:]
    largest, owner = attn.max(-2)  # (..., P)
    areas = F.one_hot(owner, num_slots).sum(-2) / num_positions  # (..., K)
    cosines = slot_cosines(slots)
    pairs = max(num_slots * (num_slots - 1), 1)
    off_diagonal = cosines.sum((-1, -2)) - cosines.diagonal(dim1=-2, dim2=-1).sum(-1)
    return {
        "used_slots": (areas > _LEAST_SHARE).sum(-1).float().mean(),
        "max_mask": largest.mean(),
        "largest_share": areas.amax(-1).mean(),
        "mask_entropy": entropy_loss(attn),
        "slot_cosine": off_diagonal.mean() / pairs,
    }


def collapse_warnings(figures: Mapping[str, float | Tensor]) -> list[str]:
    """Says in a sentence each what of :func:`collapse_figures` means a collapse; often nothing."""
    used, cosine = float(figures["used_slots"]), float(figures["slot_cosine"])
    found = []
    if used < _LEAST_USED:
        found.append(
            f"the slots have collapsed: {used:.2g} of them hold more than 1 % of a frame; raise "
            "MODEL.SLOT_BERT.LOSS.APPEARANCE or ATTENTION.SIGMA, or lower SOLVER.BASE_LR"
        )
    if cosine > _MOST_COSINE:
        found.append(
            f"the slots are nearly the same vector (mean cosine {cosine:.3f}); raise "
            "MODEL.SLOT_BERT.LOSS.ORTHOGONALITY or ATTENTION.SIGMA"
        )
    return found
