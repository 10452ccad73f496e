from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry

BACKBONE_REGISTRY = Registry("BACKBONE")


class Backbone(nn.Module, metaclass=ABCMeta):
    @abstractmethod
    def forward(self, x: Tensor) -> dict[str, Tensor]: ...

    @property
    def size_divisibility(self) -> int:
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        return {}


class Pyramid(Backbone):
    """One convolution per map, coarsest first, so that nobody relies on the order."""

    def __init__(self, names: Sequence[str], width: int = 4) -> None:
        super().__init__()
        self.strides = {name: 4 * 2**index for index, name in enumerate(names)}
        self.width = width
        self.frozen = nn.BatchNorm2d(3)
        for name, stride in self.strides.items():
            self.add_module(name, nn.Conv2d(3, width, stride, stride))

    def train(self, mode: bool = True) -> "Pyramid":
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: self.get_submodule(name)(x) for name in reversed(self.strides)}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {
            name: ShapeSpec(channels=self.width, stride=self.strides[name])
            for name in reversed(self.strides)
        }


@BACKBONE_REGISTRY.register()
def build_resnet_backbone(cfg: Any, input_shape: ShapeSpec) -> Pyramid:
    assert input_shape.channels == 3
    assert cfg.MODEL.RESNETS.DEPTH in (50, 101), "an unknown depth"
    return Pyramid(cfg.MODEL.RESNETS.OUT_FEATURES)
