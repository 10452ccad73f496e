"""Plain vision transformers as feature backbones, as ``vit/NAME``.

Networks that were trained without labels (DINO, DINOv2, MAE) have maps of one stride alone, that of
their patches, and no pyramid.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vidseg.config import CfgNode
from vidseg.errors import ConfigError, UserError, nearest
from vidseg.modeling.backbone import Backbone
from vidseg.modeling.build import BACKBONE_REGISTRY
from vidseg.structures import ShapeSpec

__all__ = ["VisionTransformer", "build_vit"]

_MAP = "patches"


class VisionTransformer(Backbone):
    """The patches of a vision transformer of timm after its last block and norm.

    Args:
        name: as ``timm.create_model`` takes it, for example ``vit_small_patch16_224.dino``.

    Shape:
        - input ``(B, 3, H, W)``, normalised, sides divisible by the patch size
        - output: the map ``patches``, ``(B, C, H / patch, W / patch)``

    Raises:
        ConfigError: if timm has no vision transformer of that name.
        UserError: if timm is not installed.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        try:
            import timm
            from timm.models.vision_transformer import VisionTransformer as Body
        except ImportError as error:
            raise UserError(
                f"MODEL.BACKBONE.NAME vit/{name} needs timm; run `pip install vidseg[timm]`"
            ) from error
        known = timm.list_models("vit_*")
        if not timm.is_model(name) or not name.startswith("vit_"):
            near = ", ".join(f"vit/{n}" for n in nearest(name, known))
            raise ConfigError(
                f"MODEL.BACKBONE.NAME vit/{name} is no vision transformer of timm "
                f"{timm.__version__}; nearest: {near or 'none'}"
            )
        body: Any = timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True)
        if not isinstance(body, Body):
            raise ConfigError(
                f"MODEL.BACKBONE.NAME vit/{name} is a {type(body).__name__}, not a plain vision "
                f"transformer; try timm/{name}"
            )
        self.body: Any = body
        self.patch = int(body.patch_embed.patch_size[0])
        self._shapes = {_MAP: ShapeSpec(channels=body.embed_dim, stride=self.patch)}

    @property
    def size_divisibility(self) -> int:
        """What height and width must be divisible by."""
        return self.patch

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """Maps normalised frames to ``patches``; see the class for shapes."""
        tokens: Tensor = self.body.forward_features(frames)
        grid = torch.Size(side // self.patch for side in frames.shape[-2:])
        patches = tokens[:, self.body.num_prefix_tokens :]
        return {_MAP: patches.mT.unflatten(-1, grid)}


@BACKBONE_REGISTRY.register(name="vit")
def build_vit(cfg: CfgNode) -> VisionTransformer:
    """Builds ``vit/NAME``.

    Raises:
        ConfigError: if the name is not complete.
    """
    name = cfg.MODEL.BACKBONE.NAME.partition("/")[2]
    if not name:
        raise ConfigError(
            "MODEL.BACKBONE.NAME vit names no model; write vit/NAME, such as "
            "vit/vit_small_patch16_224.dino"
        )
    return VisionTransformer(name)
