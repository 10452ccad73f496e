"""Bilinear sampling from several feature levels as one weighted sum of table rows, without a graph.

On a CPU this is 2 to 10 times faster than ``grid_sample`` per level (96x128 to 480x640 pixels),
which stays the better one where gradients are wanted.

Shapes: B batch, N queries, S tokens of all levels, M heads, L levels, P points, D head channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["sample_by_bags"]


def sample_by_bags(
    value: Tensor, level_sizes: Sequence[tuple[int, int]], grid: Tensor, weights: Tensor
) -> Tensor:
    """Weighted sum of bilinear samples; arguments and result as of ``sample_levels``."""
    batch, num, heads, levels, points = weights.shape
    table, starts = _bordered(value, level_sizes)  # (B, cells, M, D)
    cells = table.shape[1]
    sizes = grid.new_tensor([[[w, h]] * points for h, w in level_sizes])  # (L, P, 2)
    pixel = torch.addcmul((sizes - 1) / 2, grid, sizes / 2)  # (B, N, M, L, P, 2)
    # Beyond one cell outside there are only zeros; this also keeps diverged places in the table.
    pixel = torch.minimum(pixel.nan_to_num_(nan=-1.0).clamp_(min=-1), sizes)
    low = pixel.floor()
    x_share, y_share = (pixel - low).unbind(-1)  # (B, N, M, L, P)

    # Corners of a sample: top left, top right, bottom left, bottom right.
    rows = torch.tensor([[w + 2] * points for _, w in level_sizes], device=grid.device)  # (L, P)
    cell = (low[..., 0] + low[..., 1] * rows).to(torch.int32)
    origin = torch.tensor(starts, device=grid.device)[:, None] + rows + 1  # (L, P), cell (0, 0)
    base = torch.arange(batch, device=grid.device)[:, None, None, None, None] * (cells * heads)
    base = base + torch.arange(heads, device=grid.device)[:, None, None] + origin * heads
    corners = torch.empty(
        batch, num, heads, 4, levels, points, dtype=torch.int32, device=grid.device
    )
    torch.add(base.to(torch.int32), cell, alpha=heads, out=corners[:, :, :, 0])
    torch.add(corners[:, :, :, 0], heads, out=corners[:, :, :, 1])
    torch.add(corners[:, :, :, :2], (rows * heads).to(torch.int32), out=corners[:, :, :, 2:])

    shares = torch.empty(batch, num, heads, 4, levels, points, dtype=grid.dtype, device=grid.device)
    bottom = weights * y_share
    for first, part in ((0, weights - bottom), (2, bottom)):
        torch.mul(part, x_share, out=shares[:, :, :, first + 1])
        torch.sub(part, shares[:, :, :, first + 1], out=shares[:, :, :, first])

    per_bag = 4 * levels * points
    offsets = torch.arange(0, corners.numel(), per_bag, dtype=torch.int32, device=grid.device)
    out = F.embedding_bag(
        corners.flatten(),
        table.flatten(0, 2),
        offsets,
        per_sample_weights=shares.flatten(),
        mode="sum",
    )  # (B*N*M, D)
    return out.view(batch, num, -1)


def _bordered(value: Tensor, level_sizes: Sequence[tuple[int, int]]) -> tuple[Tensor, list[int]]:
    """Puts zeros around every level, so that no corner of a sample needs a test.

    Returns:
        The cells of all levels, ``(B, cells, M, D)``: one border column left and right, one row
        above and two below, and a last cell that the last corner may touch; and where each level
        starts.
    """
    batch, _, heads, channels = value.shape
    starts, cells = [], 0
    for height, width in level_sizes:
        starts.append(cells)
        cells += (height + 3) * (width + 2)
    table = value.new_zeros(batch, cells + 1, heads, channels)
    levels = value.split([h * w for h, w in level_sizes], dim=1)
    for start, level, (height, width) in zip(starts, levels, level_sizes, strict=True):
        area = table[:, start : start + (height + 3) * (width + 2)]
        inner = area.unflatten(1, (height + 3, width + 2))[:, 1 : height + 1, 1 : width + 1]
        inner.copy_(level.unflatten(1, (height, width)))
    return table, starts
