"""Assignment of queries to objects of a clip (Mask2Former, Cheng et al., CVPR 2022).

An image is a clip with T = 1. Shapes: B clips, T frames, Q queries, N objects, K classes,
P points, H W pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from vidseg.assignment import linear_sum_assignment
from vidseg.config import CfgNode

from .mask_losses import Rand, pair_bce, pair_dice, sample_points

__all__ = ["ClipTargets", "HungarianMatcher", "Layer", "Pairs", "assign"]

Layer = tuple[Tensor, Tensor]
"""Class logits ``(B, Q, K+1)`` and mask logits ``(B, Q, T, h, w)`` of one prediction."""
Pairs = tuple[Tensor, Tensor]
"""Matched query rows and object rows, int64 ``(n,)`` each, on the CPU."""

_BLOCKED = 1e6
logger = logging.getLogger(__name__)


class ClipTargets(Protocol):
    """What matching and losses read of a clip's objects (``ClipInstances`` has it)."""

    masks: Tensor  # (N, T, H, W)
    labels: Tensor  # (N,)


class HungarianMatcher(nn.Module):
    """Assigns every object of a clip to one query at the smallest total cost.

    The cost is the weighted sum of minus the class probability, the binary cross entropy and the
    dice loss, the two latter on uniform points that all queries and frames of a clip share.

    Args:
        class_weight: of minus the softmax probability of the object's class.
        mask_weight: of the binary cross entropy.
        dice_weight: of the dice loss.
        num_points: points per frame.
        rand: stands in for ``torch.rand`` when a recorded stream is replayed.
    """

    def __init__(
        self,
        class_weight: float = 1.0,
        mask_weight: float = 1.0,
        dice_weight: float = 1.0,
        num_points: int = 12544,
        *,
        rand: Rand = torch.rand,
    ) -> None:
        super().__init__()
        self.class_weight = class_weight
        self.mask_weight = mask_weight
        self.dice_weight = dice_weight
        self.num_points = num_points
        self.rand = rand

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads MODEL.MASK_FORMER."""
        node = cfg.MODEL.MASK_FORMER
        return {
            "class_weight": node.CLASS_WEIGHT,
            "mask_weight": node.MASK_WEIGHT,
            "dice_weight": node.DICE_WEIGHT,
            "num_points": node.TRAIN_NUM_POINTS,
        }

    def forward(self, logits: Tensor, masks: Tensor, targets: Sequence[ClipTargets]) -> list[Pairs]:
        """Matches one prediction.

        Args:
            logits: ``(B, Q, K+1)``.
            masks: ``(B, Q, T, h, w)``.
            targets: one per clip; the numbers of objects may differ.

        Returns:
            Per clip the matched query rows (ascending) and object rows, ``min(Q, N)`` of them.
        """
        return self.match_layers([(logits, masks)], targets, self.draw(logits)[None])[0]

    def draw(self, logits: Tensor) -> Tensor:
        """Draws the points of one prediction: ``(B, P, 2)``, one draw per clip."""
        draws = [self.rand(1, self.num_points, 2, device=logits.device) for _ in logits]
        return torch.cat(draws) if draws else logits.new_zeros(0, self.num_points, 2)

    def match_layers(
        self, layers: Sequence[Layer], targets: Sequence[ClipTargets], points: Tensor
    ) -> list[list[Pairs]]:
        """Matches several predictions of the same clips, each on its own.

        Args:
            layers: L predictions.
            targets: one per clip.
            points: ``(L, B, P, 2)``.

        Returns:
            ``result[layer][clip]`` as :meth:`forward` gives it.
        """
        costs = self.costs(layers, targets, points)
        return [
            [
                assign(cost[:, : len(target.labels)])
                for cost, target in zip(rows, targets, strict=True)
            ]
            for rows in costs
        ]

    @torch.no_grad()
    def costs(
        self, layers: Sequence[Layer], targets: Sequence[ClipTargets], points: Tensor
    ) -> np.ndarray:
        """Gives the cost of every query with every object, in one transfer to the host.

        Returns:
            float32 ``(L, B, Q, N)`` with N the largest number of objects; further columns of a
            clip with fewer objects mean nothing.
        """
        with torch.autocast(device_type=points.device.type, enabled=False):
            seen = _target_points(targets, points)  # (L, B, N, T*P)
            labels = nn.utils.rnn.pad_sequence([t.labels for t in targets], batch_first=True)
            costs = [
                self._layer_cost(layer, labels, t, p)
                for layer, t, p in zip(layers, seen, points, strict=True)
            ]
        return torch.stack(costs).cpu().numpy()

    def _layer_cost(self, layer: Layer, labels: Tensor, seen: Tensor, points: Tensor) -> Tensor:
        logits, masks = layer
        probs = logits.float().softmax(-1)
        chosen = labels[:, None].expand(-1, logits.shape[1], -1)
        cost = -self.class_weight * probs.gather(2, chosen)  # (B, Q, N)
        at_points = sample_points(masks.flatten(1, 2), points)  # (B, Q*T, P)
        at_points = at_points.reshape(len(masks), masks.shape[1], -1)  # (B, Q, T*P)
        cost = cost + self.mask_weight * pair_bce(at_points, seen)
        return cost + self.dice_weight * pair_dice(at_points, seen)


def assign(cost: np.ndarray) -> Pairs:
    """Solves one assignment; costs that are not finite count as 1e6 and are reported.

    Args:
        cost: ``(Q, N)``.

    Returns:
        Rows (ascending) and columns, ``min(Q, N)`` of each.
    """
    finite = np.isfinite(cost)
    if not finite.all():
        logger.warning("%d of %d matching costs are not finite", (~finite).sum(), finite.size)
        cost = np.where(finite, cost, _BLOCKED)
    rows, columns = linear_sum_assignment(cost)
    return torch.from_numpy(rows).long(), torch.from_numpy(columns).long()


def _target_points(targets: Sequence[ClipTargets], points: Tensor) -> Tensor:
    """Samples every clip's targets at the points of every layer: ``(L, B, N, T*P)``."""
    num_layers, _, num_points, _ = points.shape
    seen = []
    for clip, target in enumerate(targets):
        num, frames = target.masks.shape[:2]
        coords = points[:, clip].reshape(1, num_layers * num_points, 2)
        if num == 0:
            values = coords.new_zeros(0, num_layers, frames * num_points)
        else:
            values = sample_points(target.masks.flatten(0, 1)[None], coords)
            values = values.reshape(num, frames, num_layers, num_points).transpose(1, 2).flatten(2)
        seen.append(values)  # (N, L, T*P)
    return nn.utils.rnn.pad_sequence(seen, batch_first=True).permute(2, 0, 1, 3)
