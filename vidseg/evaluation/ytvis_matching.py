"""Assignment of predicted tracks to annotated ones, and what follows from it for AP.

Shapes: D predictions and G ground truths of one video and class, L ranges (area, or area and
occlusion), T IoU thresholds, K classes, R recall levels, M detection limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "AREA_RANGES",
    "DETECTION_LIMITS",
    "IOU_THRESHOLDS",
    "OCCLUSION_RANGES",
    "RECALL_LEVELS",
    "Matches",
    "Ranges",
    "accumulate",
    "match_tracks",
]

# linspace, not arange: its values differ in the last bit, which decides exact hits such as 0.95
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_LEVELS = np.linspace(0.0, 1.0, 101)
DETECTION_LIMITS = (1, 10, 100)
AREA_RANGES = {
    "all": (0.0, 1e10),
    "small": (0.0, 128.0**2),
    "medium": (128.0**2, 256.0**2),
    "large": (256.0**2, 1e10),
}
OCCLUSION_RANGES = {
    "all": (0.0, 1.0),
    "light": (0.0, 0.25),
    "medium": (0.25, 0.5),
    "heavy": (0.5, 1.0),
}


@dataclass(frozen=True)
class Ranges:
    """The ranges that a score is reported for, flattened to one axis of length L.

    Args:
        areas: lower and upper mean area in pixels, both included, float64 ``(L, 2)``.
        occlusions: lower and upper occlusion score, both included, float64 ``(L, 2)``.
    """

    areas: np.ndarray
    occlusions: np.ndarray

    @classmethod
    def build(cls, *, occlusion: bool) -> Ranges:
        """Crosses the area ranges with the occlusion ranges (or with none)."""
        levels = list(OCCLUSION_RANGES.values()) if occlusion else [OCCLUSION_RANGES["all"]]
        pairs = [(area, level) for area in AREA_RANGES.values() for level in levels]
        return cls(np.array([area for area, _ in pairs]), np.array([level for _, level in pairs]))

    def __len__(self) -> int:
        """Number of ranges L."""
        return len(self.areas)

    def outside_area(self, areas: np.ndarray) -> np.ndarray:
        """Says for which ranges a mean area is out of range: ``(N,)`` to bool ``(L, N)``."""
        return _outside(areas, self.areas)

    def ignored(
        self, areas: np.ndarray, occlusions: np.ndarray, is_crowd: np.ndarray
    ) -> np.ndarray:
        """Says for which ranges ground truths do not count: three ``(G,)`` to bool ``(L, G)``."""
        outside = _outside(areas, self.areas) | _outside(occlusions, self.occlusions)
        return outside | is_crowd


@dataclass
class Matches:
    """What became of the predictions of one video and class, or of several put together.

    Args:
        scores: float64 ``(D,)``, descending within a video.
        ranks: place of each prediction in its video and class, from 0, int64 ``(D,)``.
        is_hit: matched to a counted ground truth, bool ``(L, T, D)``.
        is_ignored: neither right nor wrong, bool ``(L, T, D)``.
        num_truths: counted ground truths, int64 ``(L,)``.
    """

    scores: np.ndarray
    ranks: np.ndarray
    is_hit: np.ndarray
    is_ignored: np.ndarray
    num_truths: np.ndarray


def match_tracks(
    ious: np.ndarray,
    scores: np.ndarray,
    *,
    outside: np.ndarray,
    ignored: np.ndarray,
    is_crowd: np.ndarray,
    forgotten: np.ndarray | None = None,
) -> Matches:
    """Lets predictions choose ground truths, best score first, for all ranges and thresholds.

    A prediction takes the free counted ground truth of the largest IoU at or above the threshold,
    the later one among equals; only if there is none it may take an ignored one, and is then
    ignored itself. Crowds stay free. A prediction that takes nothing is ignored if its own area is
    out of range, and wrong otherwise.

    Args:
        ious: ``(D, G)``, rows by falling score; values below the lowest threshold may be anything
            below it.
        scores: ``(D,)``, descending.
        outside: whether the area of a prediction is out of range, bool ``(L, D)``.
        ignored: whether a ground truth does not count, bool ``(L, G)``.
        is_crowd: bool ``(G,)``.
        forgotten: ground truths whose match the official evaluator does not remember, bool
            ``(G,)``: the prediction then counts as unmatched while the ground truth stays taken.
    """
    shape = (len(ignored), len(IOU_THRESHOLDS))
    is_matched = np.zeros((*shape, len(scores)), dtype=bool)
    is_ignored = np.zeros_like(is_matched)
    is_free = np.ones((*shape, ious.shape[1]), dtype=bool)
    candidates = ious >= IOU_THRESHOLDS[0]
    for row in np.flatnonzero(candidates.any(axis=1)).tolist():
        columns = np.flatnonzero(candidates[row]).tolist()
        chosen = _choose(ious[row], columns, is_free, ignored)
        for column in columns:
            taken = chosen == column
            is_ignored[..., row] |= taken & ignored[:, column, None]
            if not is_crowd[column]:
                is_free[..., column] &= ~taken
            if forgotten is None or not forgotten[column]:
                is_matched[..., row] |= taken
    is_ignored |= outside[:, None] & ~is_matched
    return Matches(
        scores=scores,
        ranks=np.arange(len(scores)),
        is_hit=is_matched & ~is_ignored,
        is_ignored=is_ignored,
        num_truths=(~ignored).sum(axis=1),
    )


def accumulate(
    matches: Sequence[Matches], num_ranges: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turns the matches of one class in all videos into its precision and recall.

    Args:
        matches: per video, in ascending order of video ids (ties of scores keep that order).
        num_ranges: L.

    Returns:
        precision ``(T, R, L, M)``, recall ``(T, L, M)`` and the score at which a recall level is
        reached ``(T, R, L, M)``, float64; -1 where a range has no ground truth.
    """
    shape = (len(IOU_THRESHOLDS), len(RECALL_LEVELS), num_ranges, len(DETECTION_LIMITS))
    precision, recall, scores = -np.ones(shape), -np.ones((shape[0], *shape[2:])), -np.ones(shape)
    num_truths = sum((match.num_truths for match in matches), np.zeros(num_ranges, dtype=np.int64))
    counted = np.flatnonzero(num_truths)
    if len(counted) == 0:
        return precision, recall, scores
    ranks = np.concatenate([match.ranks for match in matches])
    all_scores = np.concatenate([match.scores for match in matches])
    hits = np.concatenate([match.is_hit[counted] for match in matches], axis=-1)
    ignored = np.concatenate([match.is_ignored[counted] for match in matches], axis=-1)
    order = np.argsort(-all_scores, kind="stable")
    for index, limit in enumerate(DETECTION_LIMITS):
        kept = order[ranks[order] < limit]
        curve = _curves(all_scores[kept], hits[..., kept], ignored[..., kept], num_truths[counted])
        precision[:, :, counted, index] = curve[0].transpose(1, 2, 0)
        recall[:, counted, index] = curve[1].T
        scores[:, :, counted, index] = curve[2].transpose(1, 2, 0)
    return precision, recall, scores


