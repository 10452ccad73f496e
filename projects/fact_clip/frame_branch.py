"""Branches over frames: MS-TCN and MS-TCN++ with their convolutions as products of matrices.

Shapes: T frames, F inner width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .filters import filter_frames
from .taps import DilatedTaps, FoldedTaps, PointwiseTaps, folding_pays

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
        num_layers = len(self.conv_fusion)
        for i in range(num_layers):
            x = self._layer(i, x, self.dropout if self.training and i + 1 < num_layers else 0.0)
        return _pointwise(self.conv_out, x)

    def _layer(self, i: int, x: Tensor, dropout: float) -> Tensor:
        stacks: Any = (self.conv_dilated_1, self.conv_dilated_2, self.conv_fusion)
        first, second, fusion = (stack[i] for stack in stacks)
        dilations = (first.dilation[0], second.dilation[0])
        pays = folding_pays(len(x), x.shape[1], dilations, with_gradients=torch.is_grad_enabled())
        if pays and self.groups == 1:
            weights = [w for conv in (first, second, fusion) for w in (conv.weight, conv.bias)]
            # What all layers keep is a tenth of the memory, what all fold again a twentieth of the
            # time: half of each.
            taps = FoldedTaps(dilations, len(x), keep=i % 2 == 0)
            return filter_frames(x, taps, weights, relu=True, dropout=dropout, residual=x)
        both = torch.cat([_dilated_filter(first, x), _dilated_filter(second, x)], 1)
        return _pointwise(fusion, both, relu=True, dropout=dropout, residual=x)


class _DilatedResidualLayer(nn.Module):
    def __init__(self, dim: int, dilation: int, dropout: float, norm: bool, groups: int) -> None:
        super().__init__()
        self.conv_dilated = _dilated(dim, dilation, groups)
        self.conv_1x1 = nn.Conv1d(dim, dim, 1)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        """Takes and gives ``(T, F)``."""
        dropout = self.dropout.p if self.training else 0.0
        inner = _dilated_filter(self.conv_dilated, x, relu=True)
        x = _pointwise(self.conv_1x1, inner, dropout=dropout, residual=x)
        return x if self.norm is None else self.norm(x)


def _check_width(in_dim: int, dim: int, in_map: bool) -> None:
    if not in_map and in_dim != dim:
        raise ValueError(f"without a map of the input it must be {dim} wide, not {in_dim}")


def _dilated(dim: int, dilation: int, groups: int) -> nn.Conv1d:
    return nn.Conv1d(dim, dim, 3, padding=dilation, dilation=dilation, groups=groups)


def _pointwise(conv: Any, x: Tensor, **then: Any) -> Tensor:
    return filter_frames(x, PointwiseTaps(), (conv.weight, conv.bias), **then)


def _dilated_filter(conv: Any, x: Tensor, *, relu: bool = False) -> Tensor:
    if conv.groups > 1:
        out = conv(x.t()[None])[0].t()
        return F.relu(out) if relu else out
    taps = DilatedTaps(conv.dilation[0], len(x))
    return filter_frames(x, taps, (conv.weight, conv.bias), relu=relu)
