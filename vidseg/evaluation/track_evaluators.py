"""Evaluators that score the tracks of a model by other metrics than AP.

They score what ``YTVISEvaluator`` keeps of a prediction, alone or beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidseg.errors import ConfigError
from vidseg.rle import RLE

from .base import EVALUATOR_REGISTRY, Metrics
from .report import figures_table, in_percent, write_figures, write_metrics
from .ytvis_evaluator import YTVISEvaluator
from .ytvis_files import load_ground_truth

if TYPE_CHECKING:
    from vidseg.config import CfgNode
    from vidseg.data import Metadata

__all__ = ["RegionBoundaryEvaluator", "TrackingEvaluator"]

logger = logging.getLogger(__name__)

Figures = dict[str, float]


@EVALUATOR_REGISTRY.register(name="tracking")
class TrackingEvaluator(YTVISEvaluator):
    """Scores tracks by HOTA, CLEAR and Identity, see ``score_tracking``.

    Files in ``output_dir``: ``metrics.json`` (flat, percent, with the names that
    ``tools/evaluate.py tracking`` gives), ``per_class.csv``, ``per_video.csv`` and ``report.html``.

    Args:
        gt: see ``YTVISEvaluator``, as for the other arguments.
        output_dir: see there.
        min_score: tracks with a lower score are left out: every other one counts in full.
        category_ids: see there.
        dataset_name: see there.
    """

    headline = ("tracking/HOTA", "tracking/MOTA", "tracking/IDF1")

    def __init__(self, gt: Any, output_dir: Path, *, min_score: float = 0.0, **known: Any) -> None:
        super().__init__(gt, output_dir, **known)
        self._min_score = min_score

    @classmethod
    def from_config(cls, cfg: CfgNode, metadata: Metadata, output_dir: Path) -> dict[str, Any]:
        """See the base class; reads ``TEST.TRACKING``."""
        known = super().from_config(cfg, metadata, output_dir)
        return {**known, "min_score": cfg.TEST.TRACKING.MIN_SCORE}

    def score(self, results: Mapping[Any, Any]) -> Metrics:
        """Writes the files and gives ``{"tracking": {name: percent}}``; empty without truth."""
        from .html_report import tracking_report
        from .tracking import HEADLINE, PLAIN, score_tracking

        gt = self._annotations()
        if not gt.get("annotations"):
            return {"tracking": {}}
        tracks = [track for result in results.values() for track in result["tracks"]]
        scores = score_tracking(gt, tracks, min_score=self._min_score)
        table = figures_table("class", scores.rows(), HEADLINE, plain=PLAIN)
        logger.info("%s\n%s", self._dataset_name, table)
        metrics = scores.percent_metrics()
        write_metrics(self._output_dir / "metrics.json", _flat("tracking", metrics))
        write_figures(self._output_dir / "per_class.csv", "class", scores.per_class, plain=PLAIN)
        write_figures(self._output_dir / "per_video.csv", "video", scores.per_video, plain=PLAIN)
        self._write_report(tracking_report, gt, tracks, scores, min_score=self._min_score)
        return {"tracking": metrics}


@EVALUATOR_REGISTRY.register(name="davis")
class RegionBoundaryEvaluator(YTVISEvaluator):
    """Scores tracks by J&F, matched to objects as in the unsupervised task of DAVIS.

    Classes do not count. How tracks become segments: see ``region_boundary_of_tracks``.

    Files in ``output_dir``: ``metrics.json`` (flat, percent, with the names that
    ``tools/evaluate.py davis`` gives) and ``per_video.csv``.

    Args:
        gt: see ``YTVISEvaluator``, as for the other arguments.
        output_dir: see there.
        min_score: tracks with a lower score are left out.
        max_tracks: of a video, at most.
        category_ids: see there.
        dataset_name: see there.
    """

    headline = ("davis/J&F", "davis/J", "davis/F")

    def __init__(
        self,
        gt: Any,
        output_dir: Path,
        *,
        min_score: float = 0.0,
        max_tracks: int = 20,
        **known: Any,
    ) -> None:
        super().__init__(gt, output_dir, **known)
        self._min_score = min_score
        self._max_tracks = max_tracks

    @classmethod
    def from_config(cls, cfg: CfgNode, metadata: Metadata, output_dir: Path) -> dict[str, Any]:
        """See the base class; reads ``TEST.DAVIS``.

        Raises:
            ConfigError: if no track is allowed.
        """
        node = cfg.TEST.DAVIS
        if node.MAX_TRACKS < 1:
            raise ConfigError(f"TEST.DAVIS.MAX_TRACKS is {node.MAX_TRACKS}; set 1 or more")
        known = super().from_config(cfg, metadata, output_dir)
        return {**known, "min_score": node.MIN_SCORE, "max_tracks": node.MAX_TRACKS}

    def score(self, results: Mapping[Any, Any]) -> Metrics:
        """Writes the files and gives ``{"davis": {name: percent}}``; empty without truth."""
        from .discovery import mean_shares
        from .track_segments import region_boundary_of_tracks

        gt = self._annotations()
        if not gt.get("annotations"):
            return {"davis": {}}

        def tracks_of(video_id: Any) -> list[tuple[float, list[RLE | None]]]:
            tracks = results.get(video_id, {"tracks": ()})["tracks"]
            return [(track["score"], track["segmentations"]) for track in tracks]

        shares = region_boundary_of_tracks(
            load_ground_truth(gt),
            tracks_of,
            self._dataset_name,
            min_score=self._min_score,
            max_tracks=self._max_tracks,
        )
        metrics = in_percent(mean_shares(shares.values()))
        per_video = {key: mean_shares([share]) for key, share in shares.items()}
        table = figures_table("video", {"all videos": mean_shares(shares.values())}, list(metrics))
        logger.info("%s\n%s", self._dataset_name, table)
        write_metrics(self._output_dir / "metrics.json", _flat("davis", metrics))
        write_figures(self._output_dir / "per_video.csv", "video", per_video)
        return {"davis": metrics}


def _flat(task: str, metrics: Mapping[str, float]) -> Figures:
    return {f"{task}/{name}": value for name, value in metrics.items()}
