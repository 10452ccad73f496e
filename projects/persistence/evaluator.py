"""The evaluator of object persistence: decisions, what they must beat, and where attention goes."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vidseg.collectives import is_main
from vidseg.errors import UserError
from vidseg.evaluation.base import EVALUATOR_REGISTRY, Evaluator, Metrics
from vidseg.evaluation.report import write_metrics, write_text
from vidseg.files import make_folder

from .attention_metrics import attention_metrics
from .decisions import baseline_decisions, model_decisions, object_decisions
from .evaluator_report import Report, attention_json, format_report, frame_csv, frame_table
from .split_results import SplitResults, align, describe_clip, has_both_classes

if TYPE_CHECKING:
    from vidseg.config import CfgNode
    from vidseg.data import Metadata

    from .prediction import TokenPrediction

__all__ = ["ObjectPersistenceEvaluator"]

logger = logging.getLogger(__name__)

_PICTURED = "pictured"


@EVALUATOR_REGISTRY.register(name="object_persistence")
class ObjectPersistenceEvaluator(Evaluator):
    """Scores decisions about the blobs of a whole split, beside what is simple.

    Files in ``output_dir``: ``metrics.json`` (flat), ``report.md`` (all tables, with intervals),
    ``attention_metrics.json`` (every source, with its curves over the frames), ``per_frame.csv``,
    and pictures of the first clips that have tokens of both classes.

    Accuracies, AUROC and recall are percent; ratios, entropies and durations are as they are.

    Args:
        output_dir: where the files go; created when they are written.
        min_presence: share of the frames from which on a track counts as persistent.
        num_pictures: clips that are drawn.
        num_resamples: resamplings of the clips behind the intervals; 0 for none.
        dataset_name: for messages.
    """

    headline = (
        "tokens/balanced_accuracy",
        "tokens/accuracy",
        "tokens/AUROC",
        "baselines/tracker",
        "baselines/leak_probe",
        "attention/summary/ratio",
        "attention/last_layer/ratio",
    )

    def __init__(
        self,
        output_dir: Path,
        *,
        min_presence: float = 0.7,
        num_pictures: int = 0,
        num_resamples: int = 1000,
        dataset_name: str = "the data set",
    ) -> None:
        self._output_dir = Path(output_dir)
        self._min_presence = min_presence
        self._num_pictures = num_pictures
        self._num_resamples = num_resamples
        self._dataset_name = dataset_name
        self.reset()

    @classmethod
    def from_config(cls, cfg: CfgNode, metadata: Metadata, output_dir: Path) -> dict[str, Any]:
        """See the base class; reads ``TEST.PERSISTENCE`` and the tracker's keys."""
        return {
            "output_dir": output_dir,
            "min_presence": cfg.MODEL.PERSISTENCE.TRACKER.MIN_PRESENCE,
            "num_pictures": cfg.TEST.PERSISTENCE.NUM_PICTURES,
            "num_resamples": cfg.TEST.PERSISTENCE.BOOTSTRAP,
            "dataset_name": metadata.name,
        }

    def reset(self) -> None:
        """Forgets all predictions."""
        super().reset()
        self._num_drawn: int | None = None

    def encode(self, sample: dict[str, Any], prediction: TokenPrediction) -> dict[str, Any]:
        """Gives labels, decisions, attention and measures of the tokens; draws the first clips.

        Raises:
            UserError: if a decision is no number; that is the model and not the clip.
        """
        if not torch.isfinite(prediction.logits).all():
            raise UserError(
                f"the model's decisions on clip {sample['video_id']} are no numbers; its weights "
                "have diverged: evaluate an earlier checkpoint"
            )
        aligned = align(sample, prediction)
        result = describe_clip(aligned, prediction, min_presence=self._min_presence)
        result[_PICTURED] = self._draw(aligned, prediction)
        return result

    def score(self, results: Mapping[Any, Any]) -> Metrics:
        """Writes the files and gives the metrics by group.

        ``tokens``, ``objects``, ``baselines`` and ``detection`` if objects are known; ``attention``
        by source; ``duration`` and ``queries`` if the model has them. What is undefined is nan.
        """
        split = SplitResults.read(results.values())
        if not len(split.labels):
            return self._score_nothing(split.num_clips)
        attention = {
            name: sums.figures(num_resamples=self._num_resamples)
            for name, sums in split.attention.items()
        }
        decisions: dict[str, dict[str, float]] = {}
        metrics: Metrics = {}
        if (split.labels >= 0).any():
            decisions, metrics = self._score_decisions(split)
        else:
            logger.warning("%s: no blob has a label, there are no accuracies", self._dataset_name)
        if attention:
            metrics["attention"] = attention_metrics(attention)
        report = Report(
            dataset_name=self._dataset_name,
            num_clips=split.num_clips,
            metrics=metrics,
            decisions=decisions,
            attention=attention,
            frames=frame_table(split, attention),
        )
        path = self._output_dir / "report.md"
        write_text(path, format_report(report))
        shown = format_report(report, by_frame=False)
        logger.info("%s: all tables are in %s\n%s", self._dataset_name, path, shown)
        write_text(self._output_dir / "per_frame.csv", frame_csv(report))
        write_text(self._output_dir / "attention_metrics.json", attention_json(attention))
        flat = {f"{task}/{name}": value for task, m in metrics.items() for name, value in m.items()}
        write_metrics(self._output_dir / "metrics.json", flat)
        return metrics

    def _score_nothing(self, num_clips: int) -> Metrics:
        """Says that there was no blob, also to who reads the files of an earlier evaluation."""
        text = f"nothing was found in {num_clips} clips, there is nothing to score"
        logger.warning("%s: %s", self._dataset_name, text)
        for name in ("per_frame.csv", "attention_metrics.json"):
            (self._output_dir / name).unlink(missing_ok=True)
        write_text(self._output_dir / "report.md", f"{text}\n")
        write_metrics(self._output_dir / "metrics.json", {"tokens/balanced_accuracy": math.nan})
        return {"tokens": {"balanced_accuracy": math.nan}}

    def _score_decisions(self, split: SplitResults) -> tuple[dict[str, dict[str, float]], Metrics]:
        """Gives the figures of the model and of every baseline, and the metrics made of them."""
        model, objects = model_decisions(split), object_decisions(split)
        baselines = baseline_decisions(split, self._min_presence)
        methods = {"model": model, "model, by object": objects, **baselines}
        figures = {name: one.metrics(self._num_resamples) for name, one in methods.items()}
        margin, (low, high) = model.margin(baselines["tracker"], self._num_resamples)
        metrics: Metrics = {
            "tokens": {
                **figures["model"],
                "margin_over_tracker": margin,
                "margin_over_tracker_low": low,
                "margin_over_tracker_high": high,
                "num_tokens": float(model.counts[:, 1::2].sum()),
                "num_clips": float(split.num_clips),
            },
            "objects": {
                **figures["model, by object"],
                "num_objects": float(objects.counts[:, 1::2].sum()),
            },
            "baselines": {},
            "detection": split.detection_metrics(),
        }
        for name in baselines:
            for figure, value in figures[name].items():
                flat = f"{name}_{figure}".replace("_balanced_accuracy", "")
                metrics["baselines"][flat] = value
        if len(split.durations):
            metrics["duration"] = split.duration_metrics()
        if split.queries is not None:
            metrics["queries"] = split.queries.metrics()
        return figures, metrics

    def _draw(self, sample: dict[str, Any], prediction: TokenPrediction) -> bool:
        """Draws a clip, if it is among the first that show something; tells whether."""
        if not (self._num_pictures and is_main() and "frames" in sample):
            return False
        labels = sample["labels"]
        if not (has_both_classes(labels) or (len(labels) and (labels < 0).all())):
            return False
        if self._num_drawn is None:  # some may have been drawn before the evaluation was stopped
            self._num_drawn = sum(bool(one[_PICTURED]) for one in self.results.values())
        if self._num_drawn >= self._num_pictures:
            return False
        from .pictures import save_clip_pictures  # on demand: it needs matplotlib

        make_folder(self._output_dir, "folder of the evaluation")
        save_clip_pictures(self._output_dir, sample, prediction)
        self._num_drawn += 1
        return True
