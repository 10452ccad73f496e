"""The evaluator of object discovery: segments, identity, reconstruction, and what is simpler."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vidseg.collectives import is_main
from vidseg.errors import ConfigError
from vidseg.evaluation.base import EVALUATOR_REGISTRY, Evaluator, Metrics
from vidseg.evaluation.report import write_metrics, write_text
from vidseg.files import make_folder

from .baselines import CEILING, KMEANS
from .clip_scores import score_clip
from .collapse import collapse_warnings
from .evaluator_report import Report, clip_csv, format_report
from .split_scores import MODEL, SplitScores

if TYPE_CHECKING:
    from vidseg.config import CfgNode
    from vidseg.data import Metadata

__all__ = ["SlotDiscoveryEvaluator"]

logger = logging.getLogger(__name__)

_PICTURED = "pictured"
_GROUPS = ("video", "image", "identity", "solv", "reconstruction", "slots", "dropped")


@EVALUATOR_REGISTRY.register(name="slot_discovery")
class SlotDiscoveryEvaluator(Evaluator):
    """Scores slots as segments of a whole split, beside k-means and the best of the mask grid.

    Files in ``output_dir``: ``metrics.json`` (flat), ``report.md`` (tables, with intervals),
    ``per_video.csv``, and pictures of the first clips.

    All shares (FG-ARI, mBO, mIoU, identity) are fractions, as papers on slots give them; J, F and
    J&F are percent; PSNR is dB.

    Args:
        output_dir: where the files go; created when they are written.
        num_slots: clusters of k-means.
        mask_source: masks whose grid bounds the segmentation, see ``MODEL.SLOT_BERT.MASK_SOURCE``.
        first_frame: whether the first frame of a clip counts.
        with_baselines: whether k-means and the ceiling of the mask grid are scored.
        num_pictures: clips that are drawn.
        num_resamples: resamplings of the clips behind the intervals; 0 for none.
        dataset_name: for messages.
    """

    headline = (
        "video/FG-ARI",
        "video/mBO",
        "video/mIoU",
        "image/FG-ARI",
        "identity/consistency",
        "reconstruction/PSNR",
        "slots/used_slots",
        "dropped/relative_error",
    )

    def __init__(
        self,
        output_dir: Path,
        *,
        num_slots: int,
        mask_source: str = "attn",
        first_frame: bool = True,
        with_baselines: bool = True,
        num_pictures: int = 0,
        num_resamples: int = 1000,
        dataset_name: str = "the data set",
    ) -> None:
        self._output_dir = Path(output_dir)
        self._num_slots = num_slots
        self._mask_source = mask_source
        self._first_frame = first_frame
        self._with_baselines = with_baselines
        self._num_pictures = num_pictures
        self._num_resamples = num_resamples
        self._dataset_name = dataset_name
        self.reset()

    @classmethod
    def from_config(cls, cfg: CfgNode, metadata: Metadata, output_dir: Path) -> dict[str, Any]:
        """See the base class; reads ``TEST.SLOT_BERT``.

        Raises:
            ConfigError: if a number is negative.
        """
        node = cfg.TEST.SLOT_BERT
        for key in ("NUM_PICTURES", "BOOTSTRAP"):
            if node[key] < 0:
                raise ConfigError(f"TEST.SLOT_BERT.{key} is {node[key]}; set 0 or more")
        return {
            "output_dir": output_dir,
            "num_slots": cfg.MODEL.SLOT_BERT.ATTENTION.NUM_SLOTS,
            "mask_source": cfg.MODEL.SLOT_BERT.MASK_SOURCE,
            "first_frame": node.FIRST_FRAME,
            "with_baselines": node.BASELINES,
            "num_pictures": node.NUM_PICTURES,
            "num_resamples": node.BOOTSTRAP,
            "dataset_name": metadata.name,
        }

    def reset(self) -> None:
        """Forgets all predictions."""
        super().reset()
        self._num_drawn: int | None = None

    def encode(self, sample: dict[str, Any], prediction: Mapping[str, Any]) -> dict[str, Any]:
        """Scores a clip, and draws the first ones.

        Args:
            sample: ``frames`` ``(T, C, H, W)``; ``label_maps`` ``(T, H, W)`` (0 background, k an
                object, -1 unknown), None or missing without truth; ``dropped`` bool ``(T,)`` if
                frames were not looked at.
            prediction: ``segmentation`` ``(T, H, W)``; the rest is scored if it is there, see
                ``score_clip``.

        Raises:
            DataError: if truth and prediction differ in size.
            UserError: if the model gives no numbers; that is the model and not the clip.
        """
        prediction = {name: torch.as_tensor(value) for name, value in prediction.items()}
        scores = score_clip(
            sample,
            prediction,
            num_slots=self._num_slots,
            mask_source=self._mask_source,
            with_baselines=self._with_baselines,
        )
        return {"scores": scores, _PICTURED: self._draw(sample, prediction)}

    def score(self, results: Mapping[Any, Any]) -> Metrics:
        """Writes the files and gives the metrics by group.

        ``video``, ``image``, ``identity``, ``solv`` (see ``merged_shares``) and ``baselines`` if
        there is truth, ``reconstruction`` and ``slots`` if the model tells of them, ``dropped`` if
        frames were dropped. What is undefined is nan.
        """
        start = 0 if self._first_frame else 1
        clips = {name: result["scores"][start] for name, result in results.items()}
        split = SplitScores(self._with_complete(clips))
        figures = split.figures(self._num_resamples)
        if not figures:
            logger.warning("%s: no clip was predicted, nothing to score", self._dataset_name)
            return {"video": {}}
        model = figures[MODEL]
        metrics: Metrics = {}
        for group in _GROUPS:
            found = {
                name.removeprefix(f"{group}/"): figure
                for name, figure in model.items()
                if name.startswith(f"{group}/")
            }
            for name, (value, low, high) in found.items():
                metrics.setdefault(group, {}).update(
                    {name: value, f"{name}_low": low, f"{name}_high": high}
                )
        for method in (*KMEANS, CEILING):
            for name, figure in figures.get(method, {}).items():
                flat = f"{method}_{name.replace('/', '_')}"
                metrics.setdefault("baselines", {})[flat] = figure.value
        for name, figure in model.items():
            if name.startswith("margin/"):
                metrics["baselines"][name.replace("/", "_")] = figure.value
        report = Report(self._dataset_name, split, figures, self._warn(metrics.get("slots", {})))
        self._write(report, metrics)
        return metrics

    def _with_complete(self, clips: dict[Any, Any]) -> dict[Any, Any]:
        """Leaves out baselines that some clips have no scores of: clips would differ by method.

        That is so if an evaluation was stopped and goes on with another setting.
        """
        known = [clip.keys() for clip in clips.values() if "video/FG-ARI" in clip[MODEL]]
        common = set.intersection(*map(set, known)) if known else set()
        kept = {MODEL, *(common if self._with_baselines else ())}
        return {
            name: {method: shares for method, shares in clip.items() if method in kept}
            for name, clip in clips.items()
        }

    def _write(self, report: Report, metrics: Metrics) -> None:
        path = self._output_dir / "report.md"
        text = format_report(report)
        write_text(path, text)
        logger.info("%s: %s\n%s", self._dataset_name, path, text)
        write_text(self._output_dir / "per_video.csv", clip_csv(report))
        flat = {f"{task}/{name}": value for task, m in metrics.items() for name, value in m.items()}
        write_metrics(self._output_dir / "metrics.json", flat)

    def _warn(self, slots: Mapping[str, float]) -> list[str]:
        """Says what is wrong with the slots, if it is."""
        if not {"used_slots", "slot_cosine"} <= slots.keys():
            return []
        warnings = collapse_warnings(slots)
        for text in warnings:
            logger.warning("%s: %s", self._dataset_name, text)
        return warnings

    def _draw(self, sample: dict[str, Any], prediction: Mapping[str, Any]) -> bool:
        """Draws a clip, if it is among the first; tells whether."""
        if not (self._num_pictures and is_main()):
            return False
        if self._num_drawn is None:  # some may have been drawn before the evaluation was stopped
            self._num_drawn = sum(bool(one[_PICTURED]) for one in self.results.values())
        if self._num_drawn >= self._num_pictures:
            return False
        from .pictures import save_clip_pictures  # on demand: it needs pillow and a video writer

        make_folder(self._output_dir, "folder of the evaluation")
        save_clip_pictures(self._output_dir, sample, prediction)
        self._num_drawn += 1
        return True
