"""Runs of equal labels: finding them, pooling frames over them, and copying back.

Shapes: T frames, S segments.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["Segments", "find_segments"]


@dataclass(frozen=True)
class Segments:
    """A sequence cut into S consecutive segments.

    Args:
        labels: ``(S,)`` int64, the label of each segment.
        starts: ``(S,)`` int64, its first frame.
        lengths: ``(S,)`` int64, its frames; at least 1.
    """

    labels: Tensor
    starts: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        """The number of segments."""
        return len(self.labels)

    @cached_property
    def num_frames(self) -> int:
        """The number of frames, T."""
        return int(self.lengths.sum())

    @cached_property
    def index(self) -> Tensor:
        """The segment of every frame, ``(T,)`` int64."""
        numbers = torch.arange(len(self), device=self.lengths.device)
        return numbers.repeat_interleave(self.lengths)

    @property
    def centres(self) -> Tensor:
        """The frame in the middle of each segment, the earlier of two; ``(S,)`` int64."""
        return self.starts + (self.lengths - 1) // 2

    def mean(self, frames: Tensor) -> Tensor:
        """Averages frames over segments: ``(T, ...)`` to ``(S, ...)``."""
        sums = frames.new_zeros(len(self), *frames.shape[1:]).index_add(0, self.index, frames)
        lengths = self.lengths.to(frames.dtype)
        return sums / lengths.view(-1, *(1,) * (frames.dim() - 1))

    def to_frames(self, segments: Tensor, dim: int = 0) -> Tensor:
        """Gives every frame what its segment has: S values along ``dim`` become T."""
        return segments.index_select(dim, self.index)


def find_segments(labels: Tensor) -> Segments:
    """Cuts a sequence where its label changes.

    Args:
        labels: ``(T,)`` integers, T >= 1.

    Returns:
        The runs of equal labels, in order.

    Raises:
        ValueError: if there are no frames.
    """
    if len(labels) == 0:
        raise ValueError("a sequence without frames has no segments")
    changes = (labels[1:] != labels[:-1]).nonzero()[:, 0] + 1
    starts = torch.cat([changes.new_zeros(1), changes])
    ends = torch.cat([changes, changes.new_full((1,), len(labels))])
    return Segments(labels[starts], starts, ends - starts)
