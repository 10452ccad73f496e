"""The evaluator: how many frames get the right class."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vidseg.config import CfgNode
from vidseg.data import Metadata
from vidseg.errors import DataError
from vidseg.evaluation import EVALUATOR_REGISTRY, Evaluator
from vidseg.evaluation.base import Metrics
from vidseg.evaluation.report import write_metrics, write_text

__all__ = ["MyIdeaEvaluator"]


@EVALUATOR_REGISTRY.register(name="my_idea_frames")
class MyIdeaEvaluator(Evaluator):
    """Gives the accuracy over all frames, and that of every class, in percent.

    Args:
        output_dir: folder for ``predictions.json``, the class numbers of every document, and
            ``metrics.json``.
        classes: names by class number.
    """

    headline = ("accuracy",)

    def __init__(self, output_dir: Path, classes: list[str]) -> None:
        self.output_dir = output_dir
        self.classes = classes
        self.reset()

    @classmethod
    def from_config(cls, cfg: CfgNode, metadata: Metadata, output_dir: Path) -> dict[str, Any]:
        """Takes the names of the classes from the data set."""
        return {"output_dir": output_dir, "classes": metadata.classes}

    def encode(self, sample: dict[str, Any], prediction: Tensor) -> dict[str, list[int]]:
        """Keeps predicted and true classes.

        Raises:
            DataError: if the document has no labels.
        """
        if "labels" not in sample:
            raise DataError(f"document {sample['video_id']!r} has no labels to be scored by")
        return {
            "predicted": prediction.argmax(-1).tolist(),
            "labels": sample["labels"].tolist(),
        }

    def score(self, results: Mapping[Any, Any]) -> Metrics:
        """Counts the frames that are right, and writes the files."""
        predictions, right, frames = {}, [0] * len(self.classes), [0] * len(self.classes)
        for key, kept in results.items():
            predictions[key] = kept["predicted"]
            for predicted, label in zip(kept["predicted"], kept["labels"], strict=True):
                frames[label] += 1
                right[label] += predicted == label
        metrics = {}
        if sum(frames):
            metrics["accuracy"] = 100 * sum(right) / sum(frames)
        for name, hits, count in zip(self.classes, right, frames, strict=True):
            if count:
                metrics[f"accuracy-{name}"] = 100 * hits / count
        self.output_dir.mkdir(parents=True, exist_ok=True)
        write_text(self.output_dir / "predictions.json", json.dumps(predictions))
        flat = {f"frames/{name}": value for name, value in metrics.items()}
        write_metrics(self.output_dir / "metrics.json", flat)
        return {"frames": metrics}
