"""The frame segmenter with contrastive training (CTVIS, Ying et al., ICCV 2023, section 3).

Shapes: T frames of a clip, Q queries, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vidseg.config import CfgNode
from vidseg.errors import ConfigError
from vidseg.modeling.build import META_ARCH_REGISTRY
from vidseg.modeling.matcher import Pairs
from vidseg.modeling.meta_arch import FrameSegmenter
from vidseg.modeling.meta_arch.base import Sample
from vidseg.modeling.transformer_decoder import DecoderOutput
from vidseg.structures import ClipInstances

from .contrast import ContrastItems, contrastive_losses, memory_items, object_queries
from .settings import ContrastSettings
from .targets import FrameTarget

__all__ = ["ContrastiveSegmenter"]


@META_ARCH_REGISTRY.register(name="CTMinVIS")
class ContrastiveSegmenter(FrameSegmenter):
    """Learns single frames, and to tell the objects of a clip apart over time.

    At inference it is the frame segmenter: frames are linked by the queries that the
    re-identification head reads, not by what the head makes of them.

    Args:
        contrast: settings of the contrastive losses.
        segmenter: arguments of ``FrameSegmenter``.
    """

    def __init__(self, *, contrast: ContrastSettings | None = None, **segmenter: Any) -> None:
        super().__init__(**segmenter)
        self.contrast = ContrastSettings() if contrast is None else contrast

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads ``MODEL``.

        Raises:
            ConfigError: if there is no re-identification head to train.
        """
        node = cfg.MODEL.MASK_FORMER
        if not node.REID_BRANCH or node.NUM_REID_HEAD_LAYERS < 1:
            raise ConfigError(
                f"MODEL.META_ARCHITECTURE CTMinVIS trains a re-identification head, but "
                f"MODEL.MASK_FORMER.REID_BRANCH is {node.REID_BRANCH} and NUM_REID_HEAD_LAYERS "
                f"{node.NUM_REID_HEAD_LAYERS}; set them to True and 1 or more"
            )
        contrast = ContrastSettings(**ContrastSettings.from_config(cfg))
        return {"contrast": contrast, **super().from_config(cfg)}

    def losses(self, samples: list[Sample]) -> dict[str, Tensor]:
        """Set loss of all frames, ``loss_reid`` and ``loss_aux_reid``."""
        out, targets = self.segment_clips(samples)
        return self.set_losses(out, targets) | self._contrast(out, targets, samples)

    def _contrast(
        self, out: DecoderOutput, targets: Sequence[ClipInstances], samples: Sequence[Sample]
    ) -> dict[str, Tensor]:
        """Weighted contrastive losses, averaged over the items of all clips."""
        if out.reid_embeds is None:
            raise ConfigError(
                "MODEL.META_ARCHITECTURE CTMinVIS needs re-identification embeddings, which "
                "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME does not give; set another decoder"
            )
        pairs = self._match(out, targets)
        items, start = [], 0
        with torch.autocast(device_type=self.device.type, enabled=False):
            for sample in samples:
                stop = start + len(sample["frames"])
                embeds = out.reid_embeds[start:stop].float()  # (T, Q, C)
                items.append(self._items(embeds, pairs[start:stop], sample["instances"]))
                start = stop
        losses = contrastive_losses(ContrastItems.join(items))
        return {
            "loss_reid": self.contrast.reid_weight * losses["loss_reid"],
            "loss_aux_reid": self.contrast.aux_weight * losses["loss_aux_reid"],
        }

    def _match(self, out: DecoderOutput, targets: Sequence[ClipInstances]) -> list[Pairs]:
        """Matches the final prediction of each frame on points of its own, as published."""
        frames = [FrameTarget(target.masks.float(), target.labels) for target in targets]
        return self.criterion.matcher(out.logits, out.masks[:, :, None], frames)

    def _items(
        self, embeds: Tensor, pairs: Sequence[Pairs], instances: ClipInstances
    ) -> ContrastItems:
        present = instances.present.cpu()
        present = present[present.any(1)]  # the rows that the targets of the frames have
        return memory_items(
            embeds,
            object_queries(pairs, present, match_absent=self.match_absent),
            num_negatives=self.contrast.num_negatives,
            use_mean=self.contrast.use_mean,
        )
