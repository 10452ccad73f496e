"""Which slots the temporal transformer has to guess in training, and a first guess at them.

Shapes: B clips, T frames, K slots, D numbers of whatever is filled in. Hidden entries are True.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["MASK_UNITS", "draw_hidden", "interpolate"]

MASK_UNITS = ("frame", "slot", "span", "last")
"""What is hidden as one: a frame, a slot of a frame, runs of frames, or the last frame of clips."""

_SPAN = (2, 4)  # frames of the shortest and the longest run


def draw_hidden(
    num_clips: int,
    num_frames: int,
    num_slots: int,
    *,
    ratio: float = 0.2,
    unit: str = "frame",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draws what is hidden of a batch.

    Of a clip of several frames there is always something hidden, and every slot is seen at least
    once; a single frame is never hidden.

    Args:
        num_clips: B.
        num_frames: T.
        num_slots: K.
        ratio: chance of every frame, or of every slot of a frame, to be hidden; not of ``last``.
        unit: of ``MASK_UNITS``.
        generator: on the CPU; torch's own by default.

    Returns:
        bool ``(B, T, K)`` on the CPU.
    """
    shape = (num_clips, num_frames, num_slots)
    if num_frames == 1:
        return torch.zeros(shape, dtype=torch.bool)
    if unit == "last":
        hidden = torch.zeros(shape, dtype=torch.bool)
        hidden[:, -1] = True
        return hidden
    if unit == "slot":
        chance = torch.rand(shape, generator=generator)
        hidden = chance < ratio
        one = chance.flatten(1).argmin(1, keepdim=True)
        hidden.flatten(1).scatter_(1, one, True)  # a view: fills ``hidden``
    else:
        chance = torch.rand(num_clips, num_frames, 1, generator=generator)
        if unit == "frame":
            hidden = chance < ratio
            hidden.scatter_(1, chance.argmin(1, keepdim=True), True)
        else:
            hidden = _spans(chance, ratio, generator)
    # Where all frames are hidden, the one of the highest draw is seen after all.
    is_seen = torch.zeros_like(hidden).scatter_(1, chance.argmax(1, keepdim=True), True)
    hidden = hidden & ~(hidden.all(1, keepdim=True) & is_seen)
    return hidden.expand(shape)


def _spans(chance: Tensor, ratio: float, generator: torch.Generator | None) -> Tensor:
    """Starts runs at random frames ``(B, T, 1)``, so many that the given share is hidden."""
    num_frames = chance.shape[1]
    low, high = _SPAN
    starts = chance < ratio * 2 / (low + high)
    starts.scatter_(1, chance.argmin(1, keepdim=True), True)
    lengths = torch.randint(low, high + 1, chance.shape, generator=generator)
    hidden = torch.zeros_like(starts)
    for offset in range(min(high, num_frames)):
        reaches = starts & (lengths > offset)
        hidden[:, offset:] |= reaches[:, : num_frames - offset]
    return hidden


def interpolate(values: Tensor, hidden: Tensor) -> Tensor:
    """Replaces hidden entries by the nearest visible ones of their slot, before and after.

    In between it is linear in time, at the ends the nearest one is repeated. Nothing of the hidden
    entries themselves is in the result; where a slot is hidden in all frames, it is zero.

    Args:
        values: ``(B, T, K, D)``.
        hidden: bool ``(B, T, K)``.

    Returns:
        ``(B, T, K, D)``.
    """
    num_frames = values.shape[1]
    time = torch.arange(num_frames, device=values.device)[:, None].expand(hidden.shape)
    before = time.masked_fill(hidden, -1).cummax(1).values
    after = time.masked_fill(hidden, num_frames).flip(1).cummin(1).values.flip(1)
    has_before, has_after = before >= 0, after < num_frames
    first = torch.where(has_before, before, after).clamp(max=num_frames - 1)
    second = torch.where(has_after, after, before).clamp(min=0)
    span = (second - first).clamp(min=1)
    share = ((time - first) / span).clamp(0, 1)[..., None].to(values.dtype)
    left, right = (
        values.gather(1, index[..., None].expand(values.shape)) for index in (first, second)
    )
    filled = torch.lerp(left, right, share)
    is_known = (has_before | has_after)[..., None]
    filled = torch.where(is_known, filled, torch.zeros_like(filled))
    return torch.where(hidden[..., None], filled, values)
