"""Scores of ranked lists: average precision, recall, reciprocal rank, chance and intervals.

A query is a row of similarities to all documents. Documents are ranked by falling similarity;
among equal ones the smaller index comes first, so that a score never depends on the sort.

Shapes: B queries of a block, N documents, M queries in all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "average_precision",
    "chance_average_precision",
    "chance_recall_at",
    "chance_reciprocal_rank",
    "first_relevant_rank",
    "rank_relevance",
]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def rank_relevance(similarity: NDArray[np.floating], relevant: Bools, own: ArrayLike) -> Bools:
    """Puts the relevance of documents in the order of their ranks.

    Args:
        similarity: ``(B, N)``, higher is nearer.
        relevant: ``(B, N)`` which documents a query should find.
        own: the document that each query is itself; it is never its own hit.

    Returns:
        ``(B, N - 1)``, best first.
    """
    distance = -np.asarray(similarity, dtype=np.float64)
    distance[np.arange(len(distance)), np.asarray(own)] = np.inf  # sorted to the end, then cut off
    order = np.argsort(distance, axis=1, kind="stable")[:, :-1]
    return np.take_along_axis(relevant, order, axis=1)


def average_precision(ranked: Bools) -> Floats:
    """Gives the mean of the precisions at the ranks of the relevant documents.

    Args:
        ranked: ``(B, N)`` relevance, best first.

    Returns:
        ``(B,)`` in [0, 1]; nan for queries without relevant documents.
    """
    hits = np.cumsum(ranked, axis=1)
    precision = hits / np.arange(1, ranked.shape[1] + 1)
    with np.errstate(invalid="ignore"):
        return np.asarray((precision * ranked).sum(1) / ranked.sum(1))


def first_relevant_rank(ranked: Bools) -> Floats:
    """Gives the rank, from 1, of the first relevant document; inf where there is none.

    ``rank <= k`` is the recall@k of a query: whether at least one relevant document is among the
    first k. ``1 / rank`` is its reciprocal rank.

    Args:
        ranked: ``(B, N)`` relevance, best first.
    """
    if ranked.shape[1] == 0:
        return np.full(len(ranked), np.inf)
    return np.where(ranked.any(1), ranked.argmax(1) + 1.0, np.inf)


def chance_average_precision(num_relevant: Floats, num_documents: int) -> Floats:
    """Gives the expected average precision of a random ranking.

    The document at rank i is relevant with probability R / N, and so is each before it with
    (R - 1) / (N - 1) then; the mean of the precisions at the hits follows in closed form.

    Args:
        num_relevant: R of each query, at least 1.
        num_documents: N, without the query itself.
    """
    if num_documents < 2:
        return np.ones_like(num_relevant)
    harmonic = float((1 / np.arange(1, num_documents + 1)).sum())
    repeat = (num_relevant - 1) / (num_documents - 1)
    return np.asarray(repeat + (1 - repeat) * harmonic / num_documents)


def chance_recall_at(k: int, num_relevant: Floats, num_documents: int) -> Floats:
    """Gives the probability that a random ranking has a relevant document among the first k.

    Args:
        k: number of ranks.
        num_relevant: R of each query.
        num_documents: N, without the query itself.
    """
    drawn = np.arange(min(k, num_documents))
    left = (num_documents - num_relevant)[:, None] - drawn
    return np.asarray(1 - np.prod(np.clip(left, 0, None) / (num_documents - drawn), axis=1))


def chance_reciprocal_rank(num_documents: int) -> float:
    """Gives the expected reciprocal rank of the one relevant document in a random ranking."""
    return float((1 / np.arange(1, num_documents + 1)).mean())
