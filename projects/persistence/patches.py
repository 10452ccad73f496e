"""Cuts the surroundings of detections out of the frames.

Shapes: T frames, N detections, P side of a patch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .detections import Detections

__all__ = ["SCALED_SIDE", "extract_patches"]

SCALED_SIDE = 16
"""P of patches that were resampled."""

_SCALED_RADII = 2.5  # side of the square that a scaled patch shows, in radii of the blob


def extract_patches(
    frames: Tensor, detections: Detections, *, side: int, scaled: bool = False
) -> Tensor:
    """Cuts out one patch per detection; what lies outside of the frame is black.

    Args:
        frames: uint8 ``(T, 3, H, W)``.
        detections: of these frames.
        side: P in pixels.
        scaled: show a square of 2.5 radii, resampled to 16 pixels, instead.

    Returns:
        uint8 ``(N, 3, P, P)``.
    """
    if not len(detections):
        used = SCALED_SIDE if scaled else side
        return torch.zeros(0, 3, used, used, dtype=torch.uint8)
    if scaled:
        return _scaled(frames, detections)
    rows = _window(detections.y, side)
    columns = _window(detections.x, side)
    return _gather(frames, detections.frame, rows, columns)


def _window(center: Tensor, side: int) -> Tensor:
    """Gives the ``(N, P)`` rows or columns that are nearest to the centres."""
    first = torch.floor(center - (side - 1) / 2 + 0.5).long()
    return first[:, None] + torch.arange(side)


def _gather(frames: Tensor, frame: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Reads ``(N, 3, P, P)`` pixels; zero outside of the frame."""
    height, width = frames.shape[-2:]
    inside_rows, inside_columns = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
    y, x = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    pixels = frames[frame[:, None, None], :, y[:, :, None], x[:, None, :]]  # (N, P, P, 3)
    inside = inside_rows[:, :, None] & inside_columns[:, None, :]
    return (pixels * inside[..., None]).permute(0, 3, 1, 2).contiguous()


def _scaled(frames: Tensor, detections: Detections) -> Tensor:
    extent = _SCALED_RADII * detections.radius  # (N,) pixels
    # Where a pixel of the patch covers several of the frame, their mean counts.
    fold = max(1, math.ceil(float(extent.max()) / SCALED_SIDE))
    count = SCALED_SIDE * fold
    places = (torch.arange(count) + 0.5) / count - 0.5
    y = detections.y[:, None] + extent[:, None] * places
    x = detections.x[:, None] + extent[:, None] * places
    top, left = torch.floor(y), torch.floor(x)
    down, right = (y - top)[:, None, :, None], (x - left)[:, None, None, :]
    rows, columns = top.long(), left.long()
    corners = [
        _gather(frames, detections.frame, rows + dy, columns + dx).float()
        for dy in (0, 1)
        for dx in (0, 1)
    ]
    above = corners[0] + right * (corners[1] - corners[0])
    below = corners[2] + right * (corners[3] - corners[2])
    smooth = F.avg_pool2d(above + down * (below - above), fold)
    return smooth.round().clamp(0, 255).to(torch.uint8)
