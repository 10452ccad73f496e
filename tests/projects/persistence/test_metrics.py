"""Figures of decisions against values by hand, and intervals against theory."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vidseg.projects.persistence import metrics
from vidseg.projects.persistence.metrics import (
    accuracies,
    auroc,
    bootstrap_interval,
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


def mean(sums: np.ndarray) -> np.ndarray:
    return np.asarray(sums[..., 0] / sums[..., 1])


def test_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    sums = np.stack([values, np.ones(400)], axis=1)
    low, high = bootstrap_interval(sums, mean, num_resamples=4000)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
    assert (low, high) == bootstrap_interval(sums, mean, num_resamples=4000)


def test_interval_counts_clips_and_not_tokens() -> None:
    def width(clips: np.ndarray) -> float:
        right = np.random.default_rng(2).random(40) < 0.8
        sums = np.zeros((clips.max() + 1, 2))
        np.add.at(sums, clips, np.stack([right[clips % 40], np.ones(len(clips))], axis=1))
        low, high = bootstrap_interval(sums, mean)
        return high - low

    tenfold = np.repeat(np.arange(40), 10)  # ten tokens in each clip, all alike
    assert width(tenfold) == pytest.approx(width(np.arange(40)))


def test_interval_does_not_depend_on_how_many_are_drawn_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sums = np.random.default_rng(3).random((50, 2)) + 1
    whole = bootstrap_interval(sums, mean, num_resamples=500)
    monkeypatch.setattr(metrics, "_MAX_DRAWS", 50 * 7)
    assert bootstrap_interval(sums, mean, num_resamples=500) == whole


def test_no_interval_without_clips_or_resamples() -> None:
    assert all(map(math.isnan, bootstrap_interval(np.zeros((0, 2)), mean)))
    assert all(map(math.isnan, bootstrap_interval(np.ones((9, 2)), mean, num_resamples=0)))


def test_resamples_without_a_class_are_left_out() -> None:
    counts = np.array([[5.0, 5.0, 0.0, 0.0]] * 3 + [[4.0, 5.0, 1.0, 1.0]])
    low, high = bootstrap_interval(counts, lambda sums: accuracies(sums).balanced)
    assert 0.9 <= low <= high <= 1.0
