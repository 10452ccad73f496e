"""Scores files of tracks in YouTube-VIS form by HOTA, CLEAR and Identity.

Tracks are compared within their class. The figures of a whole set are given twice: as means over
classes, and from the counts of all classes together, where frequent classes weigh more.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidseg import rle as rle_ops
from vidseg.errors import DataError

from .report import in_percent
from .tracking_metrics import FAMILIES, Counts, MetricFamily, TrackedSequence
from .tube_iou import Tubes
from .ytvis import ALL_CLASSES
from .ytvis_files import GroundTruth, Track, load_ground_truth, load_results
from .ytvis_groups import measure_masks

__all__ = ["BACKENDS", "HEADLINE", "PLAIN", "TrackingScores", "score_tracking"]

HEADLINE = ("HOTA", "DetA", "AssA", "LocA", "MOTA", "MOTP", "IDSW", "Frag", "IDF1", "IDR", "IDP")
"""Metrics that a table shows."""

_COUNTED = (
    *("CLR_TP", "CLR_FN", "CLR_FP", "IDSW", "MT", "PT", "ML", "Frag", "CLR_Frames"),
    *("IDTP", "IDFN", "IDFP"),
)
PLAIN = (*_COUNTED, "FP_per_frame")
"""Metrics that are no fractions."""

BACKENDS = ("vidseg", "trackeval")
"""Whose code works the figures out."""


@dataclass
class TrackingScores:
    """What ``score_tracking`` found; fractions, but for those in ``PLAIN``.

    Args:
        class_averaged: mean over the classes that are annotated or predicted (TrackEval counts
            others as 0); counts are sums.
        detection_averaged: from the counts of all classes.
        per_class: metrics by the name of the class.
        per_video: metrics by video id, from the counts of all its classes.
    """

    class_averaged: dict[str, float]
    detection_averaged: dict[str, float]
    per_class: dict[str, dict[str, float]]
    per_video: dict[Any, dict[str, float]]

    def means(self) -> dict[str, dict[str, float]]:
        """Gives both means by what a table calls them."""
        return {
            "mean over classes": self.class_averaged,
            "all detections": self.detection_averaged,
        }

    def rows(self) -> dict[str, dict[str, float]]:
        """Gives the rows of a table: the means, and every class."""
        return self.means() | self.per_class

    def percent_metrics(self) -> dict[str, float]:
        """Gives both means under flat names, fractions in percent."""
        every = in_percent(self.detection_averaged, plain=PLAIN)
        metrics = in_percent(self.class_averaged, plain=PLAIN)
        return metrics | {f"all_detections/{name}": value for name, value in every.items()}


def score_tracking(
    gt: str | os.PathLike[str] | Mapping[str, Any],
    results: str | os.PathLike[str] | Sequence[Mapping[str, Any]],
    *,
    class_agnostic: bool = False,
    min_score: float = -math.inf,
    strict: bool = False,
    backend: str = BACKENDS[0],
) -> TrackingScores:
    """Scores predicted tracks against annotated ones.

    Scores of predictions are not looked at but for ``min_score``, and masks may overlap: every
    track counts in full, so a method is scored with the tracks that it would show. Crowds are
    annotations like others; tracks of unknown categories are left out.

    Args:
        gt: annotations in YouTube-VIS form, a path or loaded json; never modified.
        results: list of ``{video_id, category_id, score, segmentations}``, a path or loaded json.
        class_agnostic: whether all classes are merged into one.
        min_score: predictions with a lower score are left out.
        strict: whether to repeat the fault of TrackEval by which a mask without pixels is a
            detection, and a wrong one, unless it is written as null.
        backend: of ``BACKENDS``: whether to use the metrics of an installed TrackEval, which come
            to the same figures in more time.

    Raises:
        UserError: if TrackEval is wanted and cannot be imported.
        DataError: if a file is missing or broken, there are no annotations, a prediction names a
            video that the ground truth lacks or goes on after the end of its video, or the masks
            of a video differ in size.
    """
    families: tuple[MetricFamily, ...] = FAMILIES
    if backend == "trackeval":
        from .trackeval_adapter import trackeval_families  # an extra

        families = trackeval_families()
    truth = load_ground_truth(gt)
    found = [one for one in load_results(results, truth) if one.score >= min_score]
    source = "the results" if not isinstance(results, (str, os.PathLike)) else str(results)
    groups: dict[tuple[Any, Any], tuple[list[Track], list[Track]]] = defaultdict(lambda: ([], []))
    annotated = [track for track in truth.tracks if track.category_id in truth.category_names]
    for side, tracks in enumerate((annotated, found)):
        for track in tracks:
            key = ALL_CLASSES if class_agnostic else track.category_id
            groups[track.video_id, key][side].append(track)
    counts: dict[tuple[Any, Any], list[Counts]] = {}
    for (video_id, key), pair in sorted(groups.items(), key=lambda item: item[0][0]):
        sequence = _sequence(truth, source, video_id, *pair, strict=strict)
        counts[video_id, key] = [family.count(sequence) for family in families]
    by_class = {
        key: _metrics(families, (part for (_, of), part in counts.items() if of == key))
        for key in ([ALL_CLASSES] if class_agnostic else truth.category_ids)
        if any(of == key for _, of in counts)
    }
    per_video = {
        video_id: _metrics(families, (part for (of, _), part in counts.items() if of == video_id))
        for video_id in dict.fromkeys(video_id for video_id, _ in counts)
    }
    every = _metrics(families, counts.values())
    averaged = {
        name: sum(one[name] for one in by_class.values())
        / (1 if name in _COUNTED else max(1, len(by_class)))
        for name in every
    }
    names = truth.category_names | {ALL_CLASSES: ALL_CLASSES}
    per_class = {names[key]: one for key, one in by_class.items()}
    return TrackingScores(averaged, every, per_class, per_video)


def _metrics(
    families: Sequence[MetricFamily], parts: Iterable[Sequence[Counts]]
) -> dict[str, float]:
    """Adds the counts of some sequences and gives all metrics, HOTA first."""
    nothing = TrackedSequence(np.zeros((0, 0, 0)), np.zeros((0, 0), bool), np.zeros((0, 0), bool))
    by_family = list(zip(*parts, strict=True)) or [(one.count(nothing),) for one in families]
    metrics: dict[str, float] = {}
    counted: dict[str, float] = {}
    for family, of_sequences in zip(families, by_family, strict=True):
        total = family.add(of_sequences)
        metrics |= family.finish(total)
        counted |= {name: float(total[name]) for name in _COUNTED if name in total}
    return metrics | counted


def _sequence(
    truth: GroundTruth,
    source: str,
    video_id: Any,
    annotated: list[Track],
    found: list[Track],
    *,
    strict: bool,
) -> TrackedSequence:
    """Compares the masks of two lists of tracks of one video."""
    length = truth.video_lengths.get(video_id)
    if length is None:
        length = max((len(track.masks) for track in annotated + found), default=0)
    sides = []
    for tracks in (annotated, found):
        for track in tracks:
            if len(track.masks) > length:
                raise DataError(
                    f"{track.where}, video {video_id!r}: a track has {len(track.masks)} masks, the "
                    f"video {length} frames"
                )
        try:
            tubes = measure_masks(tracks)
        except ValueError as error:
            raise DataError(str(error)) from None
        sides.append((tubes, _visible(tubes, length, strict=strict)))
    sizes = np.unique(np.concatenate([tubes.sizes for tubes, _ in sides]))
    sizes = sizes[sizes > 0]
    if len(sizes) > 1:
        named = " and ".join(f"{size >> 32}x{size & 0xFFFFFFFF}" for size in sizes[:2].tolist())
        raise DataError(
            f"{source}, video {video_id!r}: masks of {named} pixels (height x width) in one video "
            "cannot be compared; predict at the size of the video"
        )
    (rows, in_truth), (columns, in_found) = sides
    # a track that is never visible is none
    starts = [tubes.starts[visible.any(0)] for tubes, visible in sides]
    in_truth, in_found = (visible[:, visible.any(0)] for visible in (in_truth, in_found))
    overlaps = np.zeros((length, len(starts[0]), len(starts[1])))
    for frame in range(length):
        row, column = np.flatnonzero(in_truth[frame]), np.flatnonzero(in_found[frame])
        masks = (
            [tubes.masks[start] for start in (first[chosen] + frame).tolist()]
            for tubes, first, chosen in zip((rows, columns), starts, (row, column), strict=True)
        )
        overlaps[frame][np.ix_(row, column)] = rle_ops.iou(*masks)  # type: ignore[arg-type]
    return TrackedSequence(overlaps, in_truth, in_found)


def _visible(tubes: Tubes, length: int, *, strict: bool) -> np.ndarray:
    """Tells in which frames tracks have pixels, or, if strict, a mask; bool ``(T, N)``."""
    visible = np.zeros((length, len(tubes)), dtype=bool)
    is_there = (tubes.sizes if strict else tubes.areas) > 0
    for track, (start, size) in enumerate(zip(tubes.starts, tubes.lengths, strict=True)):
        visible[:size, track] = is_there[start : start + size]
    return visible
