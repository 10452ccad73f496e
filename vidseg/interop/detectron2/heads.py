"""Pixel decoders, heads and query decoders in the forms that systems on detectron2 call.

Mask2Former and the video systems built on it ask a pixel decoder for ``forward_features``, and a
head or query decoder for a dict with ``pred_logits``, ``pred_masks`` and ``aux_outputs``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vidseg.modeling.pixel_decoder import PixelFeatures
from vidseg.modeling.transformer_decoder import DecoderOutput

from .wrapping import Wrapping

__all__ = ["AdaptedHead", "AdaptedQueryDecoder", "ForeignPixelDecoder"]


class AdaptedHead(Wrapping):
    """A vidseg pixel decoder or head in detectron2's ``SEM_SEG_HEADS_REGISTRY``.

    Args:
        head: maps feature maps to ``PixelFeatures`` or to a ``DecoderOutput``.
    """

    @property
    def num_classes(self) -> int:
        """Foreground classes of a head."""
        return int(self.wrapped.predictor.num_classes)  # type: ignore

    def forward_features(
        self, features: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Gives mask features, the coarsest map, and three maps, coarse to fine."""
        pixels: PixelFeatures = self.wrapped(features)
        return pixels.mask_features, pixels.multi_scale[0], pixels.multi_scale

    def forward(self, features: Mapping[str, Tensor], mask: None = None) -> Any:
        """Gives what a head predicts, or what ``forward_features`` of a pixel decoder gives."""
        if hasattr(self.wrapped, "predictor"):
            return _as_dict(self.wrapped(features, keep_aux=True))
        return self.forward_features(features)


class AdaptedQueryDecoder(Wrapping):
    """A vidseg query decoder in the registry that Mask2Former has for them.

    Args:
        decoder: maps three feature maps and mask features to a ``DecoderOutput``.
    """

    def forward(self, x: list[Tensor], mask_features: Tensor, mask: None = None) -> dict[str, Any]:
        """Decodes maps, coarse to fine; see the module for the result."""
        return _as_dict(self.wrapped(x, mask_features, keep_aux=True))


class ForeignPixelDecoder(Wrapping):
    """A pixel decoder of a system on detectron2 as vidseg's.

    Args:
        theirs: offers ``forward_features`` as ``AdaptedHead`` does.
    """

    def forward(self, features: Mapping[str, Tensor]) -> PixelFeatures:
        """Decodes backbone maps ``(B, C_i, H/s_i, W/s_i)``."""
        mask_features, _, maps = self.wrapped.forward_features(features)  # type: ignore
        return PixelFeatures(mask_features, list(maps))


def _as_dict(output: DecoderOutput) -> dict[str, Any]:
    return {
        "pred_logits": output.logits,
        "pred_masks": output.masks,
        "aux_outputs": [
            {"pred_logits": logits, "pred_masks": masks} for logits, masks in output.aux
        ],
    }
