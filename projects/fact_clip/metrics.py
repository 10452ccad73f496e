"""How well action labels fit: frame accuracy, edit score and F1 of segments, by video and class.

The metrics of temporal action segmentation (Lea et al., "Temporal Convolutional Networks for Action
Segmentation and Detection", CVPR 2017), with the conventions of the published FACT code (Lu and
Elhamifar, CVPR 2024): segments of background classes are left out of the edit score and of F1, and
frames whose true class is background out of ``Acc``.

A negative class means that there is none: where the truth says so the frame is left out altogether
and cuts the segments around it; where only the prediction says so it is wrong and in no segment.

Shapes: L frames, S segments, C classes, K overlaps.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "F1_NAMES",
    "OVERLAPS",
    "Segments",
    "VideoCounts",
    "count_video",
    "edit_score",
    "f1_scores",
    "find_segments",
    "match_segments",
    "pool",
    "stretch",
    "summary",
]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

OVERLAPS = (0.1, 0.25, 0.5)
"""IoU of segments from which on one is found, for F1@10, F1@25 and F1@50."""

F1_NAMES = tuple(f"F1@{round(100 * overlap)}" for overlap in OVERLAPS)
"""What F1 is called at each of the overlaps."""

_TINY = 1e-5  # in the denominators, as published: a perfect result has 99.999
_NONE = -1


class Segments(NamedTuple):
    """Runs of equal labels, in order.

    Attributes:
        classes: ``(S,)``.
        starts: ``(S,)`` first frame.
        stops: ``(S,)`` frame after the last.
    """

    classes: Ints
    starts: Ints
    stops: Ints


@dataclass(frozen=True)
class VideoCounts:
    """What the metrics of a video, or by sums those of many, are made of.

    Attributes:
        true_frames: ``(C,)`` frames of a class, by the truth.
        predicted_frames: ``(C,)`` frames of a class, by the prediction.
        right_frames: ``(C,)`` frames of a class where both agree.
        true_segments: ``(C,)`` segments of a class; 0 for background.
        predicted_segments: ``(C,)`` likewise.
        hits: ``(K, C)`` true segments that were found, by overlap.
        edit: edit score in percent; nan if neither has a segment.
    """

    true_frames: Ints
    predicted_frames: Ints
    right_frames: Ints
    true_segments: Ints
    predicted_segments: Ints
    hits: Ints
    edit: float


def find_segments(labels: ArrayLike) -> Segments:
    """Cuts labels ``(L,)`` into runs of equal ones."""
    values = np.asarray(labels, dtype=np.int64)
    if not len(values):
        return Segments(values, values, values)
    cuts = np.flatnonzero(np.diff(values)) + 1
    starts = np.concatenate([[0], cuts])
    return Segments(values[starts], starts, np.append(cuts, len(values)))


def stretch(labels: ArrayLike, length: int) -> Ints:
    """Brings labels ``(T,)`` to another number of frames by nearest neighbour.

    Args:
        labels: at least one.
        length: L, to stretch or shrink to.

    Returns:
        ``(L,)``; frame i has the label of frame ``floor(i T / L)``.
    """
    values = np.asarray(labels, dtype=np.int64)
    return values[np.arange(length) * len(values) // max(length, 1)]


def edit_score(prediction: ArrayLike, truth: ArrayLike) -> float:
    """Compares two orders of actions, whatever their durations.

    Args:
        prediction: ``(S',)`` classes of the segments, in order.
        truth: ``(S,)``.

    Returns:
        ``100 (1 - d / max(S, S'))`` with the Levenshtein distance d; nan if both are empty.
    """
    one, other = sorted((np.asarray(prediction), np.asarray(truth)), key=len)
    if not len(other):
        return float("nan")
    places = np.arange(len(other) + 1)
    row = places
    for number, action in enumerate(one, start=1):
        replaced = row[:-1] + (other != action)
        best = np.concatenate([[number], np.minimum(row[1:] + 1, replaced)])
        # Insertions run along the row: D[j] = min over k <= j of best[k] + (j - k).
        row = np.minimum.accumulate(best - places) + places
    return float((1 - row[-1] / len(other)) * 100)


def match_segments(
    prediction: Segments, truth: Segments, overlaps: Sequence[float] = OVERLAPS
) -> NDArray[np.bool_]:
    """Tells which true segments were found.

    Each predicted segment goes to the true one of its class with the largest IoU, the first of
    equals; that one is found if the IoU is not below the overlap.

    Args:
        prediction: runs that cover the same frames as those of ``truth``, with background.
        truth: likewise.
        overlaps: K of them, above 0.

    Returns:
        ``(K, S)``.
    """
    found = np.zeros((len(overlaps), len(truth.classes)), dtype=bool)
    # Two runs that meet share one stretch between neighbouring cuts of either: S + S' at most.
    starts = np.union1d(prediction.starts, truth.starts)
    if not len(starts):
        return found
    shared = np.diff(np.append(starts, truth.stops[-1]))
    mine = np.searchsorted(prediction.starts, starts, side="right") - 1
    theirs = np.searchsorted(truth.starts, starts, side="right") - 1
    same = prediction.classes[mine] == truth.classes[theirs]
    mine, theirs, shared = mine[same], theirs[same], shared[same]
    lengths = (prediction.stops - prediction.starts)[mine] + (truth.stops - truth.starts)[theirs]
    iou = shared / (lengths - shared)
    order = np.lexsort((theirs, -iou, mine))
    _, first = np.unique(mine[order], return_index=True)
    best = order[first]
    for row, overlap in zip(found, overlaps, strict=True):
        row[theirs[best][iou[best] >= overlap]] = True
    return found


def count_video(
    prediction: ArrayLike, truth: ArrayLike, num_classes: int, background: Collection[int] = ()
) -> VideoCounts:
    """Counts what the metrics of one video are made of.

    Args:
        prediction: ``(T,)`` labels; stretched if T is not L.
        truth: ``(L,)`` labels.
        num_classes: C; labels are below.
        background: classes whose segments do not count.
    """
    true = np.asarray(truth, dtype=np.int64)
    predicted = stretch(prediction, len(true)) if len(true) else true
    true, predicted = np.maximum(true, _NONE), np.maximum(predicted, _NONE)
    predicted = np.where(true == _NONE, _NONE, predicted)
    true_runs, predicted_runs = find_segments(true), find_segments(predicted)
    found = match_segments(predicted_runs, true_runs)
    left_out = [*background, _NONE]
    actions = ~np.isin(true_runs.classes, left_out)
    predicted_actions = predicted_runs.classes[~np.isin(predicted_runs.classes, left_out)]
    true_actions = true_runs.classes[actions]

    def count(classes: Ints) -> Ints:
        return np.bincount(classes[classes >= 0], minlength=num_classes)

    return VideoCounts(
        true_frames=count(true),
        predicted_frames=count(predicted),
        right_frames=count(true[true == predicted]),
        true_segments=count(true_actions),
        predicted_segments=count(predicted_actions),
        hits=np.stack([count(true_runs.classes[row & actions]) for row in found]),
        edit=edit_score(predicted_actions, true_actions),
    )


def f1_scores(hits: ArrayLike, predicted: ArrayLike, true: ArrayLike) -> Floats:
    """Gives F1 in percent from numbers of segments, which broadcast.

    Args:
        hits: true segments that were found.
        predicted: predicted segments, so that ``predicted - hits`` are false positives.
        true: true segments.
    """
    tp = np.asarray(hits, dtype=np.float64)
    precision = tp / (np.asarray(predicted) + _TINY)
    recall = tp / (np.asarray(true) + _TINY)
    return np.asarray(2.0 * (precision * recall) / (precision + recall + _TINY) * 100)


def pool(videos: Sequence[VideoCounts], num_classes: int) -> VideoCounts:
    """Brings the counts of videos together: sums, and the mean of the edit scores that there are.

    Args:
        videos: any number of them.
        num_classes: C.
    """

    def total(name: str) -> Ints:
        shape = (len(OVERLAPS), num_classes) if name == "hits" else (num_classes,)
        return np.sum([np.zeros(shape, np.int64), *(getattr(one, name) for one in videos)], axis=0)

    edits = [one.edit for one in videos if not np.isnan(one.edit)]
    sums = {field.name: total(field.name) for field in fields(VideoCounts) if field.name != "edit"}
    return VideoCounts(**sums, edit=float(np.mean(edits)) if edits else float("nan"))


def summary(counts: VideoCounts, background: Collection[int] = ()) -> dict[str, float]:
    """Gives the metrics of a video or of pooled videos, in percent; what is undefined is nan.

    Args:
        counts: of one video, or what ``pool`` gave.
        background: classes that ``Acc`` leaves out; those that ``count_video`` was given.

    Returns:
        ``Acc``, ``AccB`` (with background), ``Edit``, ``F1@10``, ``F1@25`` and ``F1@50``.
    """
    right, frames = counts.right_frames, counts.true_frames
    actions = ~np.isin(np.arange(len(frames)), list(background))
    f1 = f1_scores(counts.hits.sum(1), counts.predicted_segments.sum(), counts.true_segments.sum())
    return {
        "Acc": _percent(right[actions].sum(), frames[actions].sum()),
        "AccB": _percent(right.sum(), frames.sum()),
        "Edit": counts.edit,
        **dict(zip(F1_NAMES, f1.tolist(), strict=True)),
    }


def _percent(part: int, whole: int) -> float:
    return float(part / whole * 100) if whole else float("nan")
