"""What slots are trained on, beside reconstruction and appearance.

Every function gives an unweighted scalar in float32, 0 with gradients where there is nothing to
compare.

Shapes: B clips, T frames, K slots, Ds slot width, P positions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "coverage_loss",
    "distillation_loss",
    "entropy_loss",
    "frame_contrast",
    "masked_slot_loss",
    "orthogonality_loss",
    "slot_cosines",
    "time_contrast",
]

_TINY = 1e-8


def orthogonality_loss(slots: Tensor) -> Tensor:
    """Gives the mean square of the positive cosines between the slots of a frame.

    Args:
        slots: ``(..., K, Ds)``.
    """
    num_slots = slots.shape[-2]
    squares = slot_cosines(slots).clamp(min=0).square()
    off_diagonal = squares.sum((-1, -2)) - squares.diagonal(dim1=-2, dim2=-1).sum(-1)
    return off_diagonal.mean() / max(num_slots * (num_slots - 1), 1)


def entropy_loss(masks: Tensor) -> Tensor:
    """Gives the entropy of the masks: 0 for one slot per position, 1 where all share alike.

    Args:
        masks: ``(..., K, P)``, sum 1 over K.
    """
    masks = masks.float()
    num_slots, num_positions = masks.shape[-2:]
    entropy = -(masks * (masks + _TINY).log()).sum((-1, -2)).mean()
    return entropy / (num_positions * math.log(max(num_slots, 2)))


def coverage_loss(masks: Tensor) -> Tensor:
    """Charges slots without area, less what an even spread over the batch earns.

    ``mean_k exp(-A_k K / (0.1 P)) - 0.1 H(mean A_k / P) / log K``, ``A_k`` the area of slot k in a
    frame, its mean over all frames of the batch.

    Args:
        masks: ``(..., K, P)``, sum 1 over K.
    """
    num_slots, num_positions = masks.shape[-2:]
    shares = masks.float().sum(-1) / num_positions  # (..., K)
    dead = (-shares * num_slots / 0.1).exp().mean()
    spread = shares.flatten(0, -2).mean(0)
    entropy = -(spread * (spread + _TINY).log()).sum() / math.log(max(num_slots, 2))
    return dead - 0.1 * entropy


def distillation_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Teaches the decoder where attention is: the divergence of its masks from attention's.

    Args:
        logits: ``(M, K, ...)``, mask logits of the decoder.
        masks: ``(M, K, ...)``, masks of attention, sum 1 over K; no gradient reaches them.

    Returns:
        The mean Kullback-Leibler divergence of a position.
    """
    masks = masks.detach().float()
    logs = logits.float().log_softmax(1)
    divergence = masks * ((masks + _TINY).log() - logs)
    return divergence.sum(1).mean()


def masked_slot_loss(predicted: Tensor, slots: Tensor, hidden: Tensor) -> Tensor:
    """Gives how far the predictions of hidden slots are off, in direction and after a LayerNorm.

    ``1 - cos + 0.5 smooth_l1(LN(predicted), LN(slots))``, the mean over hidden entries.

    Args:
        predicted: ``(B, T, K, Ds)``.
        slots: ``(B, T, K, Ds)``, what slot attention found; no gradient reaches it.
        hidden: bool ``(B, T, K)``.
    """
    predicted, slots = predicted.float(), slots.detach().float()
    width = (slots.shape[-1],)
    direction = 1 - F.cosine_similarity(predicted, slots, dim=-1)
    content = F.smooth_l1_loss(
        F.layer_norm(predicted, width), F.layer_norm(slots, width), reduction="none"
    ).mean(-1)
    return ((direction + 0.5 * content) * hidden).sum() / hidden.sum().clamp(min=1)


def time_contrast(slots: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Tells a slot in the next frame from all other slots of the batch there.

    Args:
        slots: ``(B, T, K, Ds)``; slot k of a clip is its own positive one frame later.
        temperature: of the softmax over all ``B K`` slots of the next frame.

    Returns:
        The mean cross entropy; 0 for single frames.

    Source: slot-slot contrast, Manasyan et al., CVPR 2025 (SlotContrast), section 3.2.
    """
    num_clips, num_frames, num_slots, width = slots.shape
    if num_frames < 2:
        return slots.sum() * 0.0
    with torch.autocast(slots.device.type, enabled=False):
        z = F.normalize(slots.float(), dim=-1).transpose(0, 1).reshape(num_frames, -1, width)
        logits = z[:-1] @ z[1:].transpose(-1, -2) / temperature  # (T - 1, B*K, B*K)
    positives = torch.arange(num_clips * num_slots, device=slots.device)
    return F.cross_entropy(logits.flatten(0, 1), positives.repeat(num_frames - 1))


def frame_contrast(slots: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Tells the slots of a frame apart: cross entropy of their cosines against the identity.

    Args:
        slots: ``(..., K, Ds)``.
        temperature: of the softmax over the slots.

    Source: slot contrastive loss of Slot-BERT, 2025.
    """
    num_slots = slots.shape[-2]
    logits = (slot_cosines(slots) / temperature).reshape(-1, num_slots)
    positives = torch.arange(num_slots, device=slots.device)
    return F.cross_entropy(logits, positives.repeat(len(logits) // num_slots))


def slot_cosines(slots: Tensor) -> Tensor:
    """Gives the cosines between all slots of a frame, float32 ``(..., K, K)``."""
    with torch.autocast(slots.device.type, enabled=False):
        z = F.normalize(slots.float(), dim=-1)
        return z @ z.transpose(-1, -2)
