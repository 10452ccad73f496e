"""HOTA, CLEAR and Identity as TrackEval computes them, from overlaps in memory.

Only the classes of metrics are used: TrackEval's readers want folders of their own form. Needs the
extra ``eval``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from vidseg.errors import UserError

from .tracking_metrics import Counts, MetricFamily, TrackedSequence

__all__ = ["trackeval_families"]

_SUMS = {"HOTA_TP", "HOTA_FN", "HOTA_FP", "MOTP_sum"}  # that are not reported


def trackeval_families() -> tuple[MetricFamily, ...]:
    """Gives the families of metrics of an installed TrackEval.

    Raises:
        UserError: if it cannot be imported.
    """
    try:
        from trackeval import metrics
    except ImportError as error:
        raise UserError(
            f"the backend trackeval cannot be used: {error}; pip install 'vidseg[eval]'"
        ) from None
    quiet = {"PRINT_CONFIG": False}
    return tuple(map(_family, (metrics.HOTA(), metrics.CLEAR(quiet), metrics.Identity(quiet))))


def _family(metric: Any) -> MetricFamily:
    def count(sequence: TrackedSequence) -> Counts:
        found: Counts = metric.eval_sequence(_in_memory(sequence))
        return found

    def add(parts: Iterable[Counts]) -> Counts:
        total: Counts = metric.combine_sequences(dict(enumerate(parts)))
        return total

    def finish(counts: Mapping[str, Any]) -> dict[str, float]:
        return {name: float(np.mean(counts[name])) for name in metric.fields if name not in _SUMS}

    return MetricFamily(count, add, finish)


def _in_memory(sequence: TrackedSequence) -> dict[str, Any]:
    """Gives a sequence in the form that the metrics of TrackEval take."""
    rows = [np.flatnonzero(visible) for visible in sequence.truth_visible]
    columns = [np.flatnonzero(visible) for visible in sequence.found_visible]
    overlaps = zip(sequence.overlaps, rows, columns, strict=True)
    return {
        "num_timesteps": len(sequence.overlaps),
        "num_gt_ids": len(sequence.truth_lengths),
        "num_tracker_ids": len(sequence.found_lengths),
        "num_gt_dets": int(sequence.truth_lengths.sum()),
        "num_tracker_dets": int(sequence.found_lengths.sum()),
        "gt_ids": rows,
        "tracker_ids": columns,
        "similarity_scores": [table[np.ix_(row, column)] for table, row, column in overlaps],
    }
