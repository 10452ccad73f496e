"""What the best masks on a coarse grid could reach: the bound that a mask grid sets to any model.

Shapes: T frames of H x W pixels, a grid of h x w, N labels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["grid_ceiling"]


@torch.no_grad()
def grid_ceiling(label_maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Sends true masks through a grid, as a model sends its own: pooled, up-sampled, argmax.

    Args:
        label_maps: int ``(T, H, W)``; negative pixels belong to no mask.
        grid: (h, w).

    Returns:
        int64 ``(T, H, W)`` of labels that occur in ``label_maps``, 0 where all of a neighbourhood
        belong to none.
    """
    labels = torch.unique(label_maps.clamp(min=0)).long()
    seen = [_through(frame[None], labels, grid) for frame in label_maps]
    return torch.stack(seen) if seen else label_maps.long()


def _through(frame: Tensor, labels: Tensor, grid: tuple[int, int]) -> Tensor:
    masks = (frame == labels[:, None, None]).float()[None]  # (1, N, H, W)
    coarse = F.adaptive_avg_pool2d(masks, grid)
    smooth = F.interpolate(coarse, size=frame.shape[-2:], mode="bilinear", align_corners=False)
    return labels[smooth[0].argmax(0)]
