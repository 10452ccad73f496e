"""The head over the backbone: a pixel decoder followed by a query decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vidseg.config import CfgNode
from vidseg.errors import ConfigError
from vidseg.structures import ShapeSpec

from .build import SEM_SEG_HEADS_REGISTRY, build_transformer_decoder, construct
from .transformer_decoder import DecoderOutput

__all__ = ["MaskFormerHead"]

_ALL_MAPS = "multi_scale_pixel_decoder"


@SEM_SEG_HEADS_REGISTRY.register()
class MaskFormerHead(nn.Module):
    """Pixel decoder and query decoder, under the names of published weights.

    Args:
        pixel_decoder: maps backbone features to ``PixelFeatures``.
        predictor: maps three feature maps and mask features to a ``DecoderOutput``.
    """

    def __init__(self, pixel_decoder: nn.Module, predictor: nn.Module) -> None:
        super().__init__()
        self.pixel_decoder = pixel_decoder
        self.predictor = predictor

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        """Builds both parts by their names in the config.

        Raises:
            ConfigError: if the decoder is meant to read anything but all maps.
        """
        wanted = cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE
        if wanted != _ALL_MAPS:
            raise ConfigError(
                f"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE {wanted!r} is not supported, the "
                f"decoder reads all maps of the pixel decoder; set it to {_ALL_MAPS}"
            )
        finest = min(shape.stride for shape in input_shape.values())
        if finest != cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE:
            raise ConfigError(
                f"MODEL.SEM_SEG_HEAD.COMMON_STRIDE is {cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE}, but "
                f"the backbone's finest map has stride {finest}; set it to {finest}"
            )
        component = SEM_SEG_HEADS_REGISTRY.get(cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME)
        return {
            "pixel_decoder": construct(component, cfg, input_shape),
            "predictor": build_transformer_decoder(cfg),
        }

    def forward(
        self, features: Mapping[str, Tensor], *, keep_aux: bool | None = None
    ) -> DecoderOutput:
        """Decodes the feature maps of B frames; ``keep_aux`` as in the decoder."""
        pixels = self.pixel_decoder(features)
        return self.predictor(pixels.multi_scale, pixels.mask_features, keep_aux=keep_aux)
