"""What training hides of a video: whole input channels, and spans of time.

Shapes: T frames, D input width.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["mask_channels", "mask_time"]


def mask_channels(features: Tensor, rate: float) -> Tensor:
    """Drops channels for the whole video, and scales the others to keep the mean.

    Args:
        features: ``(T, D)``.
        rate: probability with which a channel is dropped, in [0, 1].

    Returns:
        A new ``(T, D)``.

    Source: channel masking of FACT, a one-dimensional channel drop-out.
    """
    keep = torch.full((features.shape[1],), 1.0 - rate, device=features.device).bernoulli()
    return features * (keep / max(1.0 - rate, torch.finfo(keep.dtype).tiny)).to(features.dtype)


def mask_time(
    features: Tensor,
    *,
    span: int,
    share: float,
    count: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sets spans of frames to zero.

    Args:
        features: ``(T, D)``; stays as it is.
        span: a span has fewer frames than this; a draw of zero frames ends the masking.
        share: and no more than this share of the video.
        count: spans at most.
        generator: of the draws, on the CPU; None for torch's own.

    Returns:
        ``(T, D)``, a copy if anything is masked.

    Source: SpecAugment (Park et al., Interspeech 2019, section 2), as FACT applies it to time.

    Note:
        The published code masks in place, and so spoils features that the caller keeps.
    """
    num_frames = len(features)
    masked = features
    for _ in range(count):
        length = min(_draw(span, generator), int(share * num_frames))
        if length == 0:
            break
        start = _draw(num_frames - length, generator)
        masked = features.clone() if masked is features else masked
        masked[start : start + length] = 0
    return masked


def _draw(stop: int, generator: torch.Generator | None) -> int:
    return int(torch.randint(max(stop, 1), (), generator=generator))
