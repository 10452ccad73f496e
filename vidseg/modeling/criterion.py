"""Set loss of masked-attention transformers with deep supervision (Mask2Former, CVPR 2022).

Shapes: L predictions, B clips, T frames, Q queries, N objects, K classes, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from vidseg.collectives import world_size
from vidseg.config import CfgNode

from .mask_losses import PointDraw, draw_points, mask_point_losses
from .matcher import ClipTargets, HungarianMatcher, Layer, Pairs

__all__ = ["MatchedMaps", "PointCriterion", "SetCriterion", "class_loss"]


class PointCriterion(nn.Module):
    """Settings of a set loss and the losses of one prediction, given its pairs.

    Args:
        num_classes: K, without "no object".
        matcher: whoever calls matches with it; its source of random points is also used here.
        weights: of ``loss_ce``, ``loss_mask`` and ``loss_dice``; a loss without entry is dropped.
        no_object_weight: weight of the class "no object" in the cross entropy.
        num_points: points per mask and frame.
        oversample_ratio: candidates per point.
        importance_sample_ratio: share of the points chosen by uncertainty.
        deep_supervision: whether the earlier predictions count too.
        spans_ranks: whether the clips of all processes are one batch with common divisors; else
            every call has its own. Either way the gradients of several processes are those of one
            that has all their clips.
    """

    empty_weight: Tensor

    def __init__(
        self,
        num_classes: int,
        matcher: HungarianMatcher,
        *,
        weights: Mapping[str, float],
        no_object_weight: float = 0.1,
        num_points: int = 12544,
        oversample_ratio: float = 3.0,
        importance_sample_ratio: float = 0.75,
        deep_supervision: bool = True,
        spans_ranks: bool = False,
    ) -> None:
        super().__init__()
        if oversample_ratio < 1 or not 0 <= importance_sample_ratio <= 1:
            raise ValueError("oversample_ratio must be >= 1, importance_sample_ratio in [0, 1]")
        self.num_classes = num_classes
        self.matcher = matcher
        self.weights = dict(weights)
        self.num_points = num_points
        self.oversample_ratio = oversample_ratio
        self.importance_sample_ratio = importance_sample_ratio
        self.deep_supervision = deep_supervision
        self.spans_ranks = spans_ranks
        empty_weight = torch.ones(num_classes + 1)
        empty_weight[-1] = no_object_weight
        self.register_buffer("empty_weight", empty_weight)

    @classmethod
    def from_config(cls, cfg: CfgNode, *, points_per_frame: int = 1) -> dict[str, Any]:
        """Reads MODEL.MASK_FORMER and MODEL.SEM_SEG_HEAD.NUM_CLASSES.

        Args:
            cfg: the whole configuration.
            points_per_frame: factor on the number of points (frames, when a clip is one map).
        """
        node = cfg.MODEL.MASK_FORMER
        matcher = HungarianMatcher.from_config(cfg)
        matcher["num_points"] *= points_per_frame
        return {
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "matcher": HungarianMatcher(**matcher),
            "weights": {
                "loss_ce": node.CLASS_WEIGHT,
                "loss_mask": node.MASK_WEIGHT,
                "loss_dice": node.DICE_WEIGHT,
            },
            "no_object_weight": node.NO_OBJECT_WEIGHT,
            "num_points": node.TRAIN_NUM_POINTS * points_per_frame,
            "oversample_ratio": node.OVERSAMPLE_RATIO,
            "importance_sample_ratio": node.IMPORTANCE_SAMPLE_RATIO,
            "deep_supervision": node.DEEP_SUPERVISION,
        }

    def draw(self, num_maps: int, device: torch.device) -> PointDraw:
        """Draws the points of one prediction's mask losses."""
        return draw_points(
            num_maps,
            self.num_points,
            oversample_ratio=self.oversample_ratio,
            importance_sample_ratio=self.importance_sample_ratio,
            device=device,
            rand=self.matcher.rand,
        )

    def used(self, num_layers: int) -> dict[str, int]:
        """Gives the predictions that count by suffix of their losses, in the order of draws.

        The final one, with an empty suffix, is the first: so are the published random streams.
        """
        earlier = range(num_layers - 1) if self.deep_supervision else ()
        return {"": num_layers - 1} | {f"_{i}": i for i in earlier}

    def losses(
        self,
        logits: Tensor,
        classes: Tensor,
        masks: Tensor,
        targets: MatchedMaps,
        draw: PointDraw,
    ) -> dict[str, Tensor]:
        """Gives the weighted losses of one prediction.

        Args:
            logits: class logits ``(..., K+1)``.
            classes: int64 ``(...)``, K where the query is no object.
            masks: mask logits of the foreground pairs ``(n, h, w)``.
            targets: what they should be.
            draw: points for these n masks.
        """
        bce, dice = mask_point_losses(
            masks,
            targets.maps,
            targets.rows,
            targets.num_masks,
            num_points=self.num_points,
            draw=draw,
        )
        ce = class_loss(logits, classes, self.empty_weight)
        if self.spans_ranks and world_size() > 1:
            own = float(self.empty_weight[classes].sum())
            ce = ce * (own / max(mean_over_ranks(own, logits.device), 1e-6))
        values = {"loss_ce": ce, "loss_mask": bce, "loss_dice": dice}
        return {k: v * self.weights[k] for k, v in values.items() if k in self.weights}


