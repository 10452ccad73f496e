"""Are the objects that the queries give those of the clip?

A query gives an object if "no object" is not its likeliest class. What it gives is matched with the
objects of the clip by the frames in which both are there, and by nothing else: with the class in
the matching, as in training, a wrong class could never be told from a wrong object.

Shapes: Q queries, M objects, T frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vidseg.assignment import linear_sum_assignment

__all__ = ["QuerySums", "count_queries"]

_MIN_IOU = 0.5  # of the frames, from which on an object is found
_NO_OBJECT = 2
_COUNTS = ("objects", "given", "found", "right", "overlap", "duration_error", "count_error")


def count_queries(queries: Mapping[str, Tensor], objects: Mapping[str, Any]) -> dict[str, float]:
    """Compares the objects that queries give with those of a clip.

    Args:
        queries: ``logits`` ``(Q, 3)`` of transient, persistent, no object; ``presence`` ``(Q, T)``
            probabilities; ``durations`` ``(Q,)``.
        objects: ``labels`` ``(M,)``, ``presence`` bool ``(M, T)`` and ``durations`` ``(M,)``.

    Returns:
        Numbers of objects, of objects given, found and found with the right class, and sums over
        those found: of the overlap in time and of the error of the duration.
    """
    classes = queries["logits"].argmax(1)
    given = classes != _NO_OBJECT
    labels, truth = torch.as_tensor(objects["labels"]), torch.as_tensor(objects["presence"])
    seen = queries["presence"][given] > 0.5
    both = (seen[:, None] & truth).sum(2).double()
    either = (seen[:, None] | truth).sum(2).clamp(min=1)
    overlap = (both / either).numpy()  # (given, M)
    rows, columns = linear_sum_assignment(-overlap)
    found = overlap[rows, columns] >= _MIN_IOU
    rows, columns = rows[found], columns[found]
    durations = torch.as_tensor(objects["durations"]).double()[columns]
    return {
        "objects": len(labels),
        "given": int(given.sum()),
        "found": len(rows),
        "right": int((classes[given][rows] == labels[columns]).sum()),
        "overlap": float(overlap[rows, columns].sum()),
        "duration_error": float((queries["durations"][given][rows] - durations).abs().sum()),
        "count_error": abs(int(given.sum()) - len(labels)),
    }


@dataclass
class QuerySums:
    """Sums over the clips of a split."""

    num_clips: int = 0
    _counts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_COUNTS, 0.0))

    def add(self, counts: Mapping[str, float]) -> None:
        """Adds a clip, as ``count_queries`` gives it."""
        self.num_clips += 1
        for name in _COUNTS:
            self._counts[name] += counts[name]

    def metrics(self) -> dict[str, float]:
        """Gives the metrics; nan where nothing was given or found.

        ``recall``, ``precision`` (of objects found, in percent) and ``accuracy`` (percent of the
        objects that were found with the right class); ``presence_IoU`` and ``duration_MAE`` of
        those found, as shares of the clip; ``count_error``, objects too many or too few per clip.
        """
        counts = self._counts
        return {
            "accuracy": 100 * _share(counts["right"], counts["objects"]),
            "recall": 100 * _share(counts["found"], counts["objects"]),
            "precision": 100 * _share(counts["found"], counts["given"]),
            "presence_IoU": _share(counts["overlap"], counts["found"]),
            "duration_MAE": _share(counts["duration_error"], counts["found"]),
            "count_error": _share(counts["count_error"], self.num_clips),
        }


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
