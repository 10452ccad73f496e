"""The scores of all clips of a split side by side, their means, and how sure these are.

Every figure is a sum over clips divided by another one, so an interval comes from drawing clips
anew. Differences between methods are drawn on the same clips.

Shapes: M clips, F figures, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidseg.evaluation.bootstrap import bootstrap_interval

__all__ = ["MODEL", "Figure", "SplitScores"]

MODEL = "model"

_COMPARED = ("video/FG-ARI", "video/mBO", "image/FG-ARI")
_MEASURE, _PEER = "cosine_error", "cosine_error_interpolated"

Floats = NDArray[np.float64]
Clip = Mapping[str, Mapping[str, Sequence[float]]]
"""Shares by method and metric."""


class Figure(NamedTuple):
    """A mean with the interval that covers it 95 times of 100; nan where undefined."""

    value: float
    low: float = math.nan
    high: float = math.nan


class SplitScores:
    """The scores of a split.

    Args:
        clips: by their ids; read once, in this order.
    """

    def __init__(self, clips: Mapping[Any, Clip]) -> None:
        places: dict[tuple[str, str], int] = {}
        rows = []
        self.ids = []
        for name, clip in clips.items():
            self.ids.append(name)
            row = {}
            for method, shares in clip.items():
                for metric, share in shares.items():
                    row[places.setdefault((method, metric), len(places))] = share
            rows.append(row)
        self._places = places
        self._sums = np.zeros((len(rows), 2, len(places)))  # (M, 2, F): sums, numbers
        for sums, row in zip(self._sums, rows, strict=True):
            for place, share in row.items():
                sums[:, place] = share

    @property
    def methods(self) -> list[str]:
        """The methods that have scores, the model first."""
        return list(dict.fromkeys(method for method, _ in self._places))

    def metrics_of(self, method: str) -> list[str]:
        """The metrics that a method has."""
        return [metric for name, metric in self._places if name == method]

    def per_clip(self, method: str, metric: str) -> list[float]:
        """Gives a metric of every clip, nan where undefined."""
        place = self._places.get((method, metric))
        if place is None:
            return [math.nan] * len(self.ids)
        return [float(value) for value in _ratio(self._sums)[:, place]]

    def figures(self, num_resamples: int) -> dict[str, dict[str, Figure]]:
        """Gives every metric of every method over the whole split.

        The model also has ``margin/METHOD/METRIC``, what it is above another method, and
        ``dropped/relative_error``, the error of guessed slots as a share of that of interpolated
        ones, likewise ``dropped/object_relative_error``.

        Args:
            num_resamples: resamplings of the clips behind the intervals; 0 for none.
        """
        if not self.ids:
            return {}
        if len(self.ids) == 1:
            num_resamples = 0  # nothing to draw from
        names = [*self._places, *((MODEL, name) for name, _, _ in self._comparisons())]
        low, high = bootstrap_interval(
            self._sums.reshape(len(self.ids), -1), self._derive, num_resamples=num_resamples
        )
        values = self._derive(self._sums.sum(0).reshape(1, -1))[0]
        found: dict[str, dict[str, Figure]] = {method: {} for method in self.methods}
        for (method, metric), *figure in zip(names, values, low, high, strict=True):
            found[method][metric] = Figure(*map(float, figure))
        return found

    def _comparisons(self) -> Iterator[tuple[str, int, int]]:
        """Gives names of differences (``margin/...``) and quotients, and what they are between."""
        for method in self.methods[1:]:
            for metric in _COMPARED:
                own, other = self._places.get((MODEL, metric)), self._places.get((method, metric))
                if own is not None and other is not None:
                    yield f"margin/{method}/{metric}", own, other
        for start in ("", "object_"):
            own, other = (
                self._places.get((MODEL, f"dropped/{start}{name}")) for name in (_MEASURE, _PEER)
            )
            if own is not None and other is not None:
                yield f"dropped/{start}relative_error", own, other

    def _derive(self, sums: Floats) -> Floats:
        """Gives all figures ``(R, F + comparisons)`` of summed shares ``(R, 2 F)``."""
        ratios = _ratio(sums.reshape(len(sums), 2, -1))
        columns = [ratios]
        for name, own, other in self._comparisons():
            pair = ratios[:, [own]], ratios[:, [other]]
            with np.errstate(invalid="ignore", divide="ignore"):
                columns.append(pair[0] - pair[1] if "margin" in name else pair[0] / pair[1])
        return np.concatenate(columns, axis=1)


def _ratio(sums: Floats) -> Floats:
    """Divides sums by numbers, ``(..., 2, F)`` to ``(..., F)``."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(
            np.where(sums[..., 1, :] > 0, sums[..., 0, :] / sums[..., 1, :], math.nan)
        )
