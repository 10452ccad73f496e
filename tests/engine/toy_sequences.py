"""A plugin for tests: the smallest model of sequences, its evaluator and a registered data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidseg.config import CfgNode
from vidseg.data import DatasetCatalog, Metadata
from vidseg.data.features import FeatureFolder
from vidseg.evaluation import EVALUATOR_REGISTRY, Evaluator
from vidseg.layers.padding import pad_sequences
from vidseg.modeling import META_ARCH_REGISTRY


def add_config(cfg: CfgNode) -> None:
    cfg.MODEL.TOY_WIDTH = 3


@META_ARCH_REGISTRY.register()
class ToySequences(nn.Module):
    """Learns the mean of all frames."""

    feature_dim_key = "MODEL.TOY_WIDTH"

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        self.input_dim = cfg.MODEL.TOY_WIDTH
        self.mean = nn.Parameter(torch.zeros(self.input_dim))

    def forward(self, samples: list[dict[str, Any]]) -> Any:
        batch, mask = pad_sequences([sample["features"] for sample in samples])
        errors = (batch - self.mean).square().mean(-1)
        if self.training:
            return {"loss": errors[mask].mean()}
        return list(errors)

    def write_prediction(self, folder: Path, sample: dict[str, Any], prediction: Tensor) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "error.txt").write_text(f"{float(prediction.mean())}")
        rate = f" at {sample['frame_rate']} per second" if "frame_rate" in sample else ""
        return f"{len(sample['features'])} frames{rate}"


@EVALUATOR_REGISTRY.register(name="toy_sequences")
class ToyEvaluator(Evaluator):
    """Gives the mean error."""

    @classmethod
    def from_config(cls, cfg: CfgNode, metadata: Metadata, output_dir: Path) -> dict[str, Any]:
        return {}

    def encode(self, sample: dict[str, Any], prediction: Tensor) -> float:
        return float(prediction.mean())

    def score(self, results: Any) -> dict[str, dict[str, float]]:
        values = [results[key] for key in results]
        return {"toy": {"error": sum(values) / len(values), "documents": float(len(values))}}


DatasetCatalog.register("toy_documents", FeatureFolder("toy_documents"))
