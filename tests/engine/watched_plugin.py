"""A plugin for tests: a model that notes every video it is run on, and an evaluator of its own.

The environment tells what is to happen: ``WATCH_LOG`` is the file for the notes, ``WATCH_KILL`` the
number of the video in whose middle the process dies by SIGKILL, ``WATCH_REFUSE`` the id of a video
that the model cannot work on.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidseg import rle
from vidseg.config import CfgNode
from vidseg.errors import DataError
from vidseg.evaluation import EVALUATOR_REGISTRY, Evaluator
from vidseg.modeling import META_ARCH_REGISTRY
from vidseg.structures import VideoInstances


@META_ARCH_REGISTRY.register()
class WatchedSegmenter(nn.Module):
    """Predicts what is brighter than a learned threshold, as one track."""

    streams_frames = True

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(100.3))
        self.num_seen = 0

    def forward(self, samples: list[dict[str, Any]]) -> Any:
        if self.training:
            frames = torch.cat([sample["frames"] for sample in samples]).float()
            return {"loss_bright": (frames.mean() - self.threshold).square() * 1e-4}
        return [self.predict(sample) for sample in samples]

    def predict(self, sample: dict[str, Any]) -> VideoInstances:
        video_id = sample["video_id"]
        self.note(video_id)
        size = (sample["height"], sample["width"])
        masks: list[Any] = []
        total = 0.0
        for window in sample["frames"].split(2):
            bright = window.float().mean(dim=1) > self.threshold
            total += float(window.float().mean())
            masks += rle.encode(bright.numpy())
        return VideoInstances(
            scores=torch.tensor([total / 1e4]),
            labels=torch.tensor([0]),
            track_ids=torch.tensor([0]),
            masks=[masks],
            image_size=size,
            frame_indices=sample["frame_indices"],
        )

    def note(self, video_id: Any) -> None:
        self.num_seen += 1
        if self.num_seen == int(os.environ.get("WATCH_KILL", 0)):
            os.kill(os.getpid(), signal.SIGKILL)
        if str(video_id) == os.environ.get("WATCH_REFUSE"):
            raise DataError(f"video {video_id} is too strange")
        with open(os.environ["WATCH_LOG"], "a") as file:
            file.write(f"{video_id}\n")


@EVALUATOR_REGISTRY.register(name="brightness")
class BrightnessEvaluator(Evaluator):
    """Gives the mean score over videos; an evaluator that knows nothing of masks."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir

    @classmethod
    def from_config(cls, cfg: CfgNode, metadata: Any, output_dir: Path) -> dict[str, Any]:
        return {"output_dir": output_dir}

    def encode(self, sample: dict[str, Any], prediction: VideoInstances) -> Any:
        return float(prediction.scores.sum())

    def score(self, results: Mapping[Any, Any]) -> dict[str, dict[str, float]]:
        assert list(results) == sorted(results)
        mean = sum(results.values()) / len(results)
        (self.output_dir / "light.txt").write_text(repr(mean))
        return {"light": {"mean": mean}}
