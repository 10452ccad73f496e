"""How far a figure would move if other videos, documents or queries of the same kind were drawn."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["bootstrap_interval"]

Floats = NDArray[np.float64]

_MAX_DRAWS = 4_000_000  # drawn at once, so that a large split needs no more memory than a small one


def bootstrap_interval(
    values: Floats,
    statistic: Callable[[Floats], Floats] | None = None,
    *,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Floats:
    """Gives the percentile interval of a figure (Efron and Tibshirani, 1993, chapter 13).

    Args:
        values: ``(M, F)`` of each thing that could have been another one, such as a clip.
        statistic: figure that depends on sums over them: takes sums ``(R, F)`` over R resamples and
            gives ``(R, ...)``; by default the mean.
        num_resamples: how often M of them are drawn with replacement; 0 for no interval.
        level: probability that the interval covers.
        seed: of the draws: the same values give the same interval.

    Returns:
        ``(2, ...)``, lower and upper end, nan without values. Resamples in which a figure is
        undefined are left out.
    """
    count = len(values)

    def mean(sums: Floats) -> Floats:
        return sums / max(count, 1)

    measure = mean if statistic is None else statistic
    if not count or not num_resamples:
        return np.full((2, *measure(np.ones((1, values.shape[1]))).shape[1:]), np.nan)
    generator = np.random.default_rng(seed)
    at_once = max(1, _MAX_DRAWS // count)
    figures = []
    for start in range(0, num_resamples, at_once):
        size = min(at_once, num_resamples - start)
        # How often each is drawn is all that counts: no resample is ever laid out.
        drawn = generator.integers(count, size=(size, count))
        drawn += np.arange(size)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)  # (R, M)
        figures.append(measure(times.astype(np.float64) @ values))
    found = np.concatenate(figures)
    found = np.where(np.isfinite(found), found, np.nan)
    tail = (1 - level) / 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a figure that no resample defines is nan
        ends: Floats = np.nanquantile(found, [tail, 1 - tail], axis=0)
    return ends
