"""The model: a frame segmenter with a loss between the frames of a clip.

Shapes: T frames of a clip, Q object queries, C channels, K classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vidseg.config import CfgNode
from vidseg.modeling import META_ARCH_REGISTRY
from vidseg.modeling.meta_arch import FrameSegmenter
from vidseg.modeling.postprocess import link_step

__all__ = ["MyIdea", "steady_loss"]


@META_ARCH_REGISTRY.register()
class MyIdea(FrameSegmenter):
    """Learns that an object has one class in all frames; the rest is the frame segmenter's.

    Args:
        steady_weight: of the loss that says so; 0 leaves it out.
        segmenter: arguments of ``FrameSegmenter``.
    """

    def __init__(self, *, steady_weight: float, **segmenter: Any) -> None:
        super().__init__(**segmenter)
        self.steady_weight = steady_weight

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads ``MODEL.MY_IDEA`` and what the frame segmenter reads."""
        steady_weight = cfg.MODEL.MY_IDEA.STEADY_WEIGHT
        return {**super().from_config(cfg), "steady_weight": steady_weight}

    def losses(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Gives the set loss of all frames, and ``loss_steady``."""
        out, targets = self.segment_clips(samples)
        losses = self.set_losses(out, targets)
        if self.steady_weight:
            lengths = [len(sample["frames"]) for sample in samples]
            clips = zip(out.logits.split(lengths), out.embeds.split(lengths), strict=True)
            steady = torch.stack([steady_loss(logits, embeds) for logits, embeds in clips])
            losses["loss_steady"] = self.steady_weight * steady.mean()
        return losses


def steady_loss(logits: Tensor, embeds: Tensor) -> Tensor:
    """Measures how much the classes of linked queries differ between neighbouring frames.

    Args:
        logits: class logits of a clip ``(T, Q, K + 1)``.
        embeds: query features ``(T, Q, C)``, by which the queries are linked.

    Returns:
        Scalar: squared distance of the class distributions, the mean over links; 0 for one frame.
    """
    probabilities = logits.float().softmax(-1)
    distances = [logits.new_zeros(())]
    for t in range(1, len(logits)):
        order = link_step(embeds[t - 1], embeds[t])
        difference = probabilities[t, order] - probabilities[t - 1]
        distances.append(difference.square().sum(-1).mean())
    return torch.stack(distances).sum() / max(len(logits) - 1, 1)
