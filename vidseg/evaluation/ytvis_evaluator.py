"""The evaluator of YouTube-VIS and OVIS: predictions of a model in, files and AP out."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidseg.errors import DataError
from vidseg.files import read_json

from .base import EVALUATOR_REGISTRY, Evaluator, Metrics, gather_on_main, run_on_main
from .report import (
    format_scores,
    percent_metrics,
    write_metrics,
    write_per_class,
    write_results,
    write_zip,
)
from .ytvis import score_ytvis

if TYPE_CHECKING:
    from vidseg.config import CfgNode
    from vidseg.data import Metadata
    from vidseg.structures import VideoInstances

__all__ = ["YTVISEvaluator"]

logger = logging.getLogger(__name__)

TASK = "segm"


@EVALUATOR_REGISTRY.register(name="ytvis")
class YTVISEvaluator(Evaluator):
    """Writes ``results.json`` and its zip for the servers, and scores it where that is possible.

    Files in ``output_dir``: ``results.json``, ``results.zip`` (submission), ``metrics.json`` (flat,
    percent), ``per_class.csv``. OVIS levels are added if the annotations have them.

    Args:
        gt: annotations in YouTube-VIS form, a path or loaded json; test splits have none.
        category_ids: ids of the data set by contiguous class number; taken from ``gt``, ascending,
            if empty.
        output_dir: where the files go; created when they are written.
        dataset_name: for messages.

    Note:
        Tracks of classes that the data set does not have are dropped, and counted in a warning.
        A video that several ranks predicted, because a sampler padded its share, counts once: the
        official evaluator would take the second copy for false positives.
    """

    def __init__(
        self,
        gt: str | os.PathLike[str] | Mapping[str, Any],
        output_dir: str | os.PathLike[str],
        *,
        category_ids: Sequence[int] = (),
        dataset_name: str = "the data set",
    ) -> None:
        self._gt = gt
        self._output_dir = Path(output_dir)
        self._category_ids = list(category_ids)
        self._dataset_name = dataset_name
        self._records: dict[Any, list[dict[str, Any]]] = {}  # by video id
        self._num_dropped = 0

    @classmethod
    def from_config(cls, cfg: CfgNode, metadata: Metadata, output_dir: Path) -> dict[str, Any]:
        """See the base class; the config itself has no say here."""
        return {
            "gt": metadata.json_file,
            "output_dir": output_dir,
            "category_ids": metadata.category_ids,
            "dataset_name": metadata.name,
        }

    def reset(self) -> None:
        """Forgets all predictions."""
        self._records = {}
        self._num_dropped = 0

    def process(
        self, samples: Sequence[dict[str, Any]], predictions: Sequence[VideoInstances]
    ) -> None:
        """Keeps the tracks of some videos as json records; masks stay RLE."""
        if not self._category_ids:
            self._category_ids = sorted(one["id"] for one in self._annotations()["categories"])
        for sample, prediction in zip(samples, predictions, strict=True):
            video_id = sample["video_id"]
            unknown = prediction.labels >= len(self._category_ids)
            if unknown.any():
                self._num_dropped += int(unknown.sum())
                prediction = prediction[~unknown]
            records = prediction.to_results(video_id, self._category_ids)
            self._records.setdefault(video_id, records)

    def evaluate(self) -> Metrics:
        """Writes the files and gives ``{"segm": {name: percent}}`` with AP per class, everywhere.

        Undefined values are nan. A split without annotations gives ``{"segm": {}}``.
        """
        parts = gather_on_main(self._records)
        num_dropped = sum(gather_on_main(self._num_dropped))
        return run_on_main(lambda: self._evaluate(parts, num_dropped))

    def _evaluate(
        self, parts: Sequence[Mapping[Any, list[dict[str, Any]]]], num_dropped: int
    ) -> Metrics:
        by_video: dict[Any, list[dict[str, Any]]] = {}
        for part in parts:
            for video_id, tracks in part.items():
                by_video.setdefault(video_id, tracks)
        records = [track for tracks in by_video.values() for track in tracks]
        results = self._output_dir / "results.json"
        write_results(results, records)
        write_zip(results.with_suffix(".zip"), results)
        gt = self._annotations()
        self._report_missing(gt, by_video)
        if num_dropped:
            logger.warning(
                "%d predicted tracks were dropped: %s has %d classes and the model more, see "
                "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
                num_dropped,
                self._dataset_name,
                len(self._category_ids),
            )
        if not gt.get("annotations"):
            logger.warning(
                "%s has no annotations, so there is nothing to score against; "
                "send %s to the evaluation server of the data set",
                self._dataset_name,
                results.with_suffix(".zip"),
            )
            return {TASK: {}}
        occlusion = all("occlusion" in annotation for annotation in gt["annotations"])
        scores = score_ytvis(gt, records, occlusion=occlusion)
        logger.info("%s: %d videos\n%s", self._dataset_name, len(by_video), format_scores(scores))
        metrics = percent_metrics(scores)
        write_metrics(
            self._output_dir / "metrics.json",
            {f"{TASK}/{name}": value for name, value in metrics.items()},
        )
        write_per_class(self._output_dir / "per_class.csv", scores)
        return {TASK: metrics}

    def _annotations(self) -> Mapping[str, Any]:
        """Gives the loaded annotation file."""
        if isinstance(self._gt, Mapping):
            return self._gt
        if not self._gt:
            raise DataError(f"{self._dataset_name} names no annotation file (json_file)")
        return read_json(Path(self._gt), what="annotation file")

    def _report_missing(self, gt: Mapping[str, Any], by_video: Mapping[Any, Any]) -> None:
        missing = [one["id"] for one in gt.get("videos", ()) if one["id"] not in by_video]
        if missing:
            logger.warning(
                "%d of %d videos of %s were not predicted and count as empty: %s%s",
                len(missing),
                len(gt["videos"]),
                self._dataset_name,
                ", ".join(map(str, missing[:5])),
                ", ..." if len(missing) > 5 else "",
            )
