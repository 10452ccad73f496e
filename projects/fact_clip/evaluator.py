"""The evaluator of action segmentation: metrics of every branch, tables, timelines, segments."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidseg.collectives import is_main
from vidseg.errors import ConfigError, UserError
from vidseg.evaluation.base import EVALUATOR_REGISTRY, Evaluator, Metrics
from vidseg.evaluation.report import write_metrics, write_text

from .background import background_classes
from .class_names import class_names
from .evaluator_report import Report, class_csv, format_report, video_csv
from .segments_csv import FOLDER, write_segments
from .split_scores import SplitScores
from .timeline import MERGED, TRUTH, ZERO_SHOT, Timeline
from .timeline_drawing import save_timeline
from .zero_shot import encode_zero_shot, groups_of, harmonic_mean, zero_shot_scores

if TYPE_CHECKING:
    from vidseg.config import CfgNode
    from vidseg.data import Metadata

    from .prediction import ActionPrediction

__all__ = ["ActionSegmentationEvaluator"]

logger = logging.getLogger(__name__)

_PICTURED, _COSINES = "pictured", "cosines"


@EVALUATOR_REGISTRY.register(name="action_segmentation")
class ActionSegmentationEvaluator(Evaluator):
    """Scores frame labels of a whole split: the merged prediction and every branch by itself.

    Files in ``output_dir``: ``metrics.json`` (flat), ``report.md`` (all tables), ``per_video.csv``,
    ``per_class.csv``, ``segments/<video>.csv`` and ``timelines/<video>.png``.

    All metrics are percent.

    Args:
        output_dir: where the files go; created when they are written.
        classes: names of the classes, by number.
        background: numbers of the background classes.
        eval_bg: whether background counts as a class like others.
        num_pictures: videos that are drawn; -1 for all.
        dataset_name: for messages.
    """

    headline = (
        "merged/Acc",
        "merged/Edit",
        "merged/F1@10",
        "merged/F1@25",
        "merged/F1@50",
        "zero_shot/Acc",
        "zero_shot/H",
    )

    def __init__(
        self,
        output_dir: Path,
        *,
        classes: Sequence[str],
        background: Sequence[int] = (),
        eval_bg: bool = False,
        num_pictures: int = -1,
        dataset_name: str = "the data set",
    ) -> None:
        self._output_dir = Path(output_dir)
        self._classes = list(classes)
        self._background = list(background)
        self._eval_bg = eval_bg
        self._num_pictures = num_pictures
        self._dataset_name = dataset_name
        self.reset()

    @classmethod
    def from_config(cls, cfg: CfgNode, metadata: Metadata, output_dir: Path) -> dict[str, Any]:
        """See the base class; reads ``bg_class``, ``eval_bg`` and ``TEST.ACTIONS``.

        Raises:
            ConfigError: if there is no such background class, or no such number of pictures.
        """
        num_pictures = cfg.TEST.ACTIONS.NUM_PICTURES
        if num_pictures < -1:
            raise ConfigError(
                f"TEST.ACTIONS.NUM_PICTURES is {num_pictures}; set 0 or more, or -1 for all videos"
            )
        classes = class_names(cfg, metadata)
        return {
            "output_dir": output_dir,
            "classes": classes,
            "background": background_classes(cfg.bg_class, classes),
            "eval_bg": cfg.eval_bg,
            "num_pictures": num_pictures,
            "dataset_name": metadata.name,
        }

    def reset(self) -> None:
        """Forgets all predictions."""
        super().reset()
        self._num_drawn: int | None = None

    def encode(self, sample: dict[str, Any], prediction: ActionPrediction) -> dict[str, Any]:
        """Gives the segments of truth and prediction, and draws the first videos.

        Raises:
            UserError: if the probabilities are no numbers; that is the model and not the video.
        """
        if not bool(prediction.probabilities.isfinite().all()):
            raise UserError(
                f"the model's probabilities for video {sample['video_id']} are no numbers; its "
                "weights have diverged: evaluate an earlier checkpoint"
            )
        timeline = Timeline.of(
            sample, prediction, self._classes, self._background, eval_bg=self._eval_bg
        )
        kept = timeline.to_json(len(self._classes))
        if prediction.zero_shot is not None:
            kept[_COSINES] = encode_zero_shot(prediction.zero_shot)
        kept[_PICTURED] = self._draw(timeline)
        return kept

    def score(self, results: Mapping[Any, Any]) -> Metrics:
        """Writes the files and gives the metrics by group.

        ``merged``, ``frame_branch``, ``action_branch`` and, if the model matches text,
        ``zero_shot`` (see also ``zero_shot_scores``); ``with_background`` (or
        ``without_background``, if ``eval_bg`` is set) of the merged prediction; ``per_class``.
        Without labels there are none.
        """
        split = SplitScores(len(self._classes), self._background, eval_bg=self._eval_bg)
        matched = []
        for result in results.values():
            timeline = Timeline.from_json(result, self._classes, self._background)
            write_segments(timeline.path_in(self._output_dir / FOLDER, "csv"), timeline)
            split.add(timeline)
            if _COSINES in result and TRUTH in timeline.rows:
                matched.append((result[_COSINES], timeline.rows[TRUTH]))
        if not split.num_videos:
            logger.warning("%s: no video has labels, nothing to score", self._dataset_name)
            return {MERGED: {}}
        metrics = split.metrics(self._classes)
        if matched:
            metrics[ZERO_SHOT] |= self._score_matches(matched, split)
        report = Report(self._dataset_name, self._classes, split, metrics)
        path = self._output_dir / "report.md"
        write_text(path, format_report(report))
        shown = format_report(report, brief=True)
        logger.info("%s (classes and videos: %s)\n%s", self._dataset_name, path, shown)
        write_text(self._output_dir / "per_video.csv", video_csv(report))
        write_text(self._output_dir / "per_class.csv", class_csv(report))
        flat = {f"{task}/{name}": value for task, m in metrics.items() for name, value in m.items()}
        write_metrics(self._output_dir / "metrics.json", flat)
        return metrics

    def _score_matches(
        self, matched: list[tuple[dict[str, Any], Any]], split: SplitScores
    ) -> dict[str, float]:
        """Scores zero-shot labels, beside those of the closed set (``*_closed``)."""
        scores = zero_shot_scores(matched, self._classes, self._background)
        if not scores:
            return {}
        groups = groups_of(matched[0][0], self._classes, self._background)
        closed = [split.group_accuracy(MERGED, group) for group in groups]
        names = ("seen_closed", "unseen_closed", "H_closed")
        return scores | dict(zip(names, (*closed, float(harmonic_mean(*closed))), strict=True))

    def _draw(self, timeline: Timeline) -> bool:
        """Draws a video, if it is among the first; tells whether."""
        if self._num_pictures >= 0:
            if not is_main():
                return False
            if self._num_drawn is None:  # some may have been drawn before the evaluation stopped
                self._num_drawn = sum(bool(one[_PICTURED]) for one in self.results.values())
            if self._num_drawn >= self._num_pictures:
                return False
            self._num_drawn += 1
        save_timeline(timeline.path_in(self._output_dir / "timelines", "png"), timeline)
        return True
