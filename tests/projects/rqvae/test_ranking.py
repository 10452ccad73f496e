"""Scores of rankings against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from vidseg.projects.rqvae.ranking import (
    average_precision,
    chance_average_precision,
    chance_recall_at,
    chance_reciprocal_rank,
    first_relevant_rank,
    rank_relevance,
)


def test_a_document_is_never_its_own_hit_and_ties_go_by_index() -> None:
    similarity = np.array([[1.0, 0.5, 0.5, 0.9], [0.0, 1.0, 0.0, 0.0]])
    relevant = np.array([[True, False, True, False], [True, True, False, False]])
    ranked = rank_relevance(similarity, relevant, [0, 1])
    assert ranked.tolist() == [[False, False, True], [True, False, False]]


def test_average_precision_by_hand() -> None:
    ranked = np.array([[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], bool)
    found = average_precision(ranked)
    assert found[:2] == pytest.approx([(1 + 2 / 3) / 2, 0.25])
    assert np.isnan(found[2])
    assert first_relevant_rank(ranked).tolist() == [1, 4, np.inf]
    assert first_relevant_rank(np.zeros((2, 0), bool)).tolist() == [np.inf, np.inf]


def test_average_precision_equals_the_definition() -> None:
    generator = np.random.default_rng(0)
    ranked = generator.random((50, 30)) < 0.2
    ranked[:, 7] = True
    for row, value in zip(ranked, average_precision(ranked), strict=True):
        hits = np.flatnonzero(row)
        assert value == pytest.approx(np.mean([(n + 1) / (r + 1) for n, r in enumerate(hits)]))


@pytest.mark.parametrize(("num_relevant", "num"), [(1, 1), (1, 9), (3, 9), (9, 9)])
def test_chance_is_the_mean_over_random_rankings(num_relevant: int, num: int) -> None:
    generator = np.random.default_rng(0)
    rows = np.tile(np.arange(num) < num_relevant, (20_000, 1))
    ranked = generator.permuted(rows, axis=1)
    relevant = np.array([float(num_relevant)])
    mean = average_precision(ranked).mean()
    assert chance_average_precision(relevant, num)[0] == pytest.approx(mean, abs=0.01)
    rank = first_relevant_rank(ranked)
    for k in (1, 5, 10):
        mean = (rank <= k).mean()
        assert chance_recall_at(k, relevant, num)[0] == pytest.approx(mean, abs=0.01)
    if num_relevant == 1:
        assert chance_reciprocal_rank(num) == pytest.approx((1 / rank).mean(), abs=0.01)
