"""vidseg's evaluators under detectron2's ``inference_on_dataset`` and ``DefaultTrainer.test``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from vidseg import evaluation
from vidseg.config import CfgNode
from vidseg.errors import DataError
from vidseg.evaluation import Evaluator
from vidseg.evaluation.base import Metrics

from .structures import to_video_instances

__all__ = ["AdaptedEvaluator", "adapt_evaluator", "build_evaluator"]


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_dir: str | os.PathLike[str]
) -> AdaptedEvaluator:
    """Makes the evaluator of a data set, for ``DefaultTrainer.build_evaluator``.

    Args:
        cfg: of vidseg.
        dataset_name: of vidseg's catalog, or a path.
        output_dir: folder for the files of this evaluation.

    Raises:
        UserError: if the data set or its evaluator is unknown, or the data set has none.
    """
    return adapt_evaluator(evaluation.build_evaluator(cfg, dataset_name, output_dir))


def adapt_evaluator(evaluator: Evaluator) -> AdaptedEvaluator:
    """Gives a vidseg evaluator the interface of detectron2's ``DatasetEvaluator``.

    Args:
        evaluator: of videos, such as ``YTVISEvaluator``; it gathers over ranks itself.
    """
    return AdaptedEvaluator(evaluator)


class AdaptedEvaluator:
    """Scores what models of either world return; has the methods of a ``DatasetEvaluator``.

    ``DefaultTrainer.test`` takes it from ``build_evaluator`` or in a list.

    Args:
        evaluator: that scores.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator

    def reset(self) -> None:
        """Forgets all predictions."""
        self.evaluator.reset()

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Any) -> None:
        """Takes the predictions of a batch.

        Args:
            inputs: as they were given to the model.
            outputs: what it returned: one prediction per input, or that of a single video alone;
                see ``to_video_instances`` for what a prediction may be. That of a vidseg sample
                reaches the evaluator as it is, whatever it holds.

        Raises:
            DataError: if a prediction is none.
        """
        found = [outputs] if isinstance(outputs, Mapping) else outputs
        samples, predictions = [], []
        for item, output in zip(inputs, found, strict=True):
            is_ours = "frames" in item or "features" in item
            samples.append(dict(item) if is_ours else {**item, "video_id": _video_id(item)})
            predictions.append(output if is_ours else to_video_instances(output))
        self.evaluator.process(samples, predictions)

    def evaluate(self) -> Metrics:
        """Gives ``{task: {metric: value}}``, the same on every rank."""
        return self.evaluator.evaluate()


def _video_id(item: Mapping[str, Any]) -> Any:
    if "frame_index" in item:
        raise DataError(
            f"frame {item['frame_index']} of video {item.get('video_id', '?')} was predicted alone,"
            " and tracks need the whole video; register the data set with layout='video'"
        )
    return item["video_id"] if "video_id" in item else item.get("image_id")
