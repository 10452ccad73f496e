"""Deformable convolution (Dai et al., ICCV 2017; Zhu et al., CVPR 2019, for the weighed one)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .norm import ConvNorm
from .onednn import Conv2d

__all__ = ["DeformConv", "offset_conv"]

_KERNEL = 3


class DeformConv(ConvNorm):
    """A 3x3 convolution whose samples lie where a map of offsets says, with norm and ReLU.

    Args:
        channels: of the input and of the output.
        norm: norm over the output, ``None`` for none.
        is_modulated: whether every sample has a weight of its own.
        options: of ``ConvNorm``: ``stride``, ``dilation``, ``groups``, ``relu``, ``bias``.
    """

    def __init__(
        self, channels: int, *, norm: nn.Module | None, is_modulated: bool, **options: Any
    ) -> None:
        super().__init__(channels, channels, _KERNEL, norm=norm, **options)
        self.is_modulated = is_modulated

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:  # type: ignore[override]
        """Maps ``(B, C, H, W)`` to ``(B, C, H', W')``.

        Args:
            x: the input.
            offsets: of ``offset_conv``, ``(B, 2 or 3 times 9 per group, H', W')``.
        """
        # On demand: it takes a second and 150 MB, and hardly any network needs it.
        from torchvision.ops import deform_conv2d

        weights = None
        if self.is_modulated:
            first, second, weights = offsets.chunk(3, dim=1)
            offsets, weights = torch.cat((first, second), dim=1), weights.sigmoid()
        y = deform_conv2d(
            x,
            offsets,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            mask=weights,
        )
        y = y if self.norm is None else self.norm(y)
        return F.relu_(y) if self.relu else y


def offset_conv(
    channels: int, *, num_groups: int, is_modulated: bool, stride: int, dilation: int
) -> Conv2d:
    """Gives the convolution that tells the offsets, in pixels; zero at first.

    Args:
        channels: of its input.
        num_groups: groups of channels that are deformed alike.
        is_modulated: whether it tells weights, too.
        stride: of the convolution that is deformed.
        dilation: likewise.
    """
    per_sample = 3 if is_modulated else 2
    conv = Conv2d(
        channels,
        per_sample * _KERNEL * _KERNEL * num_groups,
        _KERNEL,
        stride=stride,
        padding=dilation,
        dilation=dilation,
    )
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv
