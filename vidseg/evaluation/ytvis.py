"""YouTube-VIS AP and AR, with the occlusion levels of OVIS.

Own code on pycocotools' RLE; equal to the official evaluators to the last bit. It needs neither a
model nor torch. Values are fractions; what does not exist (no ground truth in that range) is nan.

Source: Yang et al., "Video Instance Segmentation", ICCV 2019; Qi et al., "Occluded Video Instance
Segmentation", IJCV 2022.

Shapes: T IoU thresholds, R recall levels, K classes, A area ranges, O occlusion ranges, M
detection limits, L = A * O, P pairs of tracks.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidseg.errors import DataError

from .ytvis_files import GroundTruth, Track, load_ground_truth, load_results
from .ytvis_groups import GroupedTracks, check_masks, measure_tracks, pairs_in_groups
from .ytvis_matching import (
    AREA_RANGES,
    DETECTION_LIMITS,
    OCCLUSION_RANGES,
    MatchedTracks,
    Ranges,
    match_tracks,
)

__all__ = ["METRICS", "OVIS_METRICS", "Metric", "YTVISScores", "evaluate_ytvis", "score_ytvis"]

logger = logging.getLogger(__name__)

ALL_CLASSES = "all classes"  # name of the single class of a class-agnostic evaluation


@dataclass(frozen=True)
class Metric:
    """One line of the report: a mean over a part of the precision or recall array.

    Args:
        name: short name, e.g. ``"APs"``.
        is_recall: average recall instead of average precision.
        iou: index of the IoU threshold, ``None`` for the mean over all.
        area: area range.
        occlusion: occlusion range.
        limit: predictions per video and class that take part.
    """

    name: str
    is_recall: bool = False
    iou: int | None = None
    area: str = "all"
    occlusion: str = "all"
    limit: int = 100


_PRECISION = (
    Metric("AP"),
    Metric("AP50", iou=0),
    Metric("AP75", iou=5),
    Metric("APs", area="small"),
    Metric("APm", area="medium"),
    Metric("APl", area="large"),
)
_RECALL = (
    Metric("AR1", is_recall=True, limit=1),
    Metric("AR10", is_recall=True, limit=10),
    Metric("AR100", is_recall=True),
    Metric("ARs", is_recall=True, area="small"),
    Metric("ARm", is_recall=True, area="medium"),
    Metric("ARl", is_recall=True, area="large"),
)
_LEVELS = {"so": "light", "mo": "medium", "ho": "heavy"}

METRICS = _PRECISION + _RECALL
OVIS_METRICS = (
    *_PRECISION,
    *(Metric(f"AP{key}", occlusion=level) for key, level in _LEVELS.items()),
    *_RECALL,
    *(Metric(f"AR{key}", is_recall=True, occlusion=level) for key, level in _LEVELS.items()),
)


@dataclass
class YTVISScores:
    """All that one evaluation found; -1 in the arrays marks cells without ground truth.

    Args:
        category_ids: the K classes, ascending.
        category_names: their names, all of them different.
        precision: float64 ``(T, R, K, A, M)``; with occlusion levels ``(T, R, K, A, O, M)``.
        recall: float64 ``(T, K, A, M)`` or ``(T, K, A, O, M)``.
        scores: score at which a recall level is reached, shaped as ``precision``.
        matched: what they were counted from; classes are numbered by ascending id.
        has_occlusion: whether the arrays have the axis O.
    """

    category_ids: list[Any]
    category_names: list[str]
    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray
    matched: MatchedTracks
    has_occlusion: bool = False

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The lines of the report."""
        return OVIS_METRICS if self.has_occlusion else METRICS

    def value(self, metric: Metric, *, category: int | None = None) -> float:
        """Gives one metric as a fraction, nan where undefined.

        Args:
            metric: which.
            category: index of a class, ``None`` for the mean over all.
        """
        array = self.recall if metric.is_recall else self.precision
        array = array[..., DETECTION_LIMITS.index(metric.limit)]
        if self.has_occlusion:
            array = array[..., list(OCCLUSION_RANGES).index(metric.occlusion)]
        array = array[..., list(AREA_RANGES).index(metric.area)]
        if metric.iou is not None:
            array = array[metric.iou]
        if category is not None:
            array = array[..., category]
        defined = array[array > -1]
        return float(np.mean(defined)) if defined.size else float("nan")

    def summary(self) -> dict[str, float]:
        """Gives all metrics by name."""
        return {metric.name: self.value(metric) for metric in self.metrics}

    def per_class(self, metric: Metric = METRICS[0]) -> dict[str, float]:
        """Gives one metric by class name."""
        return {name: self.value(metric, category=k) for k, name in enumerate(self.category_names)}

    def per_video(self) -> dict[Any, dict[str, float]]:
        """Gives AP, AP50 and AP75 of each video alone by its id.

        They are means over the classes that are annotated in it, nan if there is none.
        """
        figures = {}
        for number, video_id in enumerate(self.matched.video_ids):
            precision = self.matched.video_precision(number)  # (T, R, K)
            parts = {"AP": precision, "AP50": precision[0], "AP75": precision[5]}
            figures[video_id] = {
                name: float(part.mean()) if part.size else float("nan")
                for name, part in parts.items()
            }
        return figures


