"""How well documents find each other: by topic, and half by half without any labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vidseg.evaluation.bootstrap import bootstrap_interval

from .ranking import (
    average_precision,
    chance_average_precision,
    chance_recall_at,
    chance_reciprocal_rank,
    first_relevant_rank,
    rank_relevance,
)
from .similarity import DescriptorSet, collect

__all__ = ["RECALL_RANKS", "score_halves", "score_topics"]

RECALL_RANKS = (1, 5, 10)

Floats = NDArray[np.float64]

_QUERIES_AT_ONCE = 64  # memory is this times the number of documents
_NO_TOPIC = -1


def score_topics(
    vectors: Mapping[str, Sequence[Tensor]], topics: NDArray[np.int64]
) -> dict[str, float]:
    """Has every document find the others of its topic among all other documents.

    A query that is alone in its topic, or has none, is left out and counted; as a document to be
    found it stays.

    Args:
        vectors: descriptors of all documents by method.
        topics: ``(N,)`` class of each document, -1 where it has none.

    Returns:
        ``num_queries``, ``num_skipped``, and for each method and ``chance``: ``mAP``, ``recall@k``
        (share of queries with at least one relevant document among the first k), fractions, with
        the ends of the 95 % interval over queries as ``mAP_low``, ``mAP_high`` and so on.
    """
    num_documents = len(topics)
    _, inverse, sizes = np.unique(topics, return_inverse=True, return_counts=True)
    num_relevant = np.where(topics == _NO_TOPIC, 0, sizes[inverse] - 1)
    queries = np.flatnonzero(num_relevant > 0)
    metrics = {
        "num_queries": float(len(queries)),
        "num_skipped": float(num_documents - len(queries)),
    }
    if not len(queries):
        return metrics
    for method, descriptors in vectors.items():
        values = _topic_scores(collect(descriptors), topics, queries)
        metrics |= _summary(method, ("mAP", *(f"recall@{k}" for k in RECALL_RANKS)), values)
    relevant = num_relevant[queries].astype(np.float64)
    metrics["chance/mAP"] = float(chance_average_precision(relevant, num_documents - 1).mean())
    for k in RECALL_RANKS:
        recall = chance_recall_at(k, relevant, num_documents - 1)
        metrics[f"chance/recall@{k}"] = float(recall.mean())
    return metrics


def score_halves(
    halves: Mapping[str, tuple[Sequence[Tensor], Sequence[Tensor]]], num_documents: int
) -> dict[str, float]:
    """Has each half of a document find the other one among all halves of all documents.

    Args:
        halves: descriptors of the first and of the second halves by method, of the documents that
            have both.
        num_documents: of the split; those without halves are counted as skipped.

    Returns:
        ``num_queries`` (two for each document), ``num_skipped``, and for each method and
        ``chance``: ``recall@1`` and ``MRR``, fractions, with the ends of their intervals.
    """
    num_pairs = len(next(iter(halves.values()))[0])
    metrics = {
        "num_queries": 2.0 * num_pairs,
        "num_skipped": float(num_documents - num_pairs),
    }
    for method, (first, second) in halves.items():
        values = _half_scores(collect([*first, *second]), num_pairs)
        metrics |= _summary(method, ("recall@1", "MRR"), values)
    metrics["chance/recall@1"] = 1 / (2 * num_pairs - 1)
    metrics["chance/MRR"] = chance_reciprocal_rank(2 * num_pairs - 1)
    return metrics


def _topic_scores(
    documents: DescriptorSet, topics: NDArray[np.int64], queries: NDArray[np.int64]
) -> Floats:
    """Gives average precision and recall at each rank for each query, ``(M, 1 + k)``."""
    parts = []
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        own = queries[start : start + _QUERIES_AT_ONCE]
        similarity = documents.similarities(documents.take(own)).numpy()
        ranked = rank_relevance(similarity, topics[own, None] == topics, own)
        rank = first_relevant_rank(ranked)
        recalls = [rank <= k for k in RECALL_RANKS]
        parts.append(np.stack([average_precision(ranked), *recalls], axis=1))
    return np.concatenate(parts)


def _half_scores(halves: DescriptorSet, num_pairs: int) -> Floats:
    """Gives recall@1 and reciprocal rank for each half, ``(2 * pairs, 2)``."""
    parts = []
    for start in range(0, 2 * num_pairs, _QUERIES_AT_ONCE):
        own = np.arange(start, min(start + _QUERIES_AT_ONCE, 2 * num_pairs))
        similarity = halves.similarities(halves.take(own)).numpy()
        other = (own + num_pairs) % (2 * num_pairs)
        ranked = rank_relevance(similarity, other[:, None] == np.arange(2 * num_pairs), own)
        rank = first_relevant_rank(ranked)
        parts.append(np.stack([rank <= 1, 1 / rank], axis=1))
    return np.concatenate(parts)


def _summary(method: str, names: Sequence[str], values: Floats) -> dict[str, float]:
    """Gives means and intervals under ``<method>/<name>``."""
    low, high = bootstrap_interval(values)
    metrics = {}
    for index, name in enumerate(names):
        metrics[f"{method}/{name}"] = float(values[:, index].mean())
        metrics[f"{method}/{name}_low"] = float(low[index])
        metrics[f"{method}/{name}_high"] = float(high[index])
    return metrics
