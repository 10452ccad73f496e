"""Slot attention over the frames of clips: each by itself, or each from the slots before it.

Shapes: B clips, T frames, N tokens, D token features, K slots, S slot features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vidseg.layers.attention import FFNLayer, SelfAttentionLayer

from .grounding import Holdings
from .initial_slots import InitialSlots
from .slot_attention import SlotAttention, full_precision

__all__ = [
    "MODES",
    "PREDICTORS",
    "Carry",
    "SlotPredictor",
    "build_predictor",
    "run_independent",
    "run_recurrent",
]

MODES = ("independent", "recurrent")
PREDICTORS = ("none", "norm", "transformer")


@dataclass(frozen=True)
class Carry:
    """What a frame hands on to the next one.

    Attributes:
        slots: ``(B, K, S)``.
        held: by the slots, where places or colours count; else None.
    """

    slots: Tensor
    held: Holdings | None = None

    def replaced(self, clips: Tensor, other: Carry) -> Carry:
        """Gives the same, but what other frames hand on in some clips, bool ``(B,)``."""
        rows = clips.view(-1, 1, 1)
        held = self.held
        if held is not None and other.held is not None:
            held = Holdings(
                torch.where(rows, other.held.latest, held.latest),
                torch.where(rows, other.held.earlier, held.earlier),
            )
        return Carry(torch.where(rows, other.slots, self.slots), held)


class SlotPredictor(nn.Module):
    """Slots of a frame to those that the next one starts from: a pre-norm transformer block.

    Args:
        dim: S.
        num_heads: of the attention among slots, a divisor of S.
        ffn_ratio: hidden width of the feed-forward network, relative to S.
    """

    def __init__(self, dim: int, *, num_heads: int = 4, ffn_ratio: int = 4) -> None:
        super().__init__()
        self.attention = SelfAttentionLayer(dim, num_heads, pre_norm=True)
        self.ffn = FFNLayer(dim, ffn_ratio * dim, pre_norm=True)

    def forward(self, slots: Tensor) -> Tensor:
        """Maps ``(B, K, S)`` to the same shape."""
        out: Tensor = self.ffn(self.attention(slots))
        return out


def build_predictor(name: str, dim: int) -> nn.Module | None:
    """Gives what takes slots ``(B, K, S)`` of a frame to the start of those of the next one.

    ``"norm"`` brings them back to mean 0 and variance 1. Otherwise every frame adds to them what
    the network at the end of an iteration gives, and nothing bounds their length.

    Args:
        name: one of ``PREDICTORS``.
        dim: S.
    """
    if name == "transformer":
        return SlotPredictor(dim)
    return nn.LayerNorm(dim, elementwise_affine=False) if name == "norm" else None


def run_independent(
    attention: SlotAttention,
    init: InitialSlots,
    tokens: Tensor,
    *,
    iters: int | None = None,
    first_frame: int = 0,
    boxes: Tensor | None = None,
    valid: Tensor | None = None,
    looks: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Finds the slots of all frames at once.

    Args:
        attention: the module.
        init: where every frame starts.
        tokens: ``(B, T, N, D)``.
        iters: iterations; None for those of ``attention``.
        first_frame: number of the first frame in its video.
        boxes: for slots that start from boxes, see ``InitialSlots``.
        valid: bool ``(B, T, N)``; slots read nothing from the other tokens.
        looks: places and colours of the tokens, ``(B, T, N, 8)``, see ``token_looks``; needed by
            attention in which they count.

    Returns:
        The slots ``(B, T, K, S)``, and the attention, float32 ``(B, T, K, N)``.
    """
    num_clips, num_frames = tokens.shape[:2]
    k, v = attention.keys_values(tokens.flatten(0, 1))
    start = init(num_clips, num_frames, first_frame=first_frame, boxes=boxes).flatten(0, 1)
    flat = {"valid": valid, "looks": looks}
    options = {name: x if x is None else x.flatten(0, 1) for name, x in flat.items()}
    slots, attn = attention(k, v, start, iters=iters, **options)
    clips = (num_clips, num_frames)
    return slots.unflatten(0, clips), attn.unflatten(0, clips)


