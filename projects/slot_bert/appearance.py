"""The appearance loss: a slot's mask is to cover what looks alike.

Shapes: B clips, T frames, K slots, C channels, P positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["SCOPES", "appearance_loss", "position_loss", "weigh_luma"]

SCOPES = ("frame", "clip")
_EPS = 1e-6


def appearance_loss(masks: Tensor, features: Tensor, *, scope: str = "frame") -> Tensor:
    """Gives the mean squared distance of features to the means of the masks that claim them.

    It is ``1/P sum_k sum_p m_k(p) |c(p) - mu_k|^2`` with ``mu_k`` the mean of mask k, computed as
    ``E|c|^2 - sum_k |sum_p m_k c|^2 / (A_k P)``: two small products, no tensor over K and C.
    Gradients pass through the means.

    Args:
        masks: ``(B, T, K, P)``, sum 1 over K.
        features: ``(B, T, C, P)`` or of any shape that broadcasts to it, as colours.
        scope: means of each ``"frame"``, or of the whole ``"clip"``, which ties slots over time.

    Returns:
        A scalar in the square of the features' unit.

    Raises:
        ValueError: for an unknown ``scope``.
    """
    if scope not in SCOPES:
        raise ValueError(f"scope {scope!r} is none of {', '.join(SCOPES)}")
    with torch.autocast(masks.device.type, enabled=False):
        masks, features = masks.float(), features.float()
        # Distances do not change with the origin; about the mean, less is lost in the difference.
        features = features - features.mean((1, 3), keepdim=True)
        area = masks.sum(-1)  # (B, T, K)
        sums = masks @ features.transpose(-1, -2)  # (B, T, K, C)
        num_frames = masks.shape[1]
        if scope == "clip":
            area, sums = area.sum(1), sums.sum(1)
        explained = (sums.square().sum(-1) / (area + _EPS)).sum()
        count = masks.shape[0] * num_frames * masks.shape[-1]
        return features.square().sum(2).mean() - explained / count


def position_loss(masks: Tensor, places: Tensor, *, background: float = 0.0) -> Tensor:
    """Gives the mean squared distance of positions to the centres of the masks that claim them.

    It is :func:`appearance_loss` of coordinates in every frame, except for a background.

    Args:
        masks: ``(B, T, K, P)``, sum 1 over K.
        places: ``(P, 2)``, x and y.
        background: if above 0, what a position costs that slot 0 claims, wherever it is. Without
            such a slot the loss would cut the background into compact parts.

    Returns:
        A scalar in the square of the coordinates' unit.
    """
    with torch.autocast(masks.device.type, enabled=False):
        masks, places = masks.float(), places.float()
        num_positions = masks.shape[-1]
        moments = torch.cat([places, places.square().sum(1, keepdim=True)], 1)  # (P, 3)
        area = masks.sum(-1)  # (B, T, K)
        sums = masks @ moments  # (B, T, K, 3)
        spread = sums[..., 2] - sums[..., :2].square().sum(-1) / (area + _EPS)
        if background:
            spread = torch.cat([background * area[..., :1], spread[..., 1:]], -1)
        return spread.sum(-1).mean() / num_positions


def weigh_luma(colours: Tensor, luma: float) -> Tensor:
    """Weighs the brightness of colours beside their chroma, which tells objects better.

    Shading and patterns change brightness more than chroma.

    Args:
        colours: RGB ``(..., 3, P)``.
        luma: weight of the mean of the channels; 1 leaves colours as they are.
    """
    if luma == 1:
        return colours
    return colours + (luma - 1) * colours.mean(-2, keepdim=True)
