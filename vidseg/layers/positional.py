"""Sine position codes of feature maps (Carion et al., ECCV 2020, section A.4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["sine_position"]

_TEMPERATURE = 10000.0
_EPS = 1e-6


def sine_position(
    height: int,
    width: int,
    channels: int,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Gives the fixed two-dimensional position code of a feature map.

    The first half of the channels encodes the row, the second half the column; within a half,
    even channels are sines and odd channels cosines of geometrically falling frequency.

    Args:
        height: rows of the map.
        width: columns of the map.
        channels: width of the code; divisible by 4.
        device: where the result lives.
        dtype: type of the result; the angles are computed in float32.

    Returns:
        The code, ``(channels, height, width)``.

    Raises:
        ValueError: if ``channels`` is not divisible by 4.

    Source: the 2-D generalisation of the sine code as used by DETR and Mask2Former.
    """
    if channels % 4:
        raise ValueError(f"a sine position code needs channels divisible by 4, got {channels}")
    half = channels // 2
    rows = _axis_code(height, half, device)  # (C/2, H)
    columns = _axis_code(width, half, device)  # (C/2, W)
    code = torch.cat(
        [
            rows[:, :, None].expand(half, height, width),
            columns[:, None, :].expand(half, height, width),
        ]
    )
    return code.to(dtype)


def _axis_code(length: int, channels: int, device: torch.device | str | None) -> Tensor:
    """Codes the cells 1..length of one axis: ``(channels, length)``, sines and cosines in turn."""
    position = torch.arange(1, length + 1, dtype=torch.float32, device=device)
    angle = position / (length + _EPS) * (2 * math.pi)
    pair = torch.arange(channels // 2, dtype=torch.float32, device=device)
    frequency = _TEMPERATURE ** (2 * pair / channels)
    phase = angle[None, :] / frequency[:, None]  # (C/2, length)
    return torch.stack([phase.sin(), phase.cos()], dim=1).flatten(0, 1)
