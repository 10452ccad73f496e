"""Generalised zero-shot scores: accuracy of seen and unseen classes, and the trade between them.

Means of the accuracies of classes and their harmonic mean H follow Xian et al. (TPAMI 2019);
calibrated stacking, its curve and the area under it (AUSUC) Chao et al. (ECCV 2016). Background
belongs to neither group.

Whatever is subtracted from the seen classes, a frame is named by its best seen or its best unseen
candidate: three numbers per frame hold the whole curve.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .metrics import F1_NAMES, count_video, pool, stretch, summary

if TYPE_CHECKING:
    from .text_matching import ZeroShot

__all__ = [
    "Curve",
    "FrameScores",
    "encode_zero_shot",
    "group_accuracy",
    "harmonic_mean",
    "label_ids",
    "stacking_curve",
    "zero_shot_scores",
]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_NONE = -1
_Pair = tuple[Mapping[str, Any], Ints]  # what was encoded of a video, and its truth


@dataclass(frozen=True)
class FrameScores:
    """Frames, and what calibrated stacking can make of them.

    Attributes:
        truth: ``(N,)`` classes; frames of negative ones do not count.
        best_seen: ``(N,)`` class of the best seen candidate.
        best_unseen: ``(N,)`` class of the best unseen one.
        margin: ``(N,)`` score of the first less that of the second.
    """

    truth: Ints
    best_seen: Ints
    best_unseen: Ints
    margin: Floats

    @classmethod
    def joined(cls, parts: Sequence[FrameScores]) -> FrameScores:
        """Puts the frames of several videos together."""
        return cls(
            np.concatenate([part.truth for part in parts]),
            np.concatenate([part.best_seen for part in parts]),
            np.concatenate([part.best_unseen for part in parts]),
            np.concatenate([part.margin for part in parts]),
        )

    def labels_at(self, gamma: float) -> Ints:
        """Gives the classes ``(N,)`` when ``gamma`` is subtracted from the seen ones."""
        return np.where(self.margin >= gamma, self.best_seen, self.best_unseen)


@dataclass(frozen=True)
class Curve:
    """Accuracies at every value of gamma that makes a difference, in percent.

    Attributes:
        gammas: ``(P,)`` ascending, between the values at which decisions flip.
        seen: ``(P,)`` mean accuracy of the seen classes.
        unseen: ``(P,)`` that of the unseen ones.
    """

    gammas: Floats
    seen: Floats
    unseen: Floats

    @property
    def harmonic(self) -> Floats:
        """H at every gamma, ``(P,)``."""
        return harmonic_mean(self.seen, self.unseen)

    @property
    def best(self) -> int:
        """Where H is greatest; nearest to no handicap, if in several places."""
        harmonic = self.harmonic
        places = np.flatnonzero(harmonic == harmonic.max())
        return int(places[np.abs(self.gammas[places]).argmin()])

    @property
    def area(self) -> float:
        """AUSUC, in percent of the square."""
        widths = -np.diff(self.seen)
        heights = (self.unseen[1:] + self.unseen[:-1]) / 2
        return float((widths * heights).sum() / 100)


def harmonic_mean(seen: ArrayLike, unseen: ArrayLike) -> Floats:
    """Gives ``2 S U / (S + U)``; 0 where both are 0 or either is unknown."""
    s = np.nan_to_num(np.asarray(seen, dtype=np.float64))
    u = np.nan_to_num(np.asarray(unseen, dtype=np.float64))
    return np.asarray(2 * s * u / np.where(s + u > 0, s + u, 1))


def group_accuracy(truth: ArrayLike, labels: ArrayLike, group: Collection[int]) -> float:
    """Gives the mean accuracy of the classes of a group, in percent; nan if none occurs.

    Args:
        truth: ``(N,)``.
        labels: ``(N,)``.
        group: classes; those without frames do not count.
    """
    truth = np.asarray(truth)
    weights = _weights(truth, group)
    hits = truth == np.asarray(labels)
    return float(100 * (weights * hits).sum()) if weights.any() else float("nan")


def stacking_curve(frames: FrameScores, seen: Collection[int], unseen: Collection[int]) -> Curve:
    """Sweeps gamma over all values at which a decision flips.

    Args:
        frames: of any number of videos.
        seen: classes of the seen group, without background.
        unseen: classes of the other.

    Returns:
        The curve; one point more than there are different margins.
    """
    hits_seen = _weights(frames.truth, seen) * (frames.best_seen == frames.truth)
    hits_unseen = _weights(frames.truth, unseen) * (frames.best_unseen == frames.truth)
    margins, index = np.unique(frames.margin, return_inverse=True)
    if not len(margins):
        return Curve(np.zeros(1), np.zeros(1), np.zeros(1))
    lost = np.bincount(index, hits_seen, len(margins))
    won = np.bincount(index, hits_unseen, len(margins))
    kept = np.append(np.cumsum(lost[::-1])[::-1], 0.0)
    middles = (margins[1:] + margins[:-1]) / 2
    # In floats the middle of two neighbours may be the lower one, which would not flip.
    middles = np.maximum(middles, np.nextafter(margins[:-1], np.inf))
    gammas = np.concatenate([[margins[0] - 0.01], middles, [margins[-1] + 0.01]])
    found = np.append(0.0, np.cumsum(won))
    return Curve(gammas, np.clip(100 * kept, 0, 100), np.clip(100 * found, 0, 100))


def encode_zero_shot(zero_shot: ZeroShot) -> dict[str, Any]:
    """Gives what the scores of a video need, as plain json; see ``FrameScores``."""
    cosine, seen = zero_shot.cosine.numpy(), zero_shot.seen.numpy()
    encoded: dict[str, Any] = {
        "labels": zero_shot.labels.tolist(),
        "candidates": list(zero_shot.candidates),
        "seen": seen.tolist(),
        "gamma": zero_shot.gamma,
    }
    if seen.all() or not seen.any():
        return encoded
    numbers = {"best_seen": np.flatnonzero(seen), "best_unseen": np.flatnonzero(~seen)}
    scores = []
    for name, group in numbers.items():
        places = cosine[:, group].argmax(1)
        encoded[name] = group[places].tolist()
        scores.append(np.take_along_axis(cosine[:, group], places[:, None], 1)[:, 0])
    encoded["margin"] = (scores[0].astype(np.float64) - scores[1]).tolist()
    if zero_shot.untrained is not None:
        untrained, unseen = zero_shot.untrained.numpy(), numbers["best_unseen"]
        encoded["untrained"] = untrained.argmax(1).tolist()
        encoded["untrained_unseen"] = unseen[untrained[:, unseen].argmax(1)].tolist()
    return encoded


def label_ids(labels: Sequence[int], candidates: Sequence[str], classes: Sequence[str]) -> Ints:
    """Turns numbers of candidates into classes of a data set; -1 for a name that it lacks."""
    numbers = {name: number for number, name in enumerate(classes)}
    table = np.array([numbers.get(name, _NONE) for name in candidates], dtype=np.int64)
    return table[np.asarray(labels, dtype=np.int64)]


def frame_scores(
    encoded: Mapping[str, Any], truth: ArrayLike, classes: Sequence[str]
) -> FrameScores:
    """Gives the ``FrameScores`` of a video at the rate of its truth.

    Args:
        encoded: by ``encode_zero_shot``, of a video with seen and unseen candidates.
        truth: ``(L,)`` classes of the data set; negative: ignore.
        classes: names of the data set's classes.
    """
    values = np.asarray(truth, dtype=np.int64)
    places = stretch(np.arange(len(encoded["labels"])), len(values))
    best = {
        name: label_ids(encoded[name], encoded["candidates"], classes)[places]
        for name in ("best_seen", "best_unseen")
    }
    margin = np.asarray(encoded["margin"], dtype=np.float64)[places]
    kept = values >= 0
    return FrameScores(
        values[kept], best["best_seen"][kept], best["best_unseen"][kept], margin[kept]
    )


def groups_of(
    encoded: Mapping[str, Any], classes: Sequence[str], background: Collection[int]
) -> tuple[frozenset[int], frozenset[int]]:
    """Gives the seen and the unseen classes among the candidates, without background."""
    numbers = label_ids(range(len(encoded["candidates"])), encoded["candidates"], classes)
    seen = np.asarray(encoded["seen"], dtype=bool)
    without = {_NONE, *background}
    return frozenset(numbers[seen].tolist()) - without, frozenset(numbers[~seen].tolist()) - without


def zero_shot_scores(
    videos: Iterable[tuple[Mapping[str, Any], ArrayLike]],
    classes: Sequence[str],
    background: Collection[int] = (),
) -> dict[str, float]:
    """Gives the metrics of generalised zero-shot labelling, in percent except ``gamma``.

    ``seen``, ``unseen`` and their harmonic mean ``H`` are those of the labels at the model's gamma;
    ``*_gamma0`` those without calibration; ``*_best`` those at the gamma that suits these very
    videos best, an upper bound. ``unseen_only`` takes the unseen classes as the only candidates
    (conventional zero-shot), beside ``chance_unseen_only``. ``*_untrained`` are those of raw text
    matching, by a projection that was never trained. ``Edit`` and ``F1`` of a group take all other
    classes as background. A closed-set model has ``unseen`` 0 and ``H`` 0 by construction.

    Args:
        videos: what ``encode_zero_shot`` gave, and the truth ``(L,)``, of each.
        classes: names of the data set's classes.
        background: numbers of its background classes.

    Returns:
        Metrics by name; none if no candidate is unseen, or all are.
    """
    pairs = [(encoded, np.asarray(truth, dtype=np.int64)) for encoded, truth in videos]
    pairs = [pair for pair in pairs if "margin" in pair[0]]
    if not pairs:
        return {}
    first = pairs[0][0]
    seen, unseen = groups_of(first, classes, background)
    frames = FrameScores.joined([frame_scores(*pair, classes) for pair in pairs])
    labels = _stretched("labels", pairs, classes)
    joined = _joined(labels, pairs)
    curve = stacking_curve(frames, seen, unseen)
    metrics = {
        **_accuracies(frames.truth, joined, seen, unseen, ""),
        **_accuracies(frames.truth, frames.labels_at(0.0), seen, unseen, "_gamma0"),
        **_accuracies(
            frames.truth, frames.labels_at(curve.gammas[curve.best]), seen, unseen, "_best"
        ),
        "AUSUC": curve.area,
        "gamma": float(first["gamma"]),
        "gamma_best": float(curve.gammas[curve.best]),
        "frame_accuracy": 100 * float((joined == frames.truth).mean()) if len(joined) else 0.0,
        "unseen_only": group_accuracy(frames.truth, frames.best_unseen, unseen),
        "chance_unseen_only": 100 / len(unseen) if unseen else float("nan"),
    }
    if all("untrained" in encoded for encoded, _ in pairs):
        raw, only = (
            _joined(_stretched(name, pairs, classes), pairs)
            for name in ("untrained", "untrained_unseen")
        )
        metrics.update(_accuracies(frames.truth, raw, seen, unseen, "_untrained"))
        metrics["unseen_only_untrained"] = group_accuracy(frames.truth, only, unseen)
    for name, group in (("seen", seen), ("unseen", unseen)):
        metrics.update(_segment_scores(labels, pairs, group, len(classes), name))
    return metrics


def _stretched(name: str, pairs: Sequence[_Pair], classes: Sequence[str]) -> list[Ints]:
    """Gives labels of every video as classes of the data set, at the rate of its truth."""
    return [
        stretch(label_ids(encoded[name], encoded["candidates"], classes), len(truth))
        for encoded, truth in pairs
    ]


def _joined(labels: Sequence[Ints], pairs: Sequence[_Pair]) -> Ints:
    """Puts labels of the frames that have a truth together."""
    return np.concatenate([own[truth >= 0] for own, (_, truth) in zip(labels, pairs, strict=True)])


def _accuracies(
    truth: Ints, labels: Ints, seen: Collection[int], unseen: Collection[int], ending: str
) -> dict[str, float]:
    both = [group_accuracy(truth, labels, group) for group in (seen, unseen)]
    names = (f"seen{ending}", f"unseen{ending}", f"H{ending}")
    return dict(zip(names, (*both, float(harmonic_mean(*both))), strict=True))


def _segment_scores(
    labels: Sequence[Ints],
    pairs: Sequence[_Pair],
    group: Collection[int],
    num_classes: int,
    name: str,
) -> dict[str, float]:
    """Gives edit score and F1 of a group, all other classes being background."""
    others = frozenset(range(num_classes)) - frozenset(group)
    counts = [
        count_video(own, truth, num_classes, others)
        for own, (_, truth) in zip(labels, pairs, strict=True)
    ]
    found = summary(pool(counts, num_classes), others)
    return {f"{key}_{name}": found[key] for key in ("Edit", *F1_NAMES)}


def _weights(truth: Ints, group: Collection[int]) -> Floats:
    """Gives each frame of a group's classes a weight; those of a class sum up to its share."""
    members = np.array(sorted(group), dtype=np.int64)
    if not len(members) or not len(truth):
        return np.zeros(len(truth))
    counts = np.bincount(truth, minlength=int(members[-1]) + 1)
    present = members[counts[members] > 0]
    table = np.zeros(len(counts))
    table[present] = 1 / (counts[present] * max(len(present), 1))
    return table[truth]
