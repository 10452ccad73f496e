"""Figures about decisions between two classes: by class, by object, and how sure they are.

The classes are seldom of equal size, so the headline is the mean of the accuracies of both. All
intervals come from drawing whole clips anew: the tokens of a clip err together.

Shapes: N tokens, M clips, R resamples, F sums side by side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "PERSISTENT",
    "TRANSIENT",
    "Accuracies",
    "Interval",
    "accuracies",
    "auroc",
    "count_right",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Interval = tuple[float, float]
"""Lower and upper end; nan where there is none."""

TRANSIENT, PERSISTENT = 0, 1


@dataclass(frozen=True)
class Accuracies:
    """Shares of right decisions in [0, 1]; nan for a class that has no tokens.

    Attributes:
        total: of all tokens.
        persistent: of those of persistent objects; ``transient`` likewise.
        balanced: mean of the two.
    """

    total: Floats
    persistent: Floats
    transient: Floats
    balanced: Floats


def count_right(decisions: Ints, labels: Ints, clips: Ints, num_clips: int) -> Floats:
    """Counts right decisions and tokens of each class, clip by clip.

    Args:
        decisions: ``(N,)``: 1 persistent, 0 transient; anything else is wrong.
        labels: ``(N,)`` true classes; tokens with any other label are not counted.
        clips: ``(N,)`` clip of each token.
        num_clips: M.

    Returns:
        ``(M, 4)``: right persistent, persistent, right transient, transient tokens.
    """
    columns = []
    for label in (PERSISTENT, TRANSIENT):
        is_class = labels == label
        for counted in (is_class & (decisions == label), is_class):
            columns.append(np.bincount(clips[counted], minlength=num_clips))
    return np.stack(columns, axis=1).astype(np.float64)


def accuracies(counts: Floats) -> Accuracies:
    """Gives the accuracies of counts ``(..., 4)``, as ``count_right`` gives them for a clip."""
    right_persistent, persistent, right_transient, transient = np.moveaxis(counts, -1, 0)
    with np.errstate(invalid="ignore"):
        of_persistent = np.asarray(right_persistent / persistent)
        of_transient = np.asarray(right_transient / transient)
        total = np.asarray((right_persistent + right_transient) / (persistent + transient))
    return Accuracies(total, of_persistent, of_transient, (of_persistent + of_transient) / 2)


def auroc(scores: Floats, labels: Ints) -> float:
    """Gives the probability that a persistent token scores higher than a transient one.

    Equal scores count half (the statistic of Mann and Whitney).

    Args:
        scores: ``(N,)``, higher for persistent.
        labels: ``(N,)``; tokens of neither class are left out.

    Returns:
        The share in [0, 1]; nan without tokens of both classes.
    """
    is_persistent, is_transient = labels == PERSISTENT, labels == TRANSIENT
    num_pairs = int(is_persistent.sum()) * int(is_transient.sum())
    if not num_pairs:
        return math.nan
    values, place = np.unique(scores, return_inverse=True)
    persistent = np.bincount(place[is_persistent], minlength=len(values))
    transient = np.bincount(place[is_transient], minlength=len(values))
    below = np.cumsum(transient) - transient / 2
    return float(persistent @ below / num_pairs)
