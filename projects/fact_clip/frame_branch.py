"""Branches over frames: MS-TCN and MS-TCN++ with their convolutions as products of matrices.

Shapes: T frames, F inner width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.layers.onednn import linear

__all__ = ["MSTCN", "MSTCN2"]


class MSTCN(nn.Module):
    """Residual layers of dilated convolutions, the dilation doubling from layer to layer.

    Args:
        in_dim: width of the input.
        dim: F.
        out_dim: width of the output.
        num_layers: layers.
        dropout: of what a layer adds.
        norm: whether a layer norm follows each layer.
        groups: of the dilated convolutions.
        in_map: whether a linear map leads to F; else the input must be as wide.

    Shape:
        - input: ``(T, in_dim)``
        - output: ``(T, out_dim)``

    Raises:
        ValueError: if the widths do not fit.

    Source: MS-TCN (Abu Farha and Gall, CVPR 2019, section 3.1); layer norm: FACT.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        out_dim: int,
        *,
        num_layers: int,
        dropout: float = 0.0,
        norm: bool = False,
        groups: int = 1,
        in_map: bool = False,
    ) -> None:
        super().__init__()
        _check_width(in_dim, dim, in_map)
        self.conv_1x1 = nn.Conv1d(in_dim, dim, 1) if in_map else None
        self.layers = nn.ModuleList(
            _DilatedResidualLayer(dim, 2**i, dropout, norm, groups) for i in range(num_layers)
        )
        self.conv_out = nn.Conv1d(dim, out_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Runs the layers; see the class for shapes."""
        if self.conv_1x1 is not None:
            x = _pointwise(self.conv_1x1, x)
        for layer in self.layers:
            x = layer(x)
        return _pointwise(self.conv_out, x)


class MSTCN2(nn.Module):
    """Residual layers of two dilated convolutions each, one widening, one narrowing.

    Nothing but linear maps lies between the input of a layer and its ReLU, so both convolutions
    and their fusion run as one filter of five taps.

    Args:
        in_dim: width of the input.
        dim: F.
        out_dim: width of the output.
        num_layers: layers.
        dropout: of what a layer adds, but for the last.
        groups: of the dilated convolutions.
        in_map: whether a linear map leads to F; else the input must be as wide.

    Shape:
        - input: ``(T, in_dim)``
        - output: ``(T, out_dim)``

    Raises:
        ValueError: if the widths do not fit.

    Source: MS-TCN++ (Li et al., TPAMI 2020, section 3.2).
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        out_dim: int,
        *,
        num_layers: int,
        dropout: float = 0.0,
        groups: int = 1,
        in_map: bool = True,
    ) -> None:
        super().__init__()
        _check_width(in_dim, dim, in_map)
        self.groups, self.dropout = groups, dropout
        self.conv_1x1_in = nn.Conv1d(in_dim, dim, 1) if in_map else None
        self.conv_dilated_1 = nn.ModuleList(
            _dilated(dim, 2 ** (num_layers - 1 - i), groups) for i in range(num_layers)
        )
        self.conv_dilated_2 = nn.ModuleList(_dilated(dim, 2**i, groups) for i in range(num_layers))
        self.conv_fusion = nn.ModuleList(nn.Conv1d(2 * dim, dim, 1) for _ in range(num_layers))
        self.conv_out = nn.Conv1d(dim, out_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Runs the layers; see the class for shapes."""
        if self.conv_1x1_in is not None:
            x = _pointwise(self.conv_1x1_in, x)
        stacks: Any = (self.conv_dilated_1, self.conv_dilated_2, self.conv_fusion)
        last = len(self.conv_fusion) - 1
        for i in range(last + 1):
            first, second, fusion = (convs[i] for convs in stacks)
            taps, bias = _fold(first, second, fusion)
            dilations = (first.dilation[0], second.dilation[0])
            added = F.relu(_filter(x, taps, bias, dilations))
            x = x + (F.dropout(added, self.dropout, self.training) if i < last else added)
        return _pointwise(self.conv_out, x)


class _DilatedResidualLayer(nn.Module):
    def __init__(self, dim: int, dilation: int, dropout: float, norm: bool, groups: int) -> None:
        super().__init__()
        self.conv_dilated = _dilated(dim, dilation, groups)
        self.conv_1x1 = nn.Conv1d(dim, dim, 1)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        """Takes and gives ``(T, F)``."""
        out = self.conv_dilated(x.t()[None])[0].t()
        x = x + self.dropout(_pointwise(self.conv_1x1, F.relu(out)))
        return x if self.norm is None else self.norm(x)


def _check_width(in_dim: int, dim: int, in_map: bool) -> None:
    if not in_map and in_dim != dim:
        raise ValueError(f"without a map of the input it must be {dim} wide, not {in_dim}")


def _dilated(dim: int, dilation: int, groups: int) -> nn.Conv1d:
    return nn.Conv1d(dim, dim, 3, padding=dilation, dilation=dilation, groups=groups)


def _pointwise(conv: nn.Conv1d, x: Tensor) -> Tensor:
    return linear(x, conv.weight[..., 0], conv.bias)


def _fold(first: Any, second: Any, fusion: Any) -> tuple[list[Tensor], Tensor]:
    """Gives the taps at -d1, -d2, 0, d2, d1 of the whole layer, ``(F, F)`` each, and its bias."""
    halves = fusion.weight[..., 0].chunk(2, dim=1)
    outer, inner = (
        _fold_one(half, conv.weight, conv.groups)
        for half, conv in zip(halves, (first, second), strict=True)
    )
    bias = halves[0] @ first.bias + halves[1] @ second.bias + fusion.bias
    return [outer[0], inner[0], outer[1] + inner[1], inner[2], outer[2]], bias


def _fold_one(half: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Multiplies ``(F, F)`` with each tap of ``(F, F/g, 3)``: ``(3, F, F)``."""
    dim = len(half)
    grouped = weight.view(groups, dim // groups, -1, 3)
    folded = torch.einsum("ogm,gmik->kogi", half.view(dim, groups, -1), grouped)
    return folded.reshape(3, dim, dim)


def _filter(x: Tensor, taps: list[Tensor], bias: Tensor, dilations: tuple[int, int]) -> Tensor:
    outer, inner = dilations
    out = F.linear(x, taps[2], bias)
    offsets = (-outer, -inner, 0, inner, outer)
    for tap, offset in zip(taps, offsets, strict=True):
        if offset == 0 or abs(offset) >= len(x):
            continue
        if offset < 0:
            out[-offset:] += F.linear(x[:offset], tap)
        else:
            out[:-offset] += F.linear(x[offset:], tap)
    return out
