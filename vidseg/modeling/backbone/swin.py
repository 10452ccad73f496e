"""Swin Transformer (Liu et al., ICCV 2021) under the names of published segmenters.

Shapes: B batch, H W cells of a map, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vidseg.config import CfgNode
from vidseg.errors import ConfigError, nearest
from vidseg.layers import Conv2d, Linear
from vidseg.modeling.build import BACKBONE_REGISTRY
from vidseg.structures import ShapeSpec

from .base import Backbone
from .swin_block import SwinBlock, cut_windows

__all__ = ["D2SwinTransformer"]


@BACKBONE_REGISTRY.register()
class D2SwinTransformer(Backbone):
    """Attention within windows, every second block with shifted windows, in stages of halved size.

    Args:
        embed_dim: channels of the first stage; doubled in every later one.
        depths: blocks of every stage.
        num_heads: attention heads of every stage.
        window_size: side of a window in cells; shifted blocks shift by half of it.
        patch_size: pixels per side of a cell of the first stage.
        mlp_ratio: hidden channels of a block's MLP as a multiple of its width.
        qkv_bias: whether queries, keys and values have a bias.
        qk_scale: factor on the attention logits; ``None`` for 1 / root of the head's width.
        drop_rate: dropout after the patch embedding, the projections and in the MLPs.
        attn_drop_rate: dropout of the attention weights.
        drop_path_rate: probability that the last block is left out for a sample in training; rises
            linearly from 0 at the first block.
        absolute_positions: whether learned absolute positions are added to the patches.
        pretrain_img_size: side in pixels of the image that the absolute positions were learned
            for; they are resized to other images.
        patch_norm: norm after the patch embedding.
        use_checkpoint: compute blocks again in the backward pass instead of keeping their insides.
        out_features: which of res2, res3, ... to return, each after a norm of its own.
        freeze_at: how many parts do not train: 1 the patch embedding, 2 also the first stage, ...

    Shape:
        - input: ``(B, 3, height, width)`` of any size
        - output: res2 is ``(B, C, ceil(height / 4), ceil(width / 4))``; every later map has half
          the size of the one before, rounded up

    Raises:
        ConfigError: for values that do not fit together.

    Note:
        Windows are shifted even where one window holds the whole map, as in published detectors;
        the classifier of the paper does not shift there.
    """

    def __init__(
        self,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        *,
        window_size: int = 7,
        patch_size: int = 4,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.3,
        absolute_positions: bool = False,
        pretrain_img_size: int = 224,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
        out_features: Sequence[str] = ("res2", "res3", "res4", "res5"),
        freeze_at: int = 0,
    ) -> None:
        super().__init__()
        _check_stages(embed_dim, depths, num_heads, out_features, freeze_at)
        _check_sizes(window_size, patch_size, pretrain_img_size, absolute_positions)
        _check_rates(drop_rate, attn_drop_rate, drop_path_rate)
        names = _stage_names(depths)
        num_stages = 1 + max(names.index(name) for name in out_features)
        self.use_checkpoint = use_checkpoint
        self.freeze_at = freeze_at
        self.patch_embed = _PatchEmbed(patch_size, embed_dim, norm=patch_norm)
        if absolute_positions:
            side = pretrain_img_size // patch_size
            self.absolute_pos_embed = nn.Parameter(torch.zeros(1, embed_dim, side, side))
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        self.pos_drop = nn.Dropout(drop_rate)
        self.layers = nn.ModuleList()
        self._shapes = {}
        paths = _ramp(drop_path_rate, sum(depths))
        for index in range(num_stages):
            width, first = embed_dim * 2**index, sum(depths[:index])
            blocks = [
                SwinBlock(
                    width,
                    num_heads[index],
                    window_size,
                    mlp_ratio=mlp_ratio,
                    qkv_bias=qkv_bias,
                    qk_scale=qk_scale,
                    drop=drop_rate,
                    attn_drop=attn_drop_rate,
                    drop_path=paths[first + number],
                )
                for number in range(depths[index])
            ]
            self.layers.append(_Stage(blocks, width if index + 1 < num_stages else 0))
            if names[index] in out_features:
                self.add_module(f"norm{index}", nn.LayerNorm(width))
                stride = patch_size * 2**index
                self._shapes[names[index]] = ShapeSpec(channels=width, stride=stride)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        for part in self.frozen_parts():
            part.requires_grad_(False).eval()
        if absolute_positions and freeze_at > 0:
            self.absolute_pos_embed.requires_grad_(False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads ``MODEL.SWIN`` and ``MODEL.BACKBONE.FREEZE_AT``."""
        swin = cfg.MODEL.SWIN
        return {
            "embed_dim": swin.EMBED_DIM,
            "depths": swin.DEPTHS,
            "num_heads": swin.NUM_HEADS,
            "window_size": swin.WINDOW_SIZE,
            "patch_size": swin.PATCH_SIZE,
            "mlp_ratio": swin.MLP_RATIO,
            "qkv_bias": swin.QKV_BIAS,
            "qk_scale": swin.QK_SCALE,
            "drop_rate": swin.DROP_RATE,
            "attn_drop_rate": swin.ATTN_DROP_RATE,
            "drop_path_rate": swin.DROP_PATH_RATE,
            "absolute_positions": swin.APE,
            "pretrain_img_size": swin.PRETRAIN_IMG_SIZE,
            "patch_norm": swin.PATCH_NORM,
            "use_checkpoint": swin.USE_CHECKPOINT,
            "out_features": swin.OUT_FEATURES,
            "freeze_at": cfg.MODEL.BACKBONE.FREEZE_AT,
        }

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """Maps normalised frames ``(B, 3, H, W)`` to the wanted maps, finest first."""
        x = self.patch_embed(frames)  # (B, H, W, C)
        if hasattr(self, "absolute_pos_embed"):
            size = x.shape[1:3]
            positions = F.interpolate(self.absolute_pos_embed, size=size, mode="bicubic")
            x = x + positions.permute(0, 2, 3, 1)
        x = self.pos_drop(x)
        recompute = self.use_checkpoint and self.training and torch.is_grad_enabled()
        features, names = {}, _stage_names(self.layers)
        for index, stage in enumerate(self.layers):
            x = stage(x, recompute=recompute)
            if names[index] in self._shapes:
                normed = self.get_submodule(f"norm{index}")(x)
                features[names[index]] = normed.permute(0, 3, 1, 2).contiguous()
            if stage.downsample is not None:
                x = stage.downsample(x)  # type: ignore
        return features

    def frozen_parts(self) -> list[nn.Module]:
        """Gives the first ``freeze_at`` parts."""
        return [self.patch_embed, *self.layers][: self.freeze_at]

    @property
    def size_divisibility(self) -> int:
        """Sizes that leave no map padded in patch merging; any other works too."""
        return max(shape.stride for shape in self._shapes.values())

    @property
    def unpublished(self) -> tuple[str, ...]:
        """Norms of the outputs: files of classifiers do not have them."""
        return tuple(f"norm{index}." for index in range(len(self.layers)))

    def fit_pretrained(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Brings absolute positions that a file lists by cell into their map."""
        name = "absolute_pos_embed"
        positions = state.get(name)
        if hasattr(self, name) and positions is not None and positions.dim() == 3:
            side = int(positions.shape[1] ** 0.5)
            if side * side == positions.shape[1]:
                fitted = positions.transpose(1, 2).unflatten(2, (side, side))
                return {**state, name: fitted}
        return state


class _PatchEmbed(nn.Module):
    """Cuts frames into patches, one token each; the last ones are filled up with zeros."""

    def __init__(self, patch_size: int, channels: int, *, norm: bool) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = Conv2d(3, channels, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(channels) if norm else None

    def forward(self, frames: Tensor) -> Tensor:
        height, width = frames.shape[-2:]
        rest = (0, -width % self.patch_size, 0, -height % self.patch_size)
        x = self.proj(F.pad(frames, rest)).permute(0, 2, 3, 1)  # (B, H, W, C)
        return x if self.norm is None else self.norm(x)


class _Stage(nn.Module):
    """Blocks of one resolution; ``downsample`` leads to the next stage."""

    def __init__(self, blocks: Sequence[SwinBlock], merged_width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = _PatchMerging(merged_width) if merged_width else None
        self.window_size = blocks[0].window_size

    def forward(self, x: Tensor, *, recompute: bool) -> Tensor:
        cuts = cut_windows((x.shape[1], x.shape[2]), self.window_size, x.device)
        for number, block in enumerate(self.blocks):
            own = cuts if number % 2 else None
            x = checkpoint(block, x, own, use_reentrant=False) if recompute else block(x, own)
        return x


class _PatchMerging(nn.Module):
    """Joins every 2x2 cells into one of twice the channels; odd sides are filled up with zeros."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduction = Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        # Published weights expect the cells column by column.
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # (B, H/2, 2, W/2, 2, C)
        return self.reduction(self.norm(x.permute(0, 1, 3, 4, 2, 5).flatten(3)))


def _ramp(last: float, count: int) -> list[float]:
    return [last * index / max(count - 1, 1) for index in range(count)]


def _stage_names(stages: Sequence[Any] | nn.ModuleList) -> list[str]:
    return [f"res{index + 2}" for index in range(len(stages))]


def _check_stages(
    embed_dim: int,
    depths: Sequence[int],
    num_heads: Sequence[int],
    out_features: Sequence[str],
    freeze_at: int,
) -> None:
    if len(depths) != len(num_heads) or not depths:
        raise ConfigError(
            f"MODEL.SWIN.DEPTHS names {len(depths)} stages and MODEL.SWIN.NUM_HEADS "
            f"{len(num_heads)}; give both the same number of values, usually 4"
        )
    if min(depths) < 1:
        raise ConfigError(f"MODEL.SWIN.DEPTHS is {list(depths)}; every stage needs 1 block or more")
    for index, heads in enumerate(num_heads):
        width = embed_dim * 2**index
        if heads < 1 or width < 1 or width % heads:
            raise ConfigError(
                f"MODEL.SWIN.NUM_HEADS sets {heads} for stage {index + 1}, which do not divide its "
                f"width {width} (MODEL.SWIN.EMBED_DIM {embed_dim}, doubled in every stage); set a "
                f"divisor of {width}"
            )
    names = _stage_names(depths)
    unknown = [name for name in out_features if name not in names]
    if unknown or not out_features:
        near = nearest(unknown[0], names, n=1) if unknown else []
        raise ConfigError(
            f"MODEL.SWIN.OUT_FEATURES names {', '.join(unknown) or 'nothing'}; choose from "
            f"{', '.join(names)}" + (f" ({near[0]}?)" if near else "")
        )
    if not 0 <= freeze_at <= len(depths) + 1:
        raise ConfigError(
            f"MODEL.BACKBONE.FREEZE_AT {freeze_at} must lie in 0 to {len(depths) + 1}"
        )


def _check_sizes(window: int, patch: int, image: int, absolute_positions: bool) -> None:
    for key, value in (("WINDOW_SIZE", window), ("PATCH_SIZE", patch)):
        if value < 1:
            raise ConfigError(f"MODEL.SWIN.{key} is {value}; set 1 or more")
    if absolute_positions and image < patch:
        raise ConfigError(
            f"MODEL.SWIN.PRETRAIN_IMG_SIZE {image} is smaller than a patch of {patch} pixels; set "
            "the side of the image that the positions were learned for, usually 224 or 384"
        )


def _check_rates(drop: float, attn_drop: float, drop_path: float) -> None:
    rates = {"DROP_RATE": drop, "ATTN_DROP_RATE": attn_drop, "DROP_PATH_RATE": drop_path}
    for key, rate in rates.items():
        if not 0 <= rate < 1:
            raise ConfigError(f"MODEL.SWIN.{key} is {rate}; set a probability from 0 to below 1")
