"""What the losses of a video refer to: its labels, their segments, and who reads which logits.

Shapes: T frames, n labelled frames, S segments, N rows of logits (frames or predicted segments).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .segments import find_segments

__all__ = ["FrameRows", "VideoTargets"]


@dataclass(frozen=True)
class VideoTargets:
    """Labels of a video, as classes of frames and as segments; frames without label do not count.

    Args:
        transcript: class of each segment in order, ``(S,)`` int64.
        frames: the frames that have a label, ``(n,)`` int64, ascending.
        labels: their classes, ``(n,)`` int64.
        segments: the segment that each lies in, ``(n,)`` int64.
        num_frames: T.
    """

    transcript: Tensor
    frames: Tensor
    labels: Tensor
    segments: Tensor
    num_frames: int

    @classmethod
    def of(cls, labels: Tensor) -> VideoTargets:
        """Finds the segments: runs of equal labels, ended by a frame without label too.

        Args:
            labels: ``(T,)`` int64; negative where a frame has no label.

        Raises:
            ValueError: if there are no frames.
        """
        runs = find_segments(labels)
        has_class = runs.labels >= 0
        numbers = (has_class.cumsum(0) - 1).masked_fill(~has_class, -1)[runs.index]  # (T,)
        frames = (numbers >= 0).nonzero()[:, 0]
        transcript = runs.labels[has_class]
        return cls(transcript, frames, labels[frames], numbers[frames], len(labels))


@dataclass(frozen=True)
class FrameRows:
    """Which row of some logits each labelled frame reads, and how much of the row it is.

    Logits of frames are read by one frame each. A row of logits of predicted segments is shared
    evenly by the labelled frames of the segment; so a sum over frames is one over the classes in
    every segment by their shares, and needs no table of segments against classes.

    Args:
        index: ``(n,)`` int64.
        share: ``(n,)``; those of a row add up to 1.
        is_read: which rows have labelled frames, ``(N,)`` bool; None if all have.
    """

    index: Tensor
    share: Tensor
    is_read: Tensor | None

    @classmethod
    def of_frames(cls, targets: VideoTargets) -> FrameRows:
        """One row per frame."""
        frames = targets.frames
        share = torch.ones(len(frames), device=frames.device)
        if len(frames) == targets.num_frames:
            return cls(frames, share, None)
        is_read = torch.zeros(targets.num_frames, dtype=torch.bool, device=frames.device)
        is_read[frames] = True
        return cls(frames, share, is_read)

    @classmethod
    def of_segments(
        cls, targets: VideoTargets, segment_index: Tensor, num_segments: int
    ) -> FrameRows:
        """One row per predicted segment.

        Args:
            targets: of the video.
            segment_index: the predicted segment of each frame, ``(T,)`` int64.
            num_segments: N.
        """
        index = segment_index[targets.frames]
        counts = torch.bincount(index, minlength=num_segments)
        is_all_read = len(targets.frames) == targets.num_frames
        return cls(index, 1 / counts[index], None if is_all_read else counts > 0)

    @property
    def num_read(self) -> Tensor:
        """How many rows have labelled frames, a scalar; 1 at least, as it is divided by."""
        return self.share.sum().round().clamp_min(1)
