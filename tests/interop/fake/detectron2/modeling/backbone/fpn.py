from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from detectron2.layers import ShapeSpec

from .base import BACKBONE_REGISTRY, Backbone, build_resnet_backbone


class FPN(Backbone):
    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int,
        norm: str = "",
        fuse_type: str = "sum",
    ) -> None:
        super().__init__()
        assert in_features
        self.shapes = bottom_up.output_shape()
        self.out_channels = out_channels
        self.fuse_type = fuse_type
        self.norm = norm
        self.names = {f"p{self.shapes[key].stride.bit_length() - 1}": key for key in in_features}
        for name, key in self.names.items():
            conv = nn.Conv2d(self.shapes[key].channels, out_channels, 1)
            self.add_module(f"fpn_lateral{name[1:]}", conv)
        self.bottom_up = bottom_up

    @property
    def size_divisibility(self) -> int:
        return max(self.shapes[key].stride for key in self.names.values())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.bottom_up(x)
        return {
            name: self.get_submodule(f"fpn_lateral{name[1:]}")(maps[key])
            for name, key in self.names.items()
        }

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {
            name: ShapeSpec(channels=self.out_channels, stride=self.shapes[key].stride)
            for name, key in self.names.items()
        }


@BACKBONE_REGISTRY.register()
def build_resnet_fpn_backbone(cfg: Any, input_shape: ShapeSpec) -> FPN:
    fpn = cfg.MODEL.FPN
    return FPN(
        bottom_up=build_resnet_backbone(cfg, input_shape),
        in_features=fpn.IN_FEATURES,
        out_channels=fpn.OUT_CHANNELS,
        norm=fpn.NORM,
        fuse_type=fpn.FUSE_TYPE,
    )
