"""Residual networks under detectron2's names (He et al., CVPR 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.config import CfgNode
from vidseg.errors import ConfigError
from vidseg.layers import (
    ConvNorm,
    DeformConv,
    FrozenBatchNorm2d,
    build_norm,
    offset_conv,
    onednn,
)
from vidseg.modeling.build import BACKBONE_REGISTRY
from vidseg.structures import ShapeSpec

from .base import Backbone

__all__ = ["ResNet", "build_resnet_backbone"]

_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_STAGES = ("res2", "res3", "res4", "res5")


class ResNet(Backbone):
    """A stem of stride 4 and four stages of residual blocks.

    Args:
        depth: 18 or 34 (two 3x3 convolutions per block), 50, 101 or 152 (bottlenecks).
        norm: norm after every convolution, see ``build_norm``.
        stem_channels: channels of the stem.
        res2_channels: channels of the first stage's output; doubled in every later stage.
        bottleneck_channels: inner channels of the first stage's bottlenecks; doubled likewise.
        num_groups: groups of the 3x3 convolution of a bottleneck.
        stride_in_1x1: bottlenecks step in the first 1x1 instead of the 3x3 convolution.
        res5_dilation: 2 leaves res5 at the stride of res4 and spreads its 3x3 kernels instead.
        deform_stages: which of res2 to res5 have deformable 3x3 convolutions.
        deform_modulated: whether these weigh their samples, too.
        deform_groups: groups of channels that are deformed alike.
        out_features: which of res2 to res5 to return.
        freeze_at: how many parts do not train: 1 the stem, 2 also res2, up to 5.

    Raises:
        ConfigError: for a depth, feature or width that does not exist.
    """

    def __init__(
        self,
        depth: int = 50,
        *,
        norm: str = "FrozenBN",
        stem_channels: int = 64,
        res2_channels: int = 256,
        bottleneck_channels: int = 64,
        num_groups: int = 1,
        stride_in_1x1: bool = False,
        res5_dilation: int = 1,
        deform_stages: Sequence[bool] = (False, False, False, False),
        deform_modulated: bool = False,
        deform_groups: int = 1,
        out_features: Sequence[str] = _STAGES,
        freeze_at: int = 0,
    ) -> None:
        super().__init__()
        _check(depth, out_features, freeze_at)
        _check_kernels(depth, res5_dilation, deform_stages)
        self.stem = _Stem(stem_channels, norm)
        self._shapes = {}
        channels, out_channels, inner, stride = stem_channels, res2_channels, bottleneck_channels, 4
        last = max(_STAGES.index(name) for name in out_features)
        for index in range(last + 1):
            name = _STAGES[index]
            dilation = res5_dilation if name == "res5" else 1
            step = 1 if index == 0 or dilation > 1 else 2
            deform = _Deform(deform_groups, deform_modulated) if deform_stages[index] else None
            blocks: list[nn.Module] = []
            for block in range(_BLOCKS[depth][index]):
                block_step = step if block == 0 else 1
                if depth in (18, 34):
                    blocks.append(_BasicBlock(channels, out_channels, block_step, norm))
                else:
                    blocks.append(
                        _Bottleneck(
                            channels,
                            out_channels,
                            inner,
                            stride=block_step,
                            groups=num_groups,
                            stride_in_1x1=stride_in_1x1,
                            dilation=dilation,
                            deform=deform,
                            norm=norm,
                        )
                    )
                channels = out_channels
            self.add_module(name, nn.Sequential(*blocks))
            stride *= step
            if name in out_features:
                self._shapes[name] = ShapeSpec(channels=channels, stride=stride)
            out_channels, inner = out_channels * 2, inner * 2
        self.stage_names = _STAGES[: last + 1]
        self._freeze(freeze_at)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads ``MODEL.RESNETS`` and ``MODEL.BACKBONE.FREEZE_AT``."""
        resnets = cfg.MODEL.RESNETS
        return {
            "depth": resnets.DEPTH,
            "norm": resnets.NORM,
            "stem_channels": resnets.STEM_OUT_CHANNELS,
            "res2_channels": resnets.RES2_OUT_CHANNELS,
            "bottleneck_channels": resnets.NUM_GROUPS * resnets.WIDTH_PER_GROUP,
            "num_groups": resnets.NUM_GROUPS,
            "stride_in_1x1": resnets.STRIDE_IN_1X1,
            "res5_dilation": resnets.RES5_DILATION,
            "deform_stages": resnets.DEFORM_ON_PER_STAGE,
            "deform_modulated": resnets.DEFORM_MODULATED,
            "deform_groups": resnets.DEFORM_NUM_GROUPS,
            "out_features": resnets.OUT_FEATURES,
            "freeze_at": cfg.MODEL.BACKBONE.FREEZE_AT,
        }

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """Maps normalised frames ``(B, 3, H, W)`` to the wanted maps, finest first."""
        x = self.stem(frames)
        features = {}
        for name in self.stage_names:
            x = self.get_submodule(name)(x)
            if name in self._shapes:
                features[name] = x
        return features

    @property
    def is_batch_invariant(self) -> bool:
        """Whether inference on a CPU gives a frame the same bits in every batch."""
        is_deformed = any(isinstance(part, DeformConv) for part in self.modules())
        return onednn.is_used(self.stem.conv1.weight) and not is_deformed

    def _freeze(self, freeze_at: int) -> None:
        parts = ("stem", *self.stage_names)[:freeze_at]
        for name in parts:
            part = self.get_submodule(name)
            for parameter in part.parameters():
                parameter.requires_grad = False
            for module in part.modules():
                if isinstance(module, ConvNorm) and isinstance(
                    module.norm, nn.modules.batchnorm._BatchNorm
                ):
                    module.norm = FrozenBatchNorm2d.from_batch_norm(module.norm)


