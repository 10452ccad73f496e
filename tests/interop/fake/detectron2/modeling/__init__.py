from typing import Any

import torch
from torch import nn

from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry

from .backbone.base import BACKBONE_REGISTRY, Backbone, Pyramid
from .backbone.fpn import FPN

__all__ = ["FPN", "Backbone"]

META_ARCH_REGISTRY = Registry("META_ARCH")
SEM_SEG_HEADS_REGISTRY = Registry("SEM_SEG_HEADS")


@META_ARCH_REGISTRY.register()
class GeneralizedRCNN(nn.Module):
    def __init__(self, cfg: Any) -> None:
        super().__init__()


class Lazy(Pyramid):
    """Stands for what has no entry in the registry; keeps how it was called."""

    keys: tuple[str, ...]

    def __init__(self, **options: Any) -> None:
        super().__init__(self.keys, width=options.get("embed_dim", 4))
        self.options = options

    @property
    def size_divisibility(self) -> int:
        raise AttributeError("_size_divisibility")  # misspelt in one of theirs


class SwinTransformer(Lazy):
    keys = ("p0", "p1", "p2", "p3")


class MViT(Lazy):
    keys = ("scale2", "scale3", "scale4", "scale5")


class ViT(Lazy):
    keys = ("last_feat",)


class SimpleFeaturePyramid(Lazy):
    keys = ("p2", "p3", "p4", "p5")

    def __init__(self, net: nn.Module, **options: Any) -> None:
        super().__init__(**options)
        self.net = net

    @property
    def padding_constraints(self) -> dict[str, int]:
        return {"size_divisiblity": 32, "square_size": 0}


def build_model(cfg: Any) -> nn.Module:
    model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    return model.to(torch.device(cfg.MODEL.DEVICE))


def build_backbone(cfg: Any) -> nn.Module:
    shape = ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN))
    backbone = BACKBONE_REGISTRY.get(cfg.MODEL.BACKBONE.NAME)(cfg, shape)
    assert isinstance(backbone, Backbone)
    return backbone