def _in_parts(count: int, first: int, later: int) -> list[int]:
    """Shares out iterations over looks at one frame, between which slots are handed on.

    The frame then comes again and again, as a still video would. With more iterations at a time
    than in training, slots leave the range that is known of them.
    """
    return [min(first, count)] + [min(later, count - done) for done in range(first, count, later)]


def run_recurrent(
    attention: SlotAttention,
    init: InitialSlots,
    predictor: nn.Module | None,
    tokens: Tensor,
    *,
    iters: int | None = None,
    iters_next: int = 1,
    carry: Carry | None = None,
    boxes: Tensor | None = None,
    valid: Tensor | None = None,
    looks: Tensor | None = None,
    unseen: Tensor | None = None,
) -> tuple[Tensor, Tensor, Carry]:
    """Finds the slots of one frame after the other; slot k stays with what it found.

    Args:
        attention: the module.
        init: where the first frame of a video starts.
        predictor: slots of a frame to those that the next one starts from; None hands them on.
        tokens: ``(B, T, N, D)``.
        iters: iterations in the first frame of a video; None for those of ``attention``. With a
            predictor, those beyond that are ``iters_next`` at a time, as if the frame came again.
        iters_next: iterations in every other frame.
        carry: what the call for the frames before these returned; None if these are the first.
        boxes: for slots that start from boxes, see ``InitialSlots``.
        valid: bool ``(B, T, N)``; slots read nothing from the other tokens.
        looks: places and colours of the tokens, ``(B, T, N, 8)``, see ``token_looks``; needed by
            attention in which they count.
        unseen: bool ``(B, T)``, frames that hand nothing on: those after them are found as if these
            had not been there.

    Returns:
        The slots ``(B, T, K, S)``; the attention, float32 ``(B, T, K, N)``; and what the call for
        the frames after these needs.

    Source: Kipf et al., "Conditional Object-Centric Learning from Video", ICLR 2022.
    """
    k, v = attention.keys_values(tokens)
    nothing: Any = [None] * k.shape[1]
    all_slots, all_attn = [], []
    # Clips of which no frame was seen so far; what comes next is like their first frame.
    fresh = None if unseen is None else unseen.new_full((len(k),), carry is None)

    def look(frame: tuple[Any, ...], before: Carry | None) -> tuple[Carry, Tensor]:
        frame_k, frame_v, frame_valid, frame_looks = frame
        held, count = None, iters
        if before is None:
            start = init(len(k), 1, boxes=boxes)[:, 0]
        else:
            start, held, count = before.slots, before.held, iters_next
            start = start if predictor is None else predictor(start)
        counts = [attention.iters if count is None else count]
        if before is None and predictor is not None:
            counts = _in_parts(counts[0], attention.iters, iters_next)
        for number, part in enumerate(counts):
            if number and predictor is not None:
                start = predictor(start)
            start, attn, held = attention.refine(
                frame_k,
                frame_v,
                start,
                held=held,
                iters=part,
                valid=frame_valid,
                looks=frame_looks,
            )
        if len(counts) > 1 and held is not None:
            held = Holdings(held.latest, torch.zeros_like(held.earlier))  # the frame counts once
        return Carry(start, held), attn

    # A lower precision pays in the products of all tokens, not in those of a handful of slots.
    with torch.autocast(tokens.device.type, enabled=False):
        # Views of all frames at once: the gradient of k[:, t] would be as large as k every time.
        frames = zip(
            *(full_precision(x).unbind(1) for x in (k, v)),
            *(nothing if x is None else x.unbind(1) for x in (valid, looks)),
            strict=True,
        )
        for number, frame in enumerate(frames):
            found, attn = look(frame, carry)
            if fresh is not None and carry is not None and bool(fresh.any()):
                first, first_attn = look(frame, None)
                found = found.replaced(fresh, first)
                attn = torch.where(fresh.view(-1, 1, 1), first_attn, attn)
            all_slots.append(found.slots)
            all_attn.append(attn)
            if unseen is not None and fresh is not None:
                if carry is not None:
                    found = found.replaced(unseen[:, number], carry)
                fresh = fresh & unseen[:, number]
            carry = found
    assert carry is not None
    return torch.stack(all_slots, 1), torch.stack(all_attn, 1), carry
