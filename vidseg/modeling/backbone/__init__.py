"""Backbones: frames to feature maps of stride 4 to 32."""

from .base import Backbone
from .resnet import ResNet, build_resnet_backbone

__all__ = ["Backbone", "ResNet", "build_resnet_backbone"]
