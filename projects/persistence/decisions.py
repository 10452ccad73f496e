"""Decisions about the tokens of a split and their scores: the model's, and those it has to beat.

Shapes: N tokens, M clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidseg.evaluation.bootstrap import bootstrap_interval

from .leak_probe import probe_decisions, probe_features
from .metrics import (
    PERSISTENT,
    TRANSIENT,
    Accuracies,
    Interval,
    accuracies,
    auroc,
    count_right,
)

if TYPE_CHECKING:
    from .split_results import SplitResults

__all__ = ["Decisions", "baseline_decisions", "model_decisions", "object_decisions"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Decisions:
    """How good the decisions of one method are.

    Attributes:
        counts: ``(M, 4)`` of each clip, see ``count_right``.
        auroc: area under the curve in [0, 1]; None for methods without scores.
    """

    counts: Floats
    auroc: float | None = None

    @property
    def accuracies(self) -> Accuracies:
        """Over all clips."""
        return accuracies(self.counts.sum(0))

    def metrics(self, num_resamples: int) -> dict[str, float]:
        """Gives all figures in percent, with the intervals of the balanced and the plain accuracy.

        Args:
            num_resamples: of the clips; 0 for no intervals.
        """
        found = self.accuracies
        metrics = {
            "balanced_accuracy": float(found.balanced),
            "accuracy": float(found.total),
            "accuracy_persistent": float(found.persistent),
            "accuracy_transient": float(found.transient),
        }
        if self.auroc is not None:
            metrics["AUROC"] = self.auroc
        if num_resamples:
            balanced = bootstrap_interval(self.counts, _balanced, num_resamples=num_resamples)
            total = bootstrap_interval(self.counts, _total, num_resamples=num_resamples)
            metrics |= dict(zip(_ends("balanced_accuracy"), balanced.tolist(), strict=True))
            metrics |= dict(zip(_ends("accuracy"), total.tolist(), strict=True))
        return {name: 100 * value for name, value in metrics.items()}

    def margin(self, other: Decisions, num_resamples: int) -> tuple[float, Interval]:
        """Gives by how many points the balanced accuracy is above another's on the same clips.

        The interval is that of the difference, clip by clip, and so narrower than the two intervals
        let expect.
        """

        def difference(sums: Floats) -> Floats:
            return 100 * (_balanced(sums[..., :4]) - _balanced(sums[..., 4:]))

        both = np.concatenate([self.counts, other.counts], axis=1)
        low, high = bootstrap_interval(both, difference, num_resamples=num_resamples)
        return float(difference(both.sum(0))), (float(low), float(high))


def model_decisions(split: SplitResults) -> Decisions:
    """Scores the model token by token."""
    return _score(split, split.decisions, split.logits)


def object_decisions(split: SplitResults) -> Decisions:
    """Scores the model object by object, by the mean logit of the tokens that it was found with."""
    of_object = split.objects >= 0
    _, first, place = np.unique(split.objects[of_object], return_index=True, return_inverse=True)
    sums = np.bincount(place, weights=split.logits[of_object])
    logits = sums / np.bincount(place)
    labels, clips = split.labels[of_object][first], split.clip[of_object][first]
    counts = count_right((logits > 0).astype(np.int64), labels, clips, split.num_clips)
    return Decisions(counts, auroc(logits, labels))


def baseline_decisions(split: SplitResults, min_presence: float) -> dict[str, Decisions]:
    """Scores what a model should be compared with, on the same tokens.

    ``tracker``: seen in most frames by the Hungarian tracker. ``leak_probe``: what single tokens
    give away. ``colour_tracker``: seen in most frames by the tracks of colours; a colour that it
    does not know is an error. ``majority``: always the more frequent class.

    Args:
        split: to be decided.
        min_presence: share of the frames from which on a track counts as persistent.
    """
    tracked = (split.presence >= min_presence - 1e-6).astype(np.int64)
    features = probe_features(split.measured, split.frame, split.num_frames)
    probed = probe_decisions(features, split.labels, split.clip)
    num_persistent, num_transient = ((split.labels == c).sum() for c in (PERSISTENT, TRANSIENT))
    majority = np.full(len(split.labels), int(num_persistent >= num_transient))
    return {
        "tracker": _score(split, tracked, split.presence),
        "leak_probe": _score(split, probed),
        "colour_tracker": _score(split, split.by_colour),
        "majority": _score(split, majority),
    }


def _score(split: SplitResults, decisions: Ints, scores: Floats | None = None) -> Decisions:
    counts = count_right(decisions, split.labels, split.clip, split.num_clips)
    return Decisions(counts, None if scores is None else auroc(scores, split.labels))


def _balanced(sums: Floats) -> Floats:
    return accuracies(sums).balanced


def _total(sums: Floats) -> Floats:
    return accuracies(sums).total


def _ends(name: str) -> tuple[str, str]:
    return f"{name}_low", f"{name}_high"
