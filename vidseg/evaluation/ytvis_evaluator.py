"""The evaluator of YouTube-VIS and OVIS: predictions of a model in, files and AP out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidseg.errors import DataError, UserError
from vidseg.files import read_json

from .base import EVALUATOR_REGISTRY, Evaluator, Metrics
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
REPORT_FRAMES = 24  # of each video in the player


@EVALUATOR_REGISTRY.register(name="ytvis")
class YTVISEvaluator(Evaluator):
    """Writes ``results.json`` and its zip for the servers, and scores it where that is possible.

    Files in ``output_dir``: ``results.json``, ``results.zip`` (submission), ``metrics.json`` (flat,
    percent), ``per_class.csv``, ``report.html`` (for a browser). OVIS levels are added if the
    annotations have them.

    Args:
        gt: annotations in YouTube-VIS form, a path or loaded json; test splits have none.
        category_ids: ids of the data set by contiguous class number; taken from ``gt``, ascending,
            if empty.
        output_dir: where the files go; created when they are written.
        dataset_name: for messages.
        report_videos: videos in the player of the report, the worst ones; 0 writes no report.
        images: folder of the frames for that player; without it there are masks alone.

    Note:
        Tracks of classes that the data set does not have are dropped, and counted in a warning.
        A video that several ranks predicted counts once: the official evaluator would take the
        second copy for false positives.
    """

    def __init__(
        self,
        gt: str | os.PathLike[str] | Mapping[str, Any],
        output_dir: str | os.PathLike[str],
        *,
        category_ids: Sequence[int] = (),
        dataset_name: str = "the data set",
        report_videos: int = 0,
        images: str | os.PathLike[str] | None = None,
    ) -> None:
        self._gt = gt
        self._output_dir = Path(output_dir)
        self._category_ids = list(category_ids)
        self._dataset_name = dataset_name
        self._report_videos = report_videos
        self._images = images or None
        self.reset()

    @classmethod
    def from_config(cls, cfg: CfgNode, metadata: Metadata, output_dir: Path) -> dict[str, Any]:
        """See the base class; of the config, only the size of the report counts."""
        return {
            "gt": metadata.json_file,
            "output_dir": output_dir,
            "category_ids": metadata.category_ids,
            "dataset_name": metadata.name,
            "report_videos": cfg.TEST.REPORT_VIDEOS,
            "images": metadata.image_root,
        }

    def encode(self, sample: dict[str, Any], prediction: VideoInstances) -> dict[str, Any]:
        """Gives the tracks of a video as records of the results file; masks stay RLE.

        Raises:
            UserError: if a score is no number; that is the model and not the video.
        """
        category_ids = self._ids()
        video_id = sample["video_id"]
        if not prediction.scores.isfinite().all():
            raise UserError(
                f"the model gave a track of video {video_id} a score that is no number; its weights"
                " have diverged: evaluate an earlier checkpoint"
            )
        unknown = prediction.labels >= len(category_ids)
        num_dropped = int(unknown.sum())
        known = prediction[~unknown] if num_dropped else prediction
        tracks = known.to_results(video_id, category_ids)
        return {"tracks": tracks, "num_dropped": num_dropped}

    def score(self, results: Mapping[Any, Any]) -> Metrics:
        """Writes the files and gives ``{"segm": {name: percent}}`` with AP per class.

        Undefined values are nan. A split without annotations gives ``{"segm": {}}``.
        """
        from . import html_report  # on demand: it is made of what this package imports

        path = self._output_dir / "results.json"
        num_dropped = 0

        def tracks() -> Iterator[dict[str, Any]]:
            nonlocal num_dropped
            for result in results.values():
                num_dropped += result["num_dropped"]
                yield from result["tracks"]

        write_results(path, tracks())
        write_zip(path.with_suffix(".zip"), path)
        gt = self._annotations()
        self._report_missing(gt, results)
        if num_dropped:
            logger.warning(
                "%d predicted tracks were dropped: %s has %d classes and the model more, see "
                "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
                num_dropped,
                self._dataset_name,
                len(self._ids()),
            )
        if not gt.get("annotations"):
            logger.warning(
                "%s has no annotations, so there is nothing to score against; "
                "send %s to the evaluation server of the data set",
                self._dataset_name,
                path.with_suffix(".zip"),
            )
            return {TASK: {}}
        occlusion = all("occlusion" in annotation for annotation in gt["annotations"])
        found = list(tracks())
        scores = score_ytvis(gt, found, occlusion=occlusion)
        logger.info("%s: %d videos\n%s", self._dataset_name, len(results), format_scores(scores))
        metrics = percent_metrics(scores)
        write_metrics(
            self._output_dir / "metrics.json",
            {f"{TASK}/{name}": value for name, value in metrics.items()},
        )
        write_per_class(self._output_dir / "per_class.csv", scores)
        self._write_report(html_report.ytvis_report, gt, found, scores)
        return {TASK: metrics}

    def _write_report(
        self, make: Callable[..., dict[str, Any]], *scored: Any, **chosen: Any
    ) -> None:
        """Writes the page; the evaluation is worth more, so that no fault of it may end that.

        Args:
            make: function of ``html_report`` that says what stands on it.
            scored: annotations, results and scores, which it is given.
            chosen: how they were scored.
        """
        from . import html_report

        if self._report_videos < 1:
            return
        path = self._output_dir / "report.html"
        limits = html_report.Limits(videos=self._report_videos, frames=REPORT_FRAMES)
        try:
            path.unlink(missing_ok=True)  # that of an earlier evaluation would mislead
            payload = make(*scored, images=self._images, limits=limits, **chosen)
            payload["title"] = f"{self._dataset_name}: {payload['title']}"
            html_report.write_report(path, payload)
        except Exception as error:
            logger.warning("no report.html of %s was written: %r", self._dataset_name, error)

    def _ids(self) -> list[int]:
        if not self._category_ids:
            self._category_ids = sorted(one["id"] for one in self._annotations()["categories"])
        return self._category_ids

    def _annotations(self) -> Mapping[str, Any]:
        """Gives the loaded annotation file."""
        if isinstance(self._gt, Mapping):
            return self._gt
        if not self._gt:
            raise DataError(f"{self._dataset_name} names no annotation file (json_file)")
        return read_json(Path(self._gt), what="annotation file")

    def _report_missing(self, gt: Mapping[str, Any], results: Mapping[Any, Any]) -> None:
        missing = [one["id"] for one in gt.get("videos", ()) if one["id"] not in results]
        if missing:
            logger.warning(
                "%d of %d videos of %s were not predicted and count as empty: %s%s",
                len(missing),
                len(gt["videos"]),
                self._dataset_name,
                ", ".join(map(str, missing[:5])),
                ", ..." if len(missing) > 5 else "",
            )
