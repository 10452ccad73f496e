"""Mask losses on sampled points (PointRend, CVPR 2020; Mask2Former, CVPR 2022).

Shapes: N masks, Q queries, P points, C channels, H W pixels. Point coordinates are ``(x, y)`` in
[0, 1], so a prediction and its target may have different resolutions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "PointDraw",
    "dice_loss",
    "draw_points",
    "mask_point_losses",
    "pair_bce",
    "pair_dice",
    "sample_points",
    "sample_uncertain_points",
    "sigmoid_ce_loss",
]

Rand = Callable[..., Tensor]
PointDraw = tuple[Tensor, Tensor]
"""Candidate points ``(N, P * oversample, 2)`` and plain random points ``(N, P - kept, 2)``."""


def dice_loss(logits: Tensor, targets: Tensor, num_masks: float) -> Tensor:
    """Sums the dice loss of every mask and divides by ``num_masks``.

    Args:
        logits: mask logits at the points, ``(N, P)``.
        targets: target values there, in [0, 1], ``(N, P)``.
        num_masks: divisor, at least 1.
    """
    probs = logits.sigmoid()
    overlap = 2 * (probs * targets).sum(-1)
    total = probs.sum(-1) + targets.sum(-1)
    return (1 - (overlap + 1) / (total + 1)).sum() / num_masks


def sigmoid_ce_loss(logits: Tensor, targets: Tensor, num_masks: float) -> Tensor:
    """Sums the point-averaged binary cross entropy of every mask and divides by ``num_masks``.

    Args: as :func:`dice_loss`.
    """
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return loss.mean(-1).sum() / num_masks


def pair_dice(logits: Tensor, targets: Tensor) -> Tensor:
    """Gives the dice loss of every prediction with every target.

    Args:
        logits: ``(..., Q, P)``.
        targets: ``(..., N, P)`` in [0, 1].

    Returns:
        ``(..., Q, N)``.
    """
    probs = logits.sigmoid()
    overlap = 2 * probs @ targets.transpose(-1, -2)
    total = probs.sum(-1)[..., :, None] + targets.sum(-1)[..., None, :]
    return 1 - (overlap + 1) / (total + 1)


def pair_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Gives the binary cross entropy, averaged over points, of every prediction with every target.

    Args: as :func:`pair_dice`.

    Returns:
        ``(..., Q, N)``.
    """
    # bce(x, t) = softplus(x) - x t, so one softplus and one matrix product serve all pairs.
    cross = logits @ targets.transpose(-1, -2) / max(logits.shape[-1], 1)
    # Spelt out, softplus runs vectorised on the CPU (about 5 times as fast as F.softplus).
    softplus = logits.clamp(min=0) + logits.abs().neg_().exp_().log1p_()
    return softplus.mean(-1)[..., None] - cross


def sample_points(maps: Tensor, coords: Tensor) -> Tensor:
    """Reads maps bilinearly at normalised points (``align_corners=False``, zero outside).

    Args:
        maps: ``(N, C, H, W)``, any dtype.
        coords: ``(N, P, 2)`` as (x, y) in [0, 1].

    Returns:
        float32 ``(N, C, P)``.
    """
    grid = coords.float().mul(2).sub_(1)[:, :, None]  # (N, P, 1, 2)
    return F.grid_sample(maps.float(), grid, align_corners=False)[..., 0]


def draw_points(
    num_masks: int,
    num_points: int,
    *,
    oversample_ratio: float,
    importance_sample_ratio: float,
    device: torch.device | str = "cpu",
    rand: Rand = torch.rand,
) -> PointDraw:
    """Draws what :func:`sample_uncertain_points` chooses from.

    Args:
        num_masks: N.
        num_points: P, points wanted per mask.
        oversample_ratio: candidates per wanted point, at least 1.
        importance_sample_ratio: share of the points that are chosen by uncertainty, in [0, 1].
        device: of the result.
        rand: stands in for ``torch.rand`` when a recorded stream is replayed.
    """
    num_kept = int(importance_sample_ratio * num_points)
    num_candidates = int(num_points * oversample_ratio)
    candidates = rand(num_masks, num_candidates, 2, device=device)
    fill = candidates.new_zeros(num_masks, 0, 2)
    if num_points > num_kept:
        fill = rand(num_masks, num_points - num_kept, 2, device=device)
    return candidates, fill


@torch.no_grad()
def sample_uncertain_points(
    maps: Tensor,
    num_points: int,
    *,
    oversample_ratio: float = 3.0,
    importance_sample_ratio: float = 0.75,
    rand: Rand = torch.rand,
    draw: PointDraw | None = None,
) -> Tensor:
    """Chooses points where the masks are least certain, and some anywhere.

    Args:
        maps: mask logits ``(N, 1, H, W)``.
        num_points: P.
        oversample_ratio: candidates per wanted point.
        importance_sample_ratio: share chosen as the candidates of smallest absolute logit.
        rand: see :func:`draw_points`.
        draw: points drawn beforehand by :func:`draw_points`; ``rand`` is then not called.

    Returns:
        ``(N, P, 2)``, chosen candidates first.

    Source: PointRend section 3.1, "non-uniform sampling".
    """
    if draw is None:
        draw = draw_points(
            len(maps),
            num_points,
            oversample_ratio=oversample_ratio,
            importance_sample_ratio=importance_sample_ratio,
            device=maps.device,
            rand=rand,
        )
    candidates, fill = draw
    num_kept = num_points - fill.shape[1]
    doubt = -sample_points(maps, candidates)[:, 0].abs()  # (N, P * oversample)
    kept = doubt.topk(num_kept, dim=1, sorted=False).indices
    chosen = candidates.gather(1, kept[..., None].expand(-1, -1, 2))
    return torch.cat([chosen, fill], dim=1)


def mask_point_losses(
    maps: Tensor,
    target_maps: Tensor,
    target_rows: Tensor,
    num_masks: float,
    *,
    num_points: int,
    draw: PointDraw,
) -> tuple[Tensor, Tensor]:
    """Compares matched masks with their targets at uncertain points.

    Args:
        maps: matched mask logits ``(N, h, w)``.
        target_maps: every target of the batch ``(M, H, W)``; float32 saves a conversion.
        target_rows: row of ``target_maps`` for each of ``maps``, int64 ``(N,)``, no row twice.
        num_masks: divisor of both losses.
        num_points: P.
        draw: result of :func:`draw_points` for these N masks.

    Returns:
        Binary cross entropy and dice loss, scalars; zeros that keep the graph when N is 0.
    """
    if len(maps) == 0:
        zero = maps.float().sum()
        return zero, zero
    coords = sample_uncertain_points(maps[:, None], num_points, draw=draw)
    logits = sample_points(maps[:, None], coords)[:, 0]
    # Points are put in the order of the targets: cheaper than a copy of the full-size targets.
    by_target = coords.new_zeros(len(target_maps), num_points, 2)
    by_target[target_rows] = coords
    targets = sample_points(target_maps[:, None], by_target)[target_rows, 0]
    return sigmoid_ce_loss(logits, targets, num_masks), dice_loss(logits, targets, num_masks)
