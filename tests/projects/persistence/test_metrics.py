"""Figures of decisions against values by hand, and intervals against theory."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vidseg.evaluation.bootstrap import bootstrap_interval
from vidseg.projects.persistence.metrics import (
    accuracies,
    auroc,
    count_right,
)


def test_accuracies_by_hand() -> None:
    labels = np.array([1, 1, 1, 0, 1, -1, 0])
    decisions = np.array([1, 1, 0, 0, 1, 1, -1])
    counts = count_right(decisions, labels, np.array([0, 0, 0, 0, 2, 2, 2]), 3)
    assert counts.tolist() == [[2, 3, 1, 1], [0, 0, 0, 0], [1, 1, 0, 1]]
    found = accuracies(counts.sum(0))
    assert found.persistent == pytest.approx(3 / 4)
    assert found.transient == pytest.approx(1 / 2)
    assert found.balanced == pytest.approx(5 / 8)
    assert found.total == pytest.approx(4 / 6)


def test_a_class_without_tokens_has_no_accuracy() -> None:
    found = accuracies(np.array([3.0, 4.0, 0.0, 0.0]))
    assert found.persistent == 0.75
    assert found.total == 0.75
    assert math.isnan(found.transient)
    assert math.isnan(found.balanced)


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 6, 60).astype(float), rng.integers(-1, 2, 60)
    pairs = [
        float(p > t) + 0.5 * float(p == t) for p in scores[labels == 1] for t in scores[labels == 0]
    ]
    assert auroc(scores, labels) == pytest.approx(np.mean(pairs))
    assert auroc(-scores, labels) == pytest.approx(1 - np.mean(pairs))
    assert math.isnan(auroc(scores, np.ones(60, int)))


def test_resamples_without_a_class_are_left_out() -> None:
    counts = np.array([[5.0, 5.0, 0.0, 0.0]] * 3 + [[4.0, 5.0, 1.0, 1.0]])
    low, high = bootstrap_interval(counts, lambda sums: accuracies(sums).balanced)
    assert 0.9 <= low <= high <= 1.0
