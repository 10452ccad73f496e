"""Intervals by drawing again what was drawn."""

from __future__ import annotations

import numpy as np
import pytest

from vidseg.evaluation import bootstrap
from vidseg.evaluation.bootstrap import bootstrap_interval


def mean(sums: np.ndarray) -> np.ndarray:
    return np.asarray(sums[..., 0] / sums[..., 1])


def test_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    sums = np.stack([values, np.ones(400)], axis=1)
    low, high = bootstrap_interval(sums, mean, num_resamples=4000)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
    assert [low, high] == bootstrap_interval(sums, mean, num_resamples=4000).tolist()


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
    monkeypatch.setattr(bootstrap, "_MAX_DRAWS", 50 * 7)
    assert (bootstrap_interval(sums, mean, num_resamples=500) == whole).all()


def test_no_interval_without_values_or_resamples() -> None:
    assert np.isnan(bootstrap_interval(np.zeros((0, 2)), mean)).tolist() == [True, True]
    assert np.isnan(bootstrap_interval(np.ones((9, 2)), mean, num_resamples=0)).all()


def test_the_interval_covers_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        values = (generator.random((100, 1)) < 0.3).astype(float)
        low, high = bootstrap_interval(values, num_resamples=200)[:, 0]
        covered += low <= 0.3 <= high
    assert 0.9 <= covered / 200 <= 0.99


def test_the_interval_is_the_same_each_time() -> None:
    values = np.random.default_rng(0).random((20, 2))
    assert (bootstrap_interval(values) == bootstrap_interval(values)).all()
    assert np.isnan(bootstrap_interval(np.zeros((0, 2)))).all()
    assert bootstrap_interval(np.ones((5, 1))).tolist() == [[1], [1]]
