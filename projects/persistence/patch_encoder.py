"""Patches around blobs to vectors.

Shapes: N patches of all clips of a batch, P their side, C channels of a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.layers.onednn import Conv2d, Linear
from vidseg.modeling.backbone import Backbone

__all__ = ["BackbonePatchEncoder", "ConvPatchEncoder"]

_CHANNELS = (16, 32)


class ConvPatchEncoder(nn.Module):
    """Two convolutions with stride 2, their mean over the patch, a linear map.

    Args:
        dim: C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        first, second = _CHANNELS
        self.conv1 = Conv2d(3, first, 3, stride=2, padding=1)
        self.conv2 = Conv2d(first, second, 3, stride=2, padding=1)
        self.proj = Linear(second, dim)

    def forward(self, patches: Tensor) -> Tensor:
        """Encodes uint8 ``(N, 3, P, P)`` as ``(N, C)``."""
        x = (patches.to(self.proj.weight.dtype) / 127.5 - 1).contiguous(
            memory_format=torch.channels_last
        )
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        return cast(Tensor, self.proj(x.mean((2, 3))))


class BackbonePatchEncoder(nn.Module):
    """The mean of the last feature map of a backbone, and a linear map.

    Args:
        backbone: any of ``BACKBONE_REGISTRY``.
        dim: C.
        size: side in pixels to which patches are resized, for most networks at least 32.
        frozen: whether the backbone stays as it is, in evaluation mode.
        pixel_mean: per channel, in the order of ``channel_order``, for values 0 to 255.
        pixel_std: likewise.
        channel_order: that the backbone expects, ``"RGB"`` or ``"BGR"``.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        dim: int,
        *,
        size: int = 32,
        frozen: bool = False,
        pixel_mean: Sequence[float] = (123.675, 116.28, 103.53),
        pixel_std: Sequence[float] = (58.395, 57.12, 57.375),
        channel_order: str = "RGB",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.size, self.frozen, self.flips = size, frozen, channel_order == "BGR"
        name, shape = list(backbone.output_shape().items())[-1]
        self.map_name = name
        self.proj = Linear(shape.channels, dim)
        for key, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(key, torch.tensor(values).view(3, 1, 1), persistent=False)
        if frozen:
            backbone.requires_grad_(False)
            backbone.eval()

    def train(self, mode: bool = True) -> BackbonePatchEncoder:
        """Switches the learning parts."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, patches: Tensor) -> Tensor:
        """Encodes uint8 ``(N, 3, P, P)`` as ``(N, C)``."""
        x = patches.flip(1) if self.flips else patches
        x = (x.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std
        if len(x):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", align_corners=False)
        else:
            x = x.new_zeros(0, 3, self.size, self.size)
        # Batch norm cannot learn from one value per channel, not every layer takes an empty batch.
        missing = max((2 if self.training else 1) - len(x), 0)
        maps = self.backbone(F.pad(x, (0, 0, 0, 0, 0, 0, 0, missing)))[self.map_name]
        return cast(Tensor, self.proj(maps[: len(x)].mean((2, 3))))
