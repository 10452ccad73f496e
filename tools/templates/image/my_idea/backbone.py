"""The backbone: four stages of convolution blocks, of strides 4, 8, 16 and 32.

Shapes: B pictures, C channels, H W pixels.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vidseg.config import CfgNode
from vidseg.errors import ConfigError
from vidseg.layers import group_norm
from vidseg.modeling import BACKBONE_REGISTRY
from vidseg.modeling.backbone.base import Backbone
from vidseg.structures import ShapeSpec

__all__ = ["MyIdea"]

_STAGES = ("res2", "res3", "res4", "res5")
_FINEST_STRIDE = 4


@BACKBONE_REGISTRY.register()
class MyIdea(Backbone):
    """Gives feature maps under the names that a ResNet uses, so that all decoders take them.

    Args:
        width: channels of the finest map; they double with every stage.
        depth: blocks of every stage.

    Raises:
        ConfigError: if one of them is less than 1.
    """

    def __init__(self, *, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        for key, value in (("WIDTH", width), ("DEPTH", depth)):
            if value < 1:
                raise ConfigError(f"MODEL.MY_IDEA.{key} is {value}; set 1 or more")
        self._shapes = {
            name: ShapeSpec(width * 2**number, _FINEST_STRIDE * 2**number)
            for number, name in enumerate(_STAGES)
        }
        self.stages = nn.ModuleList()
        channels, stride = 3, 1
        for shape in self._shapes.values():
            step = shape.stride // stride
            self.stages.append(
                nn.Sequential(
                    nn.Conv2d(channels, shape.channels, kernel_size=step, stride=step),
                    group_norm(shape.channels),
                    *(_Block(shape.channels) for _ in range(depth)),
                )
            )
            channels, stride = shape.channels, shape.stride

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads ``MODEL.MY_IDEA``."""
        node = cfg.MODEL.MY_IDEA
        return {"width": node.WIDTH, "depth": node.DEPTH}

    @property
    def size_divisibility(self) -> int:
        """Height and width must be multiples of the coarsest stride."""
        return self._shapes[_STAGES[-1]].stride

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """Maps normalised pictures ``(B, 3, H, W)`` to maps ``(B, C, H/s, W/s)``, finest first."""
        maps = {}
        x = frames
        for name, stage in zip(_STAGES, self.stages, strict=True):
            x = stage(x)
            maps[name] = x
        return maps


class _Block(nn.Module):
    """Looks around in every channel by itself, then mixes the channels of every pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, kernel_size=7, padding=3, groups=channels),
            group_norm(channels),
            nn.Conv2d(channels, 2 * channels, kernel_size=1),
            nn.GELU(),
            nn.Conv2d(2 * channels, channels, kernel_size=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Adds the result to ``x`` ``(B, C, H, W)``."""
        y: Tensor = x + self.layers(x)
        return y