def evaluate_ytvis(
    gt: str | os.PathLike[str] | Mapping[str, Any],
    results: str | os.PathLike[str] | Sequence[Mapping[str, Any]],
    *,
    class_agnostic: bool = False,
    occlusion: bool = False,
    strict: bool = False,
) -> dict[str, float]:
    """Scores predicted tracks against annotated ones.

    An empty list of predictions is scored as "nothing was found": 0 where there is ground truth.

    Args:
        gt: annotations in YouTube-VIS form, a path or loaded json; never modified.
        results: list of ``{video_id, category_id, score, segmentations}``, a path or loaded json.
        class_agnostic: whether all classes are merged into one.
        occlusion: whether to add the occlusion levels of OVIS.
        strict: whether to repeat the fault of the official evaluator by which a prediction that
            matches the annotation with id 0 counts as wrong.

    Returns:
        AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl; with ``occlusion`` also
        APso, APmo, APho, ARso, ARmo, ARho: fractions, nan where undefined.

    Raises:
        DataError: if a file is missing or broken, if there are no annotations, or if a prediction
            names a video that the ground truth lacks.
    """
    return score_ytvis(
        gt, results, class_agnostic=class_agnostic, occlusion=occlusion, strict=strict
    ).summary()


def score_ytvis(
    gt: str | os.PathLike[str] | Mapping[str, Any],
    results: str | os.PathLike[str] | Sequence[Mapping[str, Any]],
    *,
    class_agnostic: bool = False,
    occlusion: bool = False,
    strict: bool = False,
) -> YTVISScores:
    """Does the work of ``evaluate_ytvis`` and gives all that it found.

    Args:
        gt: see there, as for the other arguments.
        results: see there.
        class_agnostic: see there.
        occlusion: see there.
        strict: see there.

    Raises:
        DataError: see there.
    """
    with _no_garbage_collection():
        return _score(
            gt, results, class_agnostic=class_agnostic, occlusion=occlusion, strict=strict
        )


def _score(
    gt: Any, results: Any, *, class_agnostic: bool, occlusion: bool, strict: bool
) -> YTVISScores:
    truth = load_ground_truth(gt, occlusion=occlusion)
    predictions = load_results(results, truth)
    _warn(truth, predictions, occlusion=occlusion, strict=strict)
    all_classes = dict.fromkeys(truth.category_ids, 0)
    classes = all_classes if class_agnostic else {k: i for i, k in enumerate(all_classes)}
    ranges = Ranges.build(occlusion=occlusion)
    matched = _match(truth, predictions, classes, ranges, strict=strict)
    curves = [matched.curves(number) for number in range(max(classes.values(), default=-1) + 1)]
    precision, recall, scores = (
        _unflatten(np.stack(parts, axis=-3), occlusion=occlusion)
        for parts in zip(*curves, strict=True)
    )
    ids = [0] if class_agnostic else truth.category_ids
    names = [ALL_CLASSES] if class_agnostic else [truth.category_names[key] for key in ids]
    return YTVISScores(ids, names, precision, recall, scores, matched, has_occlusion=occlusion)


