"""Does attention go to what stays? Figures about the attention over the tokens of clips.

Attention always has a named source: ``summary`` (the summary query) or ``layer k`` (what a token
received, mean over queries and heads). Figures that compare the classes are taken over clips that
have tokens of both, and not at all if these are few: a clip without transient tokens has no ratio,
and filling in a number for it moves the mean anywhere.

Shapes: N tokens of a clip, M clips, T frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vidseg.evaluation.bootstrap import bootstrap_interval

from .metrics import PERSISTENT, TRANSIENT, Interval

__all__ = ["GROUPS", "MIN_CLIPS", "AttentionFigures", "AttentionSums", "attention_metrics"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MIN_CLIPS = 20  # clips of both classes, under which their ratio is chance
GROUPS = {"persistent": PERSISTENT, "transient": TRANSIENT, "background": -1}
"""Groups of tokens by their label; background belongs to no object."""

_MEAN_P, _MEAN_T, _MASS, _SHARE = range(4)


@dataclass(frozen=True)
class AttentionFigures:
    """Attention of one source over the clips of a split; what is undefined is nan.

    Attributes:
        ratio: mean over clips of the mean weight of persistent tokens, by that of transient ones.
        ratio_interval: of the ratio.
        ratio_median: median of the ratios of single clips.
        lift: mass on persistent tokens by the share of tokens that they are; 1 is indifferent.
        entropy: of the weights in units of the largest, ln N; in [0, 1]; mean over all clips with
            two tokens or more.
        num_clips: with tokens of both classes; all but the entropy is taken over these.
        curves: ``(T, 3)`` mass per frame on the ``GROUPS``, mean over clips that have the frame.
    """

    ratio: float
    ratio_interval: Interval
    ratio_median: float
    lift: float
    entropy: float
    num_clips: int
    curves: Floats


@dataclass
class AttentionSums:
    """Collects the attention of one source, clip by clip."""

    _clips: list[list[float]] = field(default_factory=list)  # those of both classes
    _entropies: list[float] = field(default_factory=list)
    _curves: list[Floats] = field(default_factory=list)  # (T, 3) of each clip

    def add(self, weights: Floats, labels: Ints, frames: Ints, num_frames: int) -> None:
        """Adds a clip.

        Args:
            weights: ``(N,)``, summing to 1.
            labels: ``(N,)``: 1 persistent, 0 transient, else background.
            frames: ``(N,)``.
            num_frames: T.
        """
        if len(weights) > 1:
            self._entropies.append(_entropy(weights))
        is_persistent, is_transient = labels == PERSISTENT, labels == TRANSIENT
        if not (is_persistent.any() and is_transient.any()):
            return
        self._clips.append(
            [
                float(weights[is_persistent].mean()),
                float(weights[is_transient].mean()),
                float(weights[is_persistent].sum()),
                float(is_persistent.mean()),
            ]
        )
        groups = [is_persistent, is_transient, ~(is_persistent | is_transient)]
        columns = [
            np.bincount(frames[group], weights=weights[group], minlength=num_frames)
            for group in groups
        ]
        self._curves.append(np.stack(columns, axis=1))

    def figures(self, *, num_resamples: int = 1000) -> AttentionFigures:
        """Gives the figures of all clips so far."""
        clips = np.array(self._clips).reshape(-1, 4)
        enough = len(clips) >= MIN_CLIPS
        interval = (math.nan, math.nan)
        ratio = median = lift = math.nan
        if enough:
            sums = clips.sum(0)
            ratio = float(_ratio(sums))
            low, high = bootstrap_interval(clips, _ratio, num_resamples=num_resamples)
            interval = (float(low), float(high))
            ratios = _ratio(clips)
            ratios = ratios[~np.isnan(ratios)]
            median = float(np.median(ratios)) if len(ratios) else math.nan
            lift = float(sums[_MASS] / sums[_SHARE])
        return AttentionFigures(
            ratio=ratio,
            ratio_interval=interval,
            ratio_median=median,
            lift=lift,
            entropy=float(np.mean(self._entropies)) if self._entropies else math.nan,
            num_clips=len(clips),
            curves=_mean_curves(self._curves),
        )


def attention_metrics(figures: Mapping[str, AttentionFigures]) -> dict[str, float]:
    """Gives the figures of all sources by flat names, such as ``layer_2/ratio``.

    Those of the last layer are there as ``last_layer/...``, too, however many layers a model has.
    """
    named = {name.replace(" ", "_"): one for name, one in figures.items()}
    layers = [name for name in named if name.startswith("layer_")]
    if layers:
        named["last_layer"] = named[max(layers, key=lambda name: int(name.rpartition("_")[2]))]
    metrics = {}
    for name, one in named.items():
        low, high = one.ratio_interval
        values = {
            "ratio": one.ratio,
            "ratio_low": low,
            "ratio_high": high,
            "ratio_median": one.ratio_median,
            "lift": one.lift,
            "entropy": one.entropy,
            "num_clips": float(one.num_clips),
        }
        metrics.update({f"{name}/{key}": value for key, value in values.items()})
    return metrics


def _ratio(sums: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums[..., _MEAN_P] / sums[..., _MEAN_T])


def _entropy(weights: Floats) -> float:
    positive = weights[weights > 0]
    return float(-(positive * np.log(positive)).sum() / math.log(len(weights)))


def _mean_curves(curves: list[Floats]) -> Floats:
    longest = max((len(curve) for curve in curves), default=0)
    sums, counts = np.zeros((longest, len(GROUPS))), np.zeros((longest, 1))
    for curve in curves:
        sums[: len(curve)] += curve
        counts[: len(curve)] += 1
    return np.asarray(sums / np.maximum(counts, 1))
