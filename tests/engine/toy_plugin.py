"""A plugin for tests: the smallest model that trains, evaluates and draws random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidseg import rle
from vidseg.config import CfgNode
from vidseg.modeling import META_ARCH_REGISTRY
from vidseg.structures import VideoInstances


@META_ARCH_REGISTRY.register()
class ToySegmenter(nn.Module):
    """Predicts one track over the whole picture; its losses use dropout and random points."""

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4, 1)

    def forward(self, samples: list[dict[str, Any]]) -> Any:
        if self.training:
            return self.losses(samples)
        return [self.predict(sample) for sample in samples]

    def losses(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        total = torch.zeros(())
        for sample in samples:
            frames = sample["frames"].float() / 255
            features = self.norm(self.backbone(frames)).mean(dim=(2, 3))
            score = self.head(self.dropout(features)) + torch.rand(1)
            progress = sample["iteration"] / sample["max_iter"]
            total = total + (score - progress).square().mean()
        return {"loss_toy": total / len(samples), "loss_toy_0": total.detach() * 0}

    def predict(self, sample: dict[str, Any]) -> VideoInstances:
        size = (sample["height"], sample["width"])
        mask = rle.encode(np.ones(size, dtype=bool))
        frames = list(sample["frame_indices"])
        return VideoInstances(
            scores=torch.tensor([0.9]),
            labels=torch.tensor([0]),
            track_ids=torch.tensor([0]),
            masks=[[mask] * len(frames)],
            image_size=size,
            frame_indices=frames,
        )


@META_ARCH_REGISTRY.register()
class FittedToy(ToySegmenter):
    """Fits the mean brightness of its data, and draws a number, now and then."""

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__(cfg)
        self.register_buffer("brightness", torch.zeros(3))
        self.register_buffer("drawn", torch.zeros(3))
        self.register_buffer("calls", torch.zeros(9))

    def at_iteration(self, iteration: int, max_iter: int, batches: Any) -> bool:
        self.calls[iteration] += 1
        if iteration % 4:
            return False
        samples = [sample for batch in batches() for sample in batch]
        means = [sample["frames"].float().mean() for sample in samples]
        assert iteration < max_iter or iteration == 8
        self.brightness[iteration // 4] = torch.stack(means).mean()
        self.drawn[iteration // 4] = torch.rand(())
        return True
