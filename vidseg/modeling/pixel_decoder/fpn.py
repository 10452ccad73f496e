"""A plain feature pyramid as pixel decoder (Lin et al., CVPR 2017; MaskFormer, NeurIPS 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.config import CfgNode
from vidseg.errors import ConfigError
from vidseg.layers import Conv2d
from vidseg.modeling.build import SEM_SEG_HEADS_REGISTRY
from vidseg.structures import ShapeSpec

from .base import PixelFeatures, conv_norm, select_shapes, xavier_fill

__all__ = ["FPNPixelDecoder"]

_NUM_MAPS = 3


@SEM_SEG_HEADS_REGISTRY.register(name="BasePixelDecoder")
class FPNPixelDecoder(nn.Module):
    """Top-down pyramid with nearest upsampling; convolutions only.

    Args:
        input_shape: feature maps to use; at least four, each twice as coarse as the one before.
        conv_dim: channels inside and of the maps that are returned.
        mask_dim: channels of the mask features.
        norm: norm after every convolution, see ``build_norm``.

    Raises:
        ConfigError: if there are fewer than three maps.
    """

    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        *,
        conv_dim: int = 256,
        mask_dim: int = 256,
        norm: str = "GN",
    ) -> None:
        super().__init__()
        self.in_features = sorted(input_shape, key=lambda name: input_shape[name].stride)
        if len(self.in_features) < _NUM_MAPS:
            raise ConfigError(
                f"MODEL.SEM_SEG_HEAD.IN_FEATURES needs {_NUM_MAPS} feature maps or more for "
                f"BasePixelDecoder, got {', '.join(self.in_features)}"
            )
        self.mask_dim = mask_dim
        coarsest = len(self.in_features)
        for number, name in enumerate(self.in_features, start=1):
            channels = input_shape[name].channels
            if number < coarsest:
                self.add_module(f"adapter_{number}", conv_norm(channels, conv_dim, 1, norm=norm))
                channels = conv_dim
            self.add_module(
                f"layer_{number}", conv_norm(channels, conv_dim, 3, norm=norm, relu=True)
            )
        self.mask_features = Conv2d(conv_dim, mask_dim, 3, padding=1)
        xavier_fill(self.mask_features)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        """Reads ``MODEL.SEM_SEG_HEAD``."""
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": select_shapes(
                input_shape, head.IN_FEATURES, key="MODEL.SEM_SEG_HEAD.IN_FEATURES"
            ),
            "conv_dim": head.CONVS_DIM,
            "mask_dim": head.MASK_DIM,
            "norm": head.NORM,
        }

    def forward(self, features: Mapping[str, Tensor]) -> PixelFeatures:
        """Decodes backbone maps ``(B, C_i, H/s_i, W/s_i)``; runs in float32."""
        device = features[self.in_features[0]].device
        with torch.autocast(device_type=device.type, enabled=False):
            maps = []
            y: Tensor | None = None
            for number in range(len(self.in_features), 0, -1):
                x = features[self.in_features[number - 1]].float()
                if y is not None:
                    lateral = self.get_submodule(f"adapter_{number}")(x)
                    x = lateral + F.interpolate(y, size=lateral.shape[-2:], mode="nearest")
                y = self.get_submodule(f"layer_{number}")(x)
                maps.append(y)
            return PixelFeatures(self.mask_features(maps[-1]), maps[:_NUM_MAPS])
