"""Features on a common scale: mean and spread of the training set, per dimension."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vidseg.collectives import world_size

__all__ = ["Standardisation"]

logger = logging.getLogger(__name__)

_LEAST_STD = 1e-9  # of the mean's size; less is rounding


class Standardisation(nn.Module):
    """Takes features to mean 0 and variance 1, and back; the statistics are in the checkpoint.

    Until it is fitted it changes nothing. A dimension that never changes is only shifted.

    Args:
        width: D.
    """

    mean: Tensor
    std: Tensor
    num_frames: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.register_buffer("num_frames", torch.tensor(0))

    @property
    def is_fitted(self) -> bool:
        """Whether the statistics are those of data."""
        return bool(self.num_frames > 0)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Standardises ``(..., T, D)``; frames where the mask ``(..., T)`` is False become 0."""
        x = (x - self.mean) / self.std
        return x if mask is None else x.masked_fill(~mask[..., None], 0.0)

    def undo(self, x: Tensor) -> Tensor:
        """Takes standardised features back to their own scale."""
        return x * self.std + self.mean

    @torch.no_grad()
    def fit(self, documents: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        """Takes the statistics of all valid frames; ranks that share the data get the same.

        Args:
            documents: ``(T, D)`` features and ``(T,)`` mask (None: all valid) of each.
        """
        moments = _Moments.of(self.mean.new_zeros(0, len(self.mean)))
        for features, mask in documents:
            frames = features if mask is None else features[mask.to(features.device)]
            moments = moments.joined(_Moments.of(frames.to(self.mean.device)))
        moments = _over_ranks(moments)
        std = (moments.squares / max(moments.count, 1)).sqrt()
        std.masked_fill_(std <= _LEAST_STD * moments.mean.abs(), 0.0)
        self.std.copy_(std.masked_fill(std == 0, 1.0))
        self.mean.copy_(moments.mean)
        self.num_frames.fill_(moments.count)
        logger.info("standardised by %d frames of the training set", moments.count)


@dataclass(frozen=True)
class _Moments:
    """Count, mean and summed squared deviation; joining them loses nothing to a large mean."""

    count: int
    mean: Tensor  # (D,) float64
    squares: Tensor  # (D,) float64

    @classmethod
    def of(cls, frames: Tensor) -> _Moments:
        frames = frames.double()
        mean = frames.sum(0) / max(len(frames), 1)
        return cls(len(frames), mean, (frames - mean).square().sum(0))

    def joined(self, other: _Moments) -> _Moments:
        count = self.count + other.count
        share = other.count / max(count, 1)
        change = other.mean - self.mean
        squares = self.squares + other.squares + change.square() * self.count * share
        return _Moments(count, self.mean + change * share, squares)


def _over_ranks(moments: _Moments) -> _Moments:
    if world_size() == 1:
        return moments
    own = torch.cat([moments.mean.new_tensor([moments.count]), moments.mean, moments.squares])
    parts = [torch.empty_like(own) for _ in range(world_size())]
    torch.distributed.all_gather(parts, own)
    width = len(moments.mean)
    ranks = [_Moments(int(p[0]), *p[1:].split(width)) for p in parts]
    return functools.reduce(_Moments.joined, ranks)
