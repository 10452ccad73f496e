"""Codes of the places of tokens on their grid.

Shapes: h, w token grid, N = h w tokens, D features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["POSITIONS", "FourierPosition", "LearnedPosition", "build_position", "cell_centres"]

POSITIONS = ("fourier", "learned", "none")

_NUM_FREQUENCIES = 8
_LOWEST = math.pi / 2  # in the x and y of cell centres: half a wave across the picture


class FourierPosition(nn.Module):
    """A linear map of x and y and of their sines and cosines at frequencies that double.

    Args:
        dim: D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(2 + 4 * _NUM_FREQUENCIES, dim)

    def forward(self, height: int, width: int) -> Tensor:
        """Gives the code of a grid, ``(N, D)``."""
        places = cell_centres(height, width, device=self.proj.weight.device)  # (N, 2)
        frequencies = _LOWEST * 2.0 ** torch.arange(_NUM_FREQUENCIES, device=places.device)
        phases = (places[:, :, None] * frequencies).flatten(1)  # (N, 16)
        features = torch.cat([places, phases.sin(), phases.cos()], 1)
        code: Tensor = self.proj(features.to(self.proj.weight.dtype))
        return code


class LearnedPosition(nn.Module):
    """A table of a code for each cell, resized bicubically for other grids.

    Args:
        dim: D.
        size: rows and columns of the table.
    """

    def __init__(self, dim: int, size: Sequence[int]) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(1, dim, *size))
        nn.init.trunc_normal_(self.table, std=0.02)

    def no_weight_decay(self) -> set[str]:
        """Names the parameters that the optimiser leaves as large as they are."""
        return {"table"}

    def forward(self, height: int, width: int) -> Tensor:
        """Gives the code of a grid, ``(N, D)``."""
        table: Tensor = self.table
        if table.shape[2:] != (height, width):
            table = F.interpolate(
                table.float(), (height, width), mode="bicubic", align_corners=False
            )
        return table[0].flatten(1).mT


def build_position(name: str, dim: int, size: Sequence[int] = (8, 8)) -> nn.Module | None:
    """Builds a position code, or None for ``"none"``.

    Args:
        name: one of ``POSITIONS``.
        dim: D.
        size: rows and columns of a learned table.

    Raises:
        ValueError: if there is no such code.
    """
    if name not in POSITIONS:
        raise ValueError(f"position {name!r} is none of {', '.join(POSITIONS)}")
    if name == "none":
        return None
    return FourierPosition(dim) if name == "fourier" else LearnedPosition(dim, size)


def cell_centres(height: int, width: int, *, device: torch.device | None = None) -> Tensor:
    """Gives x and y of the cells of a grid in [-1, 1], row by row, float32 ``(N, 2)``."""

    def axis(cells: int) -> Tensor:
        return (2 * torch.arange(cells, device=device, dtype=torch.float32) + 1) / cells - 1

    y, x = torch.meshgrid(axis(height), axis(width), indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)
