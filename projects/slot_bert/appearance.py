"""The appearance loss: a slot's mask is to cover what looks alike.

Shapes: B clips, T frames, K slots, C channels, P positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["SCOPES", "appearance_loss"]

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
