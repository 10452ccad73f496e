"""Backbones: frames to feature maps of stride 4 to 32."""

from .base import Backbone
from .resnet import ResNet, build_resnet_backbone
from .swin import D2SwinTransformer
from .timm import TimmBackbone, TorchvisionBackbone
from .vit_adapter import D2VitAdapterDinoV2
from .weights import load_backbone_weights

__all__ = [
    "Backbone",
    "D2SwinTransformer",
    "D2VitAdapterDinoV2",
    "ResNet",
    "TimmBackbone",
    "TorchvisionBackbone",
    "build_resnet_backbone",
    "load_backbone_weights",
]
