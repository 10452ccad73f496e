"""What a video's masks become while it is being watched: RLE per track and frame.

No mask logits outlive the window in which they were computed.

Shapes: n rows, N tracks, T frames, K classes, h w mask logits (stride 4).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vidseg.modeling.meta_arch import ResultSettings
from vidseg.modeling.postprocess import foreground_confidence, masks_to_rle, select_instances
from vidseg.rle import RLE

__all__ = ["FrameGeometry", "MaskHistory", "MaskQuality", "Selection"]

Size = tuple[int, int]


@dataclass(frozen=True)
class FrameGeometry:
    """Sizes on the way from mask logits to a mask, (height, width) each.

    Args:
        padded: what the network saw.
        image: the part of it that is image.
        output: size of the result.
    """

    padded: Size
    image: Size
    output: Size

    @classmethod
    def of(cls, frames: Tensor, mask_features: Tensor, output: Size | None) -> FrameGeometry:
        """Reads the sizes off frames ``(t, 3, H, W)`` and their features ``(t, C, h, w)``."""
        image = (frames.shape[-2], frames.shape[-1])
        padded = (4 * mask_features.shape[-2], 4 * mask_features.shape[-1])
        return cls(padded, image, image if output is None else output)

    def encode(self, masks: Tensor) -> list[list[RLE | None]]:
        """Turns mask logits ``(n, T, h, w)`` into RLE per row and frame, None where empty."""
        return masks_to_rle(masks, self.padded, self.image, self.output)


@dataclass
class Selection:
    """The (track, label) pairs of a result, best first: ``scores``, ``labels``, ``rows`` (n,)."""

    scores: Tensor
    labels: Tensor
    rows: Tensor

    @classmethod
    def best(cls, logits: Tensor, settings: ResultSettings) -> Selection:
        """Selects by class logits ``(N, K+1)``; fewer than ``max_num`` if there are no more."""
        return cls(
            *select_instances(
                logits, settings.max_num, one_label_per_track=settings.one_label_per_track
            )
        )

    def rated(self, quality: Tensor) -> Selection:
        """Multiplies the scores by a quality per pair, ``(n,)``, and sorts again.

        Source: Mask2Former, appendix on instance inference: selected by class, rated by both.
        """
        scores = self.scores * quality.to(self.scores)
        order = scores.argsort(descending=True, stable=True)
        return Selection(scores[order], self.labels[order], self.rows[order])


class MaskQuality:
    """Mean probability inside each track's masks, over all frames added so far."""

    def __init__(self) -> None:
        self._sums: dict[int, tuple[float, float]] = {}

    def add(self, ids: Iterable[int], masks: Tensor) -> None:
        """Adds mask logits ``(n, ..., h, w)`` of the tracks ``ids``."""
        totals, areas = foreground_confidence(masks)
        for track, total, area in zip(ids, totals.tolist(), areas.tolist(), strict=True):
            before = self._sums.get(track, (0.0, 0.0))
            self._sums[track] = (before[0] + total, before[1] + area)

    def of(self, ids: Iterable[int]) -> Tensor:
        """Gives the quality of tracks, float32 ``(n,)``; 0 without any pixel."""
        sums = [self._sums.get(track, (0.0, 0.0)) for track in ids]
        return torch.tensor([total / max(area, 1.0) for total, area in sums])

    def keep_only(self, tracks: set[int]) -> None:
        """Drops all other tracks."""
        self._sums = {track: sums for track, sums in self._sums.items() if track in tracks}


class MaskHistory:
    """RLE masks of the tracks that may still be part of the result: of each its runs alone."""

    def __init__(self) -> None:
        self._size = (0, 0)
        self._frames: dict[int, dict[int, bytes]] = {}

    def add(self, ids: Sequence[int], frame: int, masks: Sequence[RLE | None]) -> None:
        """Adds one frame of some tracks; an absent mask costs nothing."""
        for track, mask in zip(ids, masks, strict=True):
            frames = self._frames.setdefault(track, {})
            if mask is not None:
                self._size = tuple(mask["size"])
                frames[frame] = mask["counts"]

    def masks(self, track: int, frames: range) -> list[RLE | None]:
        """Gives a track's masks on the wanted frames."""
        known = self._frames.get(track, {})
        return [self._rle(known.get(frame)) for frame in frames]

    def keep_only(self, tracks: set[int]) -> None:
        """Drops all other tracks."""
        self._frames = {track: runs for track, runs in self._frames.items() if track in tracks}

    def _rle(self, counts: bytes | None) -> RLE | None:
        return None if counts is None else {"size": list(self._size), "counts": counts}
