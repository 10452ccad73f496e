"""Deformable-attention pixel decoder (Mask2Former, Cheng et al., CVPR 2022, section 3.1).

Shapes: B frames, C channels, S tokens of all levels (coarse to fine), h w pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.config import CfgNode
from vidseg.errors import ConfigError
from vidseg.layers import Conv2d, Linear, MSDeformAttn, cell_centres, group_norm, sine_position
from vidseg.modeling.build import SEM_SEG_HEADS_REGISTRY, check_num_heads
from vidseg.structures import ShapeSpec

from .base import PixelFeatures, conv_norm, select_shapes, xavier_fill

__all__ = ["MSDeformPixelDecoder"]

_NUM_MAPS = 3


@SEM_SEG_HEADS_REGISTRY.register(name="MSDeformAttnPixelDecoder")
class MSDeformPixelDecoder(nn.Module):
    """Deformable encoder over the coarse maps, then a top-down pyramid to the finer ones.

    Args:
        input_shape: all feature maps to use.
        transformer_features: the names among them that the encoder reads.
        conv_dim: width of the encoder and channels of the maps that are returned.
        mask_dim: channels of the mask features.
        norm: norm of the pyramid's convolutions, see ``build_norm``.
        num_heads: heads of the deformable attention.
        num_layers: encoder layers.
        dim_feedforward: inner width of the encoder's feed-forward blocks.
        dropout: of the encoder.

    Raises:
        ConfigError: if the encoder does not get three maps.
    """

    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        transformer_features: Mapping[str, ShapeSpec],
        *,
        conv_dim: int = 256,
        mask_dim: int = 256,
        norm: str = "GN",
        num_heads: int = 8,
        num_layers: int = 6,
        dim_feedforward: int = 1024,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        strides = {name: shape.stride for name, shape in transformer_features.items()}
        if len(strides) != _NUM_MAPS:
            raise ConfigError(
                "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES must name "
                f"{_NUM_MAPS} feature maps, got {', '.join(strides) or 'none'}"
            )
        self.mask_dim = mask_dim
        self.coarse = sorted(strides, key=lambda name: -strides[name])  # coarse to fine
        self.fine = sorted(  # fine to coarse, all finer than what the encoder reads
            (name for name in input_shape if input_shape[name].stride < min(strides.values())),
            key=lambda name: input_shape[name].stride,
        )
        self.input_proj = nn.ModuleList(
            _projection(transformer_features[name].channels, conv_dim) for name in self.coarse
        )
        self.transformer = _DeformableEncoder(
            conv_dim,
            num_levels=_NUM_MAPS,
            num_heads=num_heads,
            num_layers=num_layers,
            dim_feedforward=dim_feedforward,
            dropout=dropout,
        )
        self.mask_features = Conv2d(conv_dim, mask_dim, 1)
        xavier_fill(self.mask_features)
        for number, name in enumerate(self.fine, start=1):
            channels = input_shape[name].channels
            self.add_module(f"adapter_{number}", conv_norm(channels, conv_dim, 1, norm=norm))
            self.add_module(
                f"layer_{number}", conv_norm(conv_dim, conv_dim, 3, norm=norm, relu=True)
            )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        """Reads ``MODEL.SEM_SEG_HEAD`` and heads and dropout of ``MODEL.MASK_FORMER``.

        Raises:
            ConfigError: if the backbone lacks a map or the heads do not divide CONVS_DIM.
        """
        head, mask_former = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.MASK_FORMER
        prefix = "MODEL.SEM_SEG_HEAD."
        check_num_heads(cfg, prefix + "CONVS_DIM", head.CONVS_DIM)
        return {
            "input_shape": select_shapes(input_shape, head.IN_FEATURES, key=prefix + "IN_FEATURES"),
            "transformer_features": select_shapes(
                input_shape,
                head.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES,
                key=prefix + "DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES",
            ),
            "conv_dim": head.CONVS_DIM,
            "mask_dim": head.MASK_DIM,
            "norm": head.NORM,
            "num_heads": mask_former.NHEADS,
            "num_layers": head.TRANSFORMER_ENC_LAYERS,
            "dim_feedforward": head.TRANSFORMER_ENC_DIM_FEEDFORWARD,
            "dropout": mask_former.DROPOUT,
        }

    def forward(self, features: Mapping[str, Tensor]) -> PixelFeatures:
        """Decodes backbone maps ``(B, C_i, H/s_i, W/s_i)``.

        Runs in float32 even under autocast: sampling places in half precision are too coarse.
        """
        device = features[self.coarse[0]].device
        with torch.autocast(device_type=device.type, enabled=False):
            maps = self.transformer(
                [
                    projection(features[name].float())
                    for projection, name in zip(self.input_proj, self.coarse, strict=True)
                ]
            )
            y = maps[-1]
            for number in range(len(self.fine), 0, -1):
                y = self._merged(y, features[self.fine[number - 1]].float(), number)
                y = self.get_submodule(f"layer_{number}")(y)
            return PixelFeatures(self.mask_features(y), maps)

    def _merged(self, coarse: Tensor, fine: Tensor, number: int) -> Tensor:
        """Adds a coarser map to a finer one; these are the largest maps, and only the sum stays."""
        lateral = self.get_submodule(f"adapter_{number}")(fine)
        size = lateral.shape[-2:]
        return lateral + F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)


def _projection(in_channels: int, out_channels: int) -> nn.Sequential:
    """A 1x1 convolution with group norm, whatever the norm of the pyramid."""
    conv = Conv2d(in_channels, out_channels, 1)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return nn.Sequential(conv, group_norm(out_channels))


class _DeformableEncoder(nn.Module):
    """Post-norm deformable encoder over several feature maps."""

    def __init__(
        self,
        d_model: int,
        *,
        num_levels: int,
        num_heads: int,
        num_layers: int,
        dim_feedforward: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.level_embed = nn.Parameter(torch.empty(num_levels, d_model))
        nn.init.normal_(self.level_embed)
        self.encoder = nn.Module()  # published weights have this level of naming
        self.encoder.layers = nn.ModuleList(
            _EncoderLayer(d_model, num_levels, num_heads, dim_feedforward, dropout)
            for _ in range(num_layers)
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Lets maps ``(B, C, h_l, w_l)`` exchange information; same shapes back."""
        sizes = [(m.shape[-2], m.shape[-1]) for m in maps]
        channels, device = maps[0].shape[1], maps[0].device
        tokens = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)  # (B, S, C)
        position = torch.cat(
            [
                sine_position(h, w, channels, device=device).flatten(1).T + embed
                for (h, w), embed in zip(sizes, self.level_embed, strict=True)
            ]
        )  # (S, C)
        centres = cell_centres(sizes, device=device)  # (S, 2)
        for layer in self.encoder.layers:  # type: ignore[union-attr]
            tokens = layer(tokens, position, centres, sizes)
        parts = tokens.split([h * w for h, w in sizes], dim=1)
        return [
            part.transpose(1, 2).unflatten(2, size) for part, size in zip(parts, sizes, strict=True)
        ]


class _EncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward network, each with residual and norm."""

    def __init__(
        self, d_model: int, num_levels: int, num_heads: int, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        self.self_attn = MSDeformAttn(d_model, num_levels, num_heads=num_heads)
        self.norm1 = nn.LayerNorm(d_model)
        self.linear1 = Linear(d_model, hidden)
        self.linear2 = Linear(hidden, d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        for layer in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(layer.weight)

    def forward(
        self, tokens: Tensor, position: Tensor, centres: Tensor, sizes: list[tuple[int, int]]
    ) -> Tensor:
        update = self.self_attn(tokens + position, centres, tokens, sizes)
        tokens = self.norm1(tokens + self.dropout(update))
        update = self.linear2(self.dropout(self.linear1(tokens, relu=True)))
        return self.norm2(tokens + self.dropout(update))