class SetCriterion(PointCriterion):
    """Matches queries to objects and scores classes and masks of every prediction.

    Args: as :class:`PointCriterion`.
    """

    def forward(
        self,
        layers: Sequence[Layer],
        targets: Sequence[ClipTargets],
        *,
        indices: Sequence[Pairs] | None = None,
    ) -> dict[str, Tensor]:
        """Gives the weighted losses.

        Args:
            layers: predictions in the order of the network, the final one last; each class logits
                ``(B, Q, K+1)`` and mask logits ``(B, Q, T, h, w)``.
            targets: one per clip, masks padded like the images of the batch.
            indices: pairs per clip which all predictions use; matched here when not given.

        Returns:
            ``loss_ce``, ``loss_mask``, ``loss_dice`` of the final prediction and the same with
            suffix ``_i`` of the i-th earlier one.
        """
        used = self.used(len(layers))
        chosen = [layers[i] for i in used.values()]
        with torch.autocast(device_type=self.empty_weight.device.type, enabled=False):
            maps = torch.cat([t.masks.flatten(0, 1) for t in targets]).float()  # (N*T, H, W)
            clips = _as_float(targets, maps)
            pairs, draws = self._match(chosen, clips, indices)
            num_masks = float(sum(len(t.labels) for t in clips))
            if self.spans_ranks:
                num_masks = mean_over_ranks(num_masks, maps.device)
            losses: dict[str, Tensor] = {}
            for suffix, layer, matched, draw in zip(used, chosen, pairs, draws, strict=True):
                rows = _PairRows(matched, clips)
                values = self._layer_losses(layer, rows, maps, max(num_masks, 1.0), draw)
                losses |= {name + suffix: value for name, value in values.items()}
        return losses

    def _match(
        self,
        layers: Sequence[Layer],
        targets: Sequence[ClipTargets],
        indices: Sequence[Pairs] | None,
    ) -> tuple[list[list[Pairs]], list[PointDraw]]:
        """Draws all points in the published order, then matches all predictions at once."""
        logits, masks = layers[0]
        if indices is None:
            num_pairs = sum(min(logits.shape[1], len(t.labels)) for t in targets)
        else:
            num_pairs = sum(len(src) for src, _ in indices)
        points, draws = [], []
        for _ in layers:
            if indices is None:
                points.append(self.matcher.draw(logits))
            draws.append(self.draw(num_pairs * masks.shape[2], masks.device))
        if indices is not None:
            return [list(indices)] * len(layers), draws
        return self.matcher.match_layers(layers, targets, torch.stack(points)), draws

    def _layer_losses(
        self, layer: Layer, rows: _PairRows, maps: Tensor, num_masks: float, draw: PointDraw
    ) -> dict[str, Tensor]:
        logits, masks = layer
        clip, query = rows.clip.to(logits.device), rows.query.to(logits.device)
        classes = torch.full(logits.shape[:2], self.num_classes, device=logits.device)
        classes[clip, query] = rows.labels.to(logits.device)
        matched = masks[clip, query].flatten(0, 1)  # (n*T, h, w)
        targets = MatchedMaps(maps, rows.maps.to(maps.device), num_masks)
        return self.losses(logits, classes, matched, targets, draw)


@dataclass
class MatchedMaps:
    """Targets of matched masks.

    Attributes:
        maps: targets of the batch, float32 ``(M, H, W)``.
        rows: row of ``maps`` for each matched mask, int64 ``(n,)``, no row twice.
        num_masks: divisor of the mask losses.
    """

    maps: Tensor
    rows: Tensor
    num_masks: float


@dataclass
class _FloatTargets:
    masks: Tensor
    labels: Tensor


def _as_float(targets: Sequence[ClipTargets], maps: Tensor) -> list[_FloatTargets]:
    """Views the converted masks ``(N*T, H, W)`` as clips: matching and losses both read them."""
    shapes = [t.masks.shape for t in targets]
    parts = maps.split([shape[0] * shape[1] for shape in shapes])
    return [
        _FloatTargets(part.reshape(shape), target.labels)
        for part, shape, target in zip(parts, shapes, targets, strict=True)
    ]


class _PairRows:
    """Pairs of all clips of a batch as flat index vectors."""

    def __init__(self, pairs: Sequence[Pairs], targets: Sequence[ClipTargets]) -> None:
        clips, queries, labels, maps, start = [], [], [], [], 0
        for clip, ((src, tgt), target) in enumerate(zip(pairs, targets, strict=True)):
            num, frames = target.masks.shape[:2]
            clips.append(torch.full_like(src, clip))
            queries.append(src)
            labels.append(target.labels[tgt.to(target.labels.device)])
            maps.append(start + (tgt[:, None] * frames + torch.arange(frames)).flatten())
            start += num * frames
        self.clip, self.query = torch.cat(clips), torch.cat(queries)
        self.labels, self.maps = torch.cat(labels), torch.cat(maps)


def class_loss(logits: Tensor, classes: Tensor, weight: Tensor) -> Tensor:
    """Gives the class-weighted cross entropy, averaged by weight; 0 without any query.

    Args:
        logits: ``(..., K+1)``.
        classes: int64 ``(...)``.
        weight: ``(K+1,)``.
    """
    if classes.numel() == 0:
        return logits.float().sum()
    return F.cross_entropy(logits.float().flatten(0, -2), classes.flatten(), weight)


def mean_over_ranks(number: float, device: torch.device) -> float:
    """Averages a number over the processes of a distributed run."""
    if world_size() == 1:
        return number
    total = torch.tensor(number, device=device)
    dist.all_reduce(total)
    return total.item() / dist.get_world_size()