def _match(
    truth: GroundTruth,
    predictions: Sequence[Track],
    classes: Mapping[Any, int],
    ranges: Ranges,
    *,
    strict: bool,
) -> MatchedTracks:
    """Finds what became of every prediction.

    Args:
        truth: annotations.
        predictions: predicted tracks.
        classes: category id -> class, by ascending id; several categories may form one class.
        ranges: what is scored.
        strict: see ``evaluate_ytvis``.
    """
    videos = {video: number for number, video in enumerate(truth.video_ids)}
    known = [track for track in truth.tracks if track.category_id in classes]
    theirs = GroupedTracks(known, videos, classes)
    # classes without any ground truth are undefined whatever was predicted
    annotated = {track.category_id for track in theirs.tracks}
    annotated = {key for key in classes if classes[key] in {classes[one] for one in annotated}}
    ours = GroupedTracks(
        [track for track in predictions if track.category_id in annotated],
        videos,
        classes,
        limit=DETECTION_LIMITS[-1],
    )
    pairs = pairs_in_groups(ours.groups, theirs.groups)
    try:
        areas, ious = measure_tracks(ours, theirs, pairs)
        looked_at = {id(track) for track in (*ours.tracks, *theirs.tracks)}
        check_masks([t for t in (*truth.tracks, *predictions) if id(t) not in looked_at])
    except ValueError as error:
        raise DataError(str(error)) from None
    ignored = ranges.ignored(
        np.array([track.area for track in theirs.tracks], dtype=np.float64),
        np.array([track.occlusion for track in theirs.tracks], dtype=np.float64),
        is_crowd := np.array([track.is_crowd for track in theirs.tracks], dtype=bool),
    )
    has_id_zero = np.array([track.id == 0 for track in theirs.tracks], dtype=bool)
    matches = match_tracks(
        pairs,
        ious,
        groups=ours.groups,
        outside=ranges.outside_area(areas),
        ignored=ignored,
        is_crowd=is_crowd,
        forgotten=has_id_zero if strict else None,
    )
    scores = np.array([track.score for track in ours.tracks], dtype=np.float64)
    return MatchedTracks(truth.video_ids, ours.groups, scores, matches, theirs.groups, ~ignored)


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keeps the collector from walking over a million masks again and again; no cycles arise."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _unflatten(array: np.ndarray, *, occlusion: bool) -> np.ndarray:
    """Splits the axis L, the last but one, into A and O."""
    if not occlusion:
        return array
    shape = (*array.shape[:-2], len(AREA_RANGES), len(OCCLUSION_RANGES), array.shape[-1])
    return array.reshape(shape)


def _warn(
    truth: GroundTruth, predictions: Sequence[Track], *, occlusion: bool, strict: bool
) -> None:
    if not predictions:
        logger.warning("no predictions of known classes: every annotated track counts as missed")
    if not truth.tracks:
        logger.warning("%s has no annotated tracks: every metric is undefined", truth.name)
    if any(track.id == 0 for track in truth.tracks):
        logger.warning(
            "%s has an annotation with id 0: %s",
            truth.name,
            "its match counts as wrong, as in the official evaluator"
            if strict
            else "the official evaluator would count its match as wrong",
        )
    if occlusion and not any(track.has_occlusion for track in truth.tracks):
        logger.warning("%s gives no occlusion level: all tracks count as unoccluded", truth.name)