@BACKBONE_REGISTRY.register()
def build_resnet_backbone(cfg: CfgNode) -> ResNet:
    """Builds a ``ResNet`` from the config; the name that published configs use."""
    return ResNet(**ResNet.from_config(cfg))


class _Stem(nn.Module):
    """7x7 convolution and max pooling, each of stride 2."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.conv1 = _conv(3, channels, 7, norm=norm, stride=2, relu=True)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.conv1(x), kernel_size=3, stride=2, padding=1)


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    def __init__(self, channels: int, out: int, stride: int, norm: str) -> None:
        super().__init__()
        self.shortcut = _shortcut(channels, out, stride, norm)
        self.conv1 = _conv(channels, out, 3, norm=norm, stride=stride, relu=True)
        self.conv2 = _conv(out, out, 3, norm=norm, relu=True)

    def forward(self, x: Tensor) -> Tensor:
        short = x if self.shortcut is None else self.shortcut(x)
        return self.conv2(self.conv1(x), short)


class _Deform(NamedTuple):
    """How the 3x3 convolutions of a stage are deformed."""

    num_groups: int
    is_modulated: bool


class _Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut."""

    def __init__(
        self,
        channels: int,
        out: int,
        inner: int,
        *,
        stride: int,
        groups: int,
        stride_in_1x1: bool,
        dilation: int,
        deform: _Deform | None,
        norm: str,
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.shortcut = _shortcut(channels, out, stride, norm)
        self.conv1 = _conv(channels, inner, 1, norm=norm, stride=first, relu=True)
        spread = {"stride": second, "dilation": dilation}
        self.conv2: nn.Module
        if deform is None:
            self.conv2 = _conv(inner, inner, 3, norm=norm, groups=groups, relu=True, **spread)
        else:
            self.conv2_offset = offset_conv(
                inner,
                num_groups=deform.num_groups,
                is_modulated=deform.is_modulated,
                **spread,
            )
            self.conv2 = _deform_conv(inner, deform, norm=norm, groups=groups, **spread)
        self.conv3 = _conv(inner, out, 1, norm=norm, relu=True)

    def forward(self, x: Tensor) -> Tensor:
        short = x if self.shortcut is None else self.shortcut(x)
        y = self.conv1(x)
        y = self.conv2(y, self.conv2_offset(y)) if hasattr(self, "conv2_offset") else self.conv2(y)
        return self.conv3(y, short)


def _shortcut(channels: int, out: int, stride: int, norm: str) -> ConvNorm | None:
    """A 1x1 projection wherever channels or resolution change."""
    if channels == out and stride == 1:
        return None
    return _conv(channels, out, 1, norm=norm, stride=stride)


def _conv(channels: int, out: int, kernel: int, *, norm: str, **options: Any) -> ConvNorm:
    layer = ConvNorm(channels, out, kernel, bias=norm == "", norm=build_norm(norm, out), **options)
    _fill(layer)
    return layer


def _deform_conv(channels: int, deform: _Deform, *, norm: str, **options: Any) -> DeformConv:
    layer = DeformConv(
        channels,
        norm=build_norm(norm, channels),
        is_modulated=deform.is_modulated,
        bias=norm == "",
        relu=True,
        **options,
    )
    _fill(layer)
    return layer


def _fill(layer: ConvNorm) -> None:
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _check(depth: int, out_features: Sequence[str], freeze_at: int) -> None:
    if depth not in _BLOCKS:
        known = ", ".join(str(number) for number in _BLOCKS)
        raise ConfigError(f"MODEL.RESNETS.DEPTH {depth} does not exist; set one of {known}")
    unknown = [name for name in out_features if name not in _STAGES]
    if unknown or not out_features:
        named = ", ".join(unknown) or "nothing"
        raise ConfigError(
            f"MODEL.RESNETS.OUT_FEATURES names {named}; choose from {', '.join(_STAGES)}"
        )
    if not 0 <= freeze_at <= len(_STAGES) + 1:
        raise ConfigError(f"MODEL.BACKBONE.FREEZE_AT {freeze_at} must lie in 0 to 5")


def _check_kernels(depth: int, res5_dilation: int, deform_stages: Sequence[bool]) -> None:
    if res5_dilation not in (1, 2):
        raise ConfigError(f"MODEL.RESNETS.RES5_DILATION {res5_dilation} does not exist; set 1 or 2")
    if len(deform_stages) != len(_STAGES):
        raise ConfigError(
            f"MODEL.RESNETS.DEFORM_ON_PER_STAGE needs {len(_STAGES)} values, for "
            f"{', '.join(_STAGES)}; got {len(deform_stages)}"
        )
    wanted = "DEFORM_ON_PER_STAGE" if any(deform_stages) else "RES5_DILATION"
    if depth in (18, 34) and (res5_dilation > 1 or any(deform_stages)):
        raise ConfigError(
            f"MODEL.RESNETS.{wanted} needs bottlenecks, which depth {depth} does not have; set "
            "MODEL.RESNETS.DEPTH to 50 or more"
        )
