"""Loss of the tracker over a clip; the pairs are known, so nothing is matched here.

Shapes: L predictions (final one last), T frames, n queries of a frame, m foreground pairs,
N objects, K classes, h w mask pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vidseg.modeling.criterion import MatchedMaps, PointCriterion
from vidseg.modeling.matcher import Pairs

from .targets import ClipTargets

__all__ = ["DAQCriterion", "FramePrediction", "foreground_pairs"]


@dataclass
class FramePrediction:
    """What the tracker, or its slot branch, says about one frame.

    Attributes:
        frame: which frame of the clip.
        logits: class logits of all queries, ``(L, n, K+1)``.
        masks: mask logits of the foreground pairs, ``(L, m, h, w)``.
        foreground: query and object rows of the foreground pairs, ``(m,)`` each.
        num_pairs: pairs of the frame, those that are no foreground included.
    """

    frame: int
    logits: Tensor
    masks: Tensor
    foreground: Pairs
    num_pairs: int


class DAQCriterion(PointCriterion):
    """Scores the tracks of a clip: one cross entropy and one point sampling over all frames.

    Args: as :class:`~vidseg.modeling.criterion.PointCriterion`.
    """

    def forward(self, frames: Sequence[FramePrediction], targets: ClipTargets) -> dict[str, Tensor]:
        """Gives the weighted losses.

        Args:
            frames: at least one.
            targets: objects of the clip that the pairs refer to.

        Returns:
            ``loss_ce``, ``loss_mask``, ``loss_dice`` of the final prediction and the same with
            suffix ``_i`` of the i-th earlier one.
        """
        device = self.empty_weight.device
        with torch.autocast(device_type=device.type, enabled=False):
            logits = torch.cat([f.logits for f in frames], dim=1)  # (L, sum n, K+1)
            masks = torch.cat([f.masks for f in frames], dim=1)  # (L, sum m, h, w)
            classes = torch.cat([self._classes(f, targets) for f in frames])
            rows = torch.cat([f.foreground[1] * targets.num_frames + f.frame for f in frames])
            num_masks = max(float(sum(f.num_pairs for f in frames)), 1.0)
            matched = MatchedMaps(targets.masks.flatten(0, 1), rows.to(device), num_masks)
            losses: dict[str, Tensor] = {}
            for suffix, layer in self.used(len(logits)).items():
                draw = self.draw(masks.shape[1], device)
                values = self.losses(logits[layer], classes, masks[layer], matched, draw)
                losses |= {name + suffix: value for name, value in values.items()}
        return losses

    def _classes(self, frame: FramePrediction, targets: ClipTargets) -> Tensor:
        device = targets.labels.device
        src, tgt = (x.to(device) for x in frame.foreground)
        classes = torch.full(frame.logits.shape[1:2], self.num_classes, device=device)
        classes[src] = targets.labels[tgt]
        return classes


def foreground_pairs(
    pairs: Pairs, targets: ClipTargets, frame: int, *, gone: Sequence[int] = ()
) -> Pairs:
    """Gives the pairs whose object is visible on the frame and not among ``gone``."""
    src, tgt = pairs
    keep = targets.visible[tgt, frame]
    for number in gone:
        keep = keep & (tgt != number)
    return src[keep], tgt[keep]