def _curves(
    scores: np.ndarray, hits: np.ndarray, ignored: np.ndarray, num_truths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gives precision ``(L, T, R)``, last recall ``(L, T)`` and scores ``(L, T, R)``."""
    shape = (*hits.shape[:2], len(RECALL_LEVELS))
    precision, reached = np.zeros(shape), np.zeros(shape)
    if hits.shape[2] == 0:
        return precision, np.zeros(shape[:2]), reached
    num_hits = np.cumsum(hits, axis=-1).astype(np.float64)
    num_wrong = np.cumsum(~hits & ~ignored, axis=-1).astype(np.float64)
    recall = num_hits / num_truths[:, None, None]
    # the tiny term guards 0 / 0, and makes a perfect precision one step smaller than 1
    raw = num_hits / (num_wrong + num_hits + np.spacing(1))
    falling = np.maximum.accumulate(raw[..., ::-1], axis=-1)[..., ::-1]
    for cell in np.ndindex(*shape[:2]):
        points = np.searchsorted(recall[cell], RECALL_LEVELS, side="left")
        points = points[points < len(scores)]  # levels that are never reached stay 0
        precision[cell][: len(points)] = falling[cell][points]
        reached[cell][: len(points)] = scores[points]
    return precision, recall[..., -1], reached


def _choose(
    ious: np.ndarray, columns: list[int], is_free: np.ndarray, ignored: np.ndarray
) -> np.ndarray:
    """Gives the ground truth that one prediction takes, int64 ``(L, T)``; -1 for none."""
    chosen = np.full(is_free.shape[:2], -1)
    best = np.zeros(chosen.shape)
    has_counted = np.zeros(chosen.shape, dtype=bool)
    for column in columns:
        counted = ~ignored[:, column, None]
        better = (counted & ~has_counted) | ((counted == has_counted) & (ious[column] >= best))
        better &= is_free[..., column] & (ious[column] >= IOU_THRESHOLDS)
        chosen[better], best[better] = column, ious[column]
        has_counted |= better & counted
    return chosen


def _outside(values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    return (values < bounds[:, :1]) | (values > bounds[:, 1:])
