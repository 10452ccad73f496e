"""The counts of all videos of a split, for every row of their timelines.

Shapes: C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from vidseg.evaluation.base import Metrics

from .metrics import F1_NAMES, VideoCounts, count_video, f1_scores, pool, summary
from .timeline import ACTION, FRAME, MERGED, TRUTH, ZERO_SHOT, Timeline

__all__ = ["ROWS", "ClassScores", "SplitScores"]

ROWS = (MERGED, FRAME, ACTION, ZERO_SHOT)
"""Predictions that are scored, as far as there are."""

_F1 = F1_NAMES[-1]


class ClassScores:
    """Metrics by class, in percent; nan where undefined.

    Args:
        counts: of pooled videos.

    Attributes:
        accuracy: ``(C,)`` share of the true frames that are right (recall).
        precision: ``(C,)`` share of the predicted frames that are right.
        iou: ``(C,)`` intersection over union of frames.
        f1: ``(K, C)`` F1 of segments by overlap; nan for a class that has none.
    """

    def __init__(self, counts: VideoCounts) -> None:
        right = counts.right_frames
        either = counts.true_frames + counts.predicted_frames
        self.counts = counts
        self.accuracy = _percent(right, counts.true_frames)
        self.precision = _percent(right, counts.predicted_frames)
        self.iou = _percent(right, either - right)
        f1 = f1_scores(counts.hits, counts.predicted_segments, counts.true_segments)
        f1[:, counts.true_segments + counts.predicted_segments == 0] = np.nan
        self.f1 = f1


class SplitScores:
    """Adds up what the metrics are made of.

    Args:
        num_classes: C.
        background: numbers of the background classes.
        eval_bg: whether background counts as a class like others.
    """

    def __init__(self, num_classes: int, background: Collection[int], *, eval_bg: bool) -> None:
        self.num_classes = num_classes
        self.background = sorted(background)
        self.eval_bg = eval_bg
        self.names: list[str] = []
        self.videos: dict[str, list[VideoCounts]] = {}
        self.confusions: Counter[tuple[int, int]] = Counter()
        self._other: list[VideoCounts] = []

    @property
    def num_videos(self) -> int:
        """How many videos have labels."""
        return len(self.names)

    @property
    def left_out(self) -> list[int]:
        """Classes that do not count in ``Acc``, the edit score and F1."""
        return [] if self.eval_bg else self.background

    def add(self, timeline: Timeline) -> None:
        """Counts a video; one without truth is passed over."""
        truth = timeline.rows.get(TRUTH)
        if truth is None:
            return
        self.names.append(timeline.name)
        for name in ROWS:
            if name in timeline.rows:
                counts = self._count(timeline, name, self.left_out)
                self.videos.setdefault(name, []).append(counts)
        other = self.background if self.eval_bg else []
        self._other.append(self._count(timeline, MERGED, other))
        merged = timeline.rows[MERGED]
        wrong = (truth != merged) & (truth >= 0)
        pairs, times = np.unique(
            np.stack([truth[wrong], merged[wrong]]), axis=1, return_counts=True
        )
        for (true, predicted), number in zip(pairs.T.tolist(), times.tolist(), strict=True):
            self.confusions[true, predicted] += number

    def metrics(self, classes: list[str]) -> Metrics:
        """Gives the metrics in percent by group, see the evaluator.

        Args:
            classes: names by number.
        """
        groups = {
            name: self._summary(videos, self.left_out) for name, videos in self.videos.items()
        }
        if self.background:
            name = "without_background" if self.eval_bg else "with_background"
            groups[name] = self._summary(self._other, self.background if self.eval_bg else [])
        scores = self.by_class(MERGED)
        groups["per_class"] = {}
        for number, name in enumerate(classes):
            groups["per_class"] |= {
                f"Acc-{name}": float(scores.accuracy[number]),
                f"{_F1}-{name}": float(scores.f1[-1, number]),
            }
        return groups

    def by_class(self, row: str) -> ClassScores:
        """Gives the metrics of every class.

        Args:
            row: one of ``ROWS`` that the videos have.
        """
        return ClassScores(self._pool(self.videos[row]))

    def group_accuracy(self, row: str, group: Collection[int]) -> float:
        """Gives the mean accuracy of those classes of a group that occur; 0 if none does."""
        accuracy = self.by_class(row).accuracy[sorted(group)]
        known = accuracy[~np.isnan(accuracy)]
        return float(known.mean()) if len(known) else 0.0

    def by_video(self, row: str) -> list[dict[str, float]]:
        """Gives the metrics of every video, in the order of ``names``."""
        return [summary(counts, self.left_out) for counts in self.videos[row]]

    def _count(self, timeline: Timeline, row: str, left_out: Collection[int]) -> VideoCounts:
        # Names that only a zero-shot vocabulary has are wrong alike: one more class stands for all.
        labels = np.minimum(timeline.rows[row], self.num_classes)
        return count_video(labels, timeline.rows[TRUTH], self.num_classes + 1, left_out)

    def _pool(self, videos: list[VideoCounts]) -> VideoCounts:
        return pool(videos, self.num_classes + 1)

    def _summary(self, videos: list[VideoCounts], left_out: Collection[int]) -> dict[str, float]:
        counts = self._pool(videos)
        accuracy = ClassScores(counts).accuracy
        accuracy[list(left_out)] = np.nan
        known = accuracy[~np.isnan(accuracy)]
        mean = float(known.mean()) if len(known) else float("nan")
        return {**summary(counts, left_out), "mAcc": mean}


def _percent(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.asarray(100 * part / np.where(whole == 0, np.nan, whole))
