"""Assignment of predicted tracks to annotated ones, and what follows from it for AP.

Shapes: N predictions and G ground truths, D predictions of one class, P pairs, L ranges (area, or
area and occlusion), T IoU thresholds, R recall levels, M detection limits.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from vidseg.mask_runs import ranks_in_groups

__all__ = [
    "AREA_RANGES",
    "DETECTION_LIMITS",
    "IOU_THRESHOLDS",
    "OCCLUSION_RANGES",
    "RECALL_LEVELS",
    "MatchedTracks",
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
    """What became of N predictions.

    Args:
        is_hit: matched to a counted ground truth, bool ``(N, L, T)``.
        is_ignored: neither right nor wrong, bool ``(N, L, T)``.
    """

    is_hit: np.ndarray
    is_ignored: np.ndarray


@dataclass
class MatchedTracks:
    """All that precision and recall are counted from: N predictions, G ground truths.

    A group is a class in a video, numbered ``class * len(video_ids) + video``.

    Args:
        video_ids: ascending.
        groups: of the predictions, ascending, and within a group by falling score, int64 ``(N,)``.
        scores: of the predictions, float64 ``(N,)``.
        matches: of the predictions.
        truth_groups: of the ground truths, ascending, int64 ``(G,)``.
        is_counted: ground truths that are to be found, bool ``(L, G)``.
    """

    video_ids: list[Any]
    groups: np.ndarray
    scores: np.ndarray
    matches: Matches
    truth_groups: np.ndarray
    is_counted: np.ndarray

    def curves(
        self, number: int, *, video: int | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gives precision, recall and scores of a class, see ``accumulate``.

        Args:
            number: of the class.
            video: number of the video that is looked at alone; all by default.
        """
        num_videos = len(self.video_ids)
        first = number * num_videos + (video or 0)
        bounds = [first, first + (num_videos if video is None else 1)]
        mine = slice(*np.searchsorted(self.groups, bounds))
        theirs = slice(*np.searchsorted(self.truth_groups, bounds))
        matches = Matches(self.matches.is_hit[mine], self.matches.is_ignored[mine])
        num_truths = self.is_counted[:, theirs].sum(axis=1)
        return accumulate(
            self.scores[mine], ranks_in_groups(self.groups[mine]), matches, num_truths
        )

    def video_precision(self, video: int) -> np.ndarray:
        """Gives the precision of each class that a video alone has: ``(T, R, K)``, K may be 0.

        Args:
            video: its number.
        """
        num_videos = len(self.video_ids)
        of_video = self.truth_groups % num_videos == video
        groups = np.unique(self.truth_groups[of_video & self.is_counted[0]])
        shape = (len(IOU_THRESHOLDS), len(RECALL_LEVELS), 0)
        curves = [self.curves(group // num_videos, video=video)[0] for group in groups.tolist()]
        parts = [curve[:, :, :1, -1] for curve in curves]
        return np.concatenate([np.zeros(shape), *parts], axis=2)

    def best_score(self) -> float:
        """Gives the score from which on predictions have the best F1 at the lowest IoU threshold.

        All classes are counted together. Without any hit, as many predictions as there are ground
        truths have that score; without predictions, ``-inf``.
        """
        order = np.argsort(-self.scores, kind="stable")
        hits = np.cumsum(self.matches.is_hit[order, 0, 0])
        wrong = ~self.matches.is_hit[order, 0, 0] & ~self.matches.is_ignored[order, 0, 0]
        scores = self.scores[order]
        is_last = np.append(scores[1:] != scores[:-1], True)[: len(scores)]  # of equal scores
        num_truths = self.is_counted[0].sum()
        if not hits.any():
            return float(scores[: max(1, num_truths)][-1]) if len(scores) else -np.inf
        f1 = 2 * hits / (hits + np.cumsum(wrong) + num_truths)
        return float(scores[np.where(is_last, f1, -1).argmax()])


def match_tracks(
    pairs: np.ndarray,
    ious: np.ndarray,
    *,
    groups: np.ndarray,
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
        pairs: numbers of a prediction and a ground truth of its group, int64 ``(2, P)``, ascending;
            pairs that are left out do not overlap enough.
        ious: ``(P,)``.
        groups: number of the video and class of each prediction, whose predictions follow each
            other by falling score, int64 ``(N,)``.
        outside: whether the area of a prediction is out of range, bool ``(L, N)``.
        ignored: whether a ground truth does not count, bool ``(L, G)``.
        is_crowd: bool ``(G,)``.
        forgotten: ground truths whose match the official evaluator does not remember, bool
            ``(G,)``: the prediction then counts as unmatched while the ground truth stays taken.
    """
    rows, columns, values = *pairs[:, ious >= IOU_THRESHOLDS[0]], ious[ious >= IOU_THRESHOLDS[0]]
    shape = (len(ignored), len(IOU_THRESHOLDS))
    is_matched = np.zeros((len(groups), *shape), dtype=bool)
    is_ignored = np.zeros_like(is_matched)
    is_free = np.ones((ignored.shape[1], *shape), dtype=bool)
    # Groups do not touch each other: the first predictions of all groups choose at once, then the
    # second ones, and so on.
    live, first, place = np.unique(rows, return_index=True, return_inverse=True)
    turns = ranks_in_groups(groups[live])
    nth = np.arange(len(rows)) - first[place]
    order = np.lexsort((nth, turns[place]))
    ends = np.searchsorted(turns[place][order], np.arange(turns.max(initial=-1) + 2))
    for start, stop in pairwise(ends):
        part = order[start:stop]
        choosing, index = np.unique(rows[part], return_inverse=True)
        chosen = _choose(index, columns[part], values[part], nth[part], is_free, ignored)
        row, level, threshold = np.nonzero(chosen >= 0)
        taken, row = chosen[row, level, threshold], choosing[row]
        is_free[taken, level, threshold] = is_crowd[taken]
        is_ignored[row, level, threshold] = ignored[level, taken]
        is_matched[row, level, threshold] = True if forgotten is None else ~forgotten[taken]
    is_ignored |= outside.T[..., None] & ~is_matched
    return Matches(is_matched & ~is_ignored, is_ignored)


def accumulate(
    scores: np.ndarray, ranks: np.ndarray, matches: Matches, num_truths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turns the matches of one class in all videos into its precision and recall.

    Args:
        scores: of the predictions, by ascending video id, as ties keep that order, float64
            ``(D,)``.
        ranks: place of each prediction in its video, from 0, int64 ``(D,)``.
        matches: of these predictions.
        num_truths: counted ground truths, int64 ``(L,)``.

    Returns:
        precision ``(T, R, L, M)``, recall ``(T, L, M)`` and the score at which a recall level is
        reached ``(T, R, L, M)``, float64; -1 where a range has no ground truth.
    """
    shape = (
        len(IOU_THRESHOLDS),
        len(RECALL_LEVELS),
        len(num_truths),
        len(DETECTION_LIMITS),
    )
    precision, recall, reached = -np.ones(shape), -np.ones((shape[0], *shape[2:])), -np.ones(shape)
    counted = np.flatnonzero(num_truths)
    if len(counted) == 0:
        return precision, recall, reached
    order = np.argsort(-scores, kind="stable")
    hits, ignored = matches.is_hit[order][:, counted], matches.is_ignored[order][:, counted]
    curve, num_kept = None, -1
    for index, limit in enumerate(DETECTION_LIMITS):
        kept = ranks[order] < limit
        if curve is None or kept.sum() != num_kept:  # else a higher limit that adds nothing
            curve = _curves(scores[order][kept], hits[kept], ignored[kept], num_truths[counted])
            num_kept = kept.sum()
        precision[:, :, counted, index] = curve[0].transpose(1, 2, 0)
        recall[:, counted, index] = curve[1].T
        reached[:, :, counted, index] = curve[2].transpose(1, 2, 0)
    return precision, recall, reached


def _curves(
    scores: np.ndarray, hits: np.ndarray, ignored: np.ndarray, num_truths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gives precision ``(L, T, R)``, last recall ``(L, T)`` and scores ``(L, T, R)``."""
    num_hits = np.cumsum(hits, axis=0)  # (D, L, T)
    num_wrong = np.cumsum(~hits & ~ignored, axis=0)
    # the tiny term guards 0 / 0, and makes a perfect precision one step smaller than 1
    raw = num_hits / (num_wrong + num_hits + np.spacing(1))
    falling = np.zeros((len(scores) + 1, *hits.shape[1:]))  # levels that are never reached stay 0
    falling[:-1] = np.maximum.accumulate(raw[::-1], axis=0)[::-1]
    # the point at which a number of hits is reached, for every number
    points = np.full((*hits.shape[1:], num_truths.max() + 1), len(scores))
    points[..., 0] = 0
    place, level, threshold = np.nonzero(hits)
    points[level, threshold, num_hits[place, level, threshold]] = place
    needed = [np.searchsorted(np.arange(num + 1) / num, RECALL_LEVELS) for num in num_truths]
    at = np.take_along_axis(points, np.array(needed)[:, None], axis=-1)  # (L, T, R)
    precision = np.take_along_axis(falling.transpose(1, 2, 0), at, axis=-1)
    recall = hits.sum(axis=0) / num_truths[:, None]
    return precision, recall, np.append(scores, 0.0)[at]


def _choose(
    index: np.ndarray,
    columns: np.ndarray,
    ious: np.ndarray,
    nth: np.ndarray,
    is_free: np.ndarray,
    ignored: np.ndarray,
) -> np.ndarray:
    """Gives the ground truths that predictions of different groups take.

    Args:
        index: prediction of each pair, ``(P,)``.
        columns: ground truth of each pair, ``(P,)``.
        ious: ``(P,)``.
        nth: ascending place of the pair among those of its prediction, ``(P,)``.
        is_free: bool ``(G, L, T)``.
        ignored: bool ``(L, G)``.

    Returns:
        int64 ``(predictions, L, T)``, -1 for none.
    """
    chosen = np.full((index.max() + 1, *is_free.shape[1:]), -1)
    best = np.zeros(chosen.shape)
    has_counted = np.zeros(chosen.shape, dtype=bool)
    for number in range(nth.max() + 1):
        pairs = nth == number
        row, column, iou = index[pairs], columns[pairs], ious[pairs][:, None, None]
        counted = ~ignored.T[column][..., None]
        better = (counted & ~has_counted[row]) | (
            (counted == has_counted[row]) & (iou >= best[row])
        )
        better &= is_free[column] & (iou >= IOU_THRESHOLDS)
        chosen[row] = np.where(better, column[:, None, None], chosen[row])
        best[row] = np.where(better, iou, best[row])
        has_counted[row] |= better & counted
    return chosen


def _outside(values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    return (values < bounds[:, :1]) | (values > bounds[:, 1:])
