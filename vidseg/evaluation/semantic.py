"""mIoU and VC: how well the pixels of videos are classified, and how steadily.

Source: VSPW, Miao et al. (CVPR 2021), section 5.1: video consistency over windows of frames.

Shapes: T frames of H x W pixels, C classes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseg.errors import DataError

from .label_files import label_videos

__all__ = [
    "HEADLINE",
    "NUM_CLASSES",
    "WINDOWS",
    "SemanticScores",
    "confusion_matrix",
    "consistency",
    "score_semantic",
    "semantic_metrics",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.integer[Any]]

NUM_CLASSES = 124  # of VSPW
WINDOWS = (8, 16)
"""Frames of the windows of VC8 and VC16."""
HEADLINE = ("mIoU", "fwIoU", "Acc", "Acc_class", *(f"VC{length}" for length in WINDOWS))
"""Metrics that a table shows."""

_VOID = 255


@dataclass
class SemanticScores:
    """What ``score_semantic`` found; fractions, nan where undefined.

    Args:
        metrics: those of ``HEADLINE``.
        iou: of every class, ``(C,)``, nan for those that are not annotated.
        per_video: ``metrics`` by video.
    """

    metrics: dict[str, float]
    iou: Floats
    per_video: dict[str, dict[str, float]]


def score_semantic(
    gt: str | os.PathLike[str],
    results: str | os.PathLike[str],
    *,
    num_classes: int = NUM_CLASSES,
    strict: bool = False,
) -> SemanticScores:
    """Scores predicted classes of pixels against annotated ones.

    Args:
        gt: folder as in ``label_videos``: 0 and 255 void, k class k - 1.
        results: the same of the predictions: 0 is the first class already.
        num_classes: C.
        strict: whether to repeat the fault of VSPW's script, whose VC16 is the mean over windows of
            8 and 16 frames.

    Raises:
        DataError: see ``label_videos``; if a label is no class.
    """
    confusions: dict[str, Ints] = {}
    windows: dict[str, list[Floats]] = {}
    for name, labels, found in label_videos(gt, results):
        truth = np.where((labels == 0) | (labels == _VOID), -1, labels - 1)
        for folder, values, first in ((gt, truth, 1), (results, found, 0)):
            wrong = values[values >= num_classes]
            if wrong.size:
                raise DataError(
                    f"{folder}, video {name}: label {int(wrong[0]) + first} is none of "
                    f"{num_classes} classes, which are {first} to {num_classes - 1 + first}; with "
                    "other classes than those of VSPW give their number"
                )
        confusions[name] = confusion_matrix(truth, found, num_classes)
        windows[name] = [consistency(truth, found, length) for length in WINDOWS]
    total = np.sum(list(confusions.values()), axis=0)
    every = [np.concatenate(parts) for parts in zip(*windows.values(), strict=True)]
    return SemanticScores(
        semantic_metrics(total) | _consistency_means(every, strict=strict),
        _class_iou(total),
        {
            name: semantic_metrics(confusions[name])
            | _consistency_means(windows[name], strict=strict)
            for name in confusions
        },
    )


def confusion_matrix(truth: Ints, found: Ints, num_classes: int) -> Ints:
    """Counts the pixels of every class (rows) by their predicted class, ``(C, C)``.

    Args:
        truth: classes from 0 on, negative void, any shape.
        found: classes from 0 on, the same shape.
        num_classes: C.
    """
    known = truth >= 0
    cells = np.bincount(truth[known] * num_classes + found[known], minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def semantic_metrics(confusion: Ints) -> dict[str, float]:
    """Gives mIoU, the frequency-weighted fwIoU, Acc of pixels and Acc_class, the mean over classes.

    Only classes that are annotated count; all are nan if there is none.

    Args:
        confusion: ``(C, C)``, see ``confusion_matrix``.
    """
    sizes, hits = confusion.sum(1), np.diag(confusion)
    known = sizes > 0
    if not known.any():
        return dict.fromkeys(("mIoU", "fwIoU", "Acc", "Acc_class"), math.nan)
    iou = _class_iou(confusion)[known]
    return {
        "mIoU": float(iou.mean()),
        "fwIoU": float((iou * sizes[known]).sum() / sizes.sum()),
        "Acc": float(hits.sum() / sizes.sum()),
        "Acc_class": float((hits[known] / sizes[known]).mean()),
    }


def consistency(truth: Ints, found: Ints, num_frames: int) -> Floats:
    """Tells for windows of a video how many pixels that keep their class keep the predicted one.

    The predicted class need not be right, and void is a class like others. The last window is not
    looked at, as in VSPW's script.

    Args:
        truth: classes ``(T, H, W)``.
        found: the same of predictions.
        num_frames: of a window.

    Returns:
        Fractions ``(T - num_frames,)``, or none for a video that is not longer than a window; nan
        for a window in which no pixel keeps its class.
    """
    stays = [one[1:] == one[:-1] for one in (truth, found)]  # (T - 1, H, W)
    shares = []
    for start in range(len(truth) - num_frames):
        part = slice(start, start + num_frames - 1)
        steady = stays[0][part].all(0)
        number = int(steady.sum())
        both = int((steady & stays[1][part].all(0)).sum())
        shares.append(both / number if number else math.nan)
    return np.array(shares, np.float64)


def _class_iou(confusion: Ints) -> Floats:
    sizes, hits = confusion.sum(1), np.diag(confusion)
    union = sizes + confusion.sum(0) - hits
    return np.asarray(np.where(sizes > 0, hits / np.maximum(union, 1), math.nan))


def _consistency_means(windows: Sequence[Floats], *, strict: bool) -> dict[str, float]:
    means = {}
    for place, length in enumerate(WINDOWS):
        values = np.concatenate(windows[: place + 1]) if strict else windows[place]
        values = values[~np.isnan(values)]
        means[f"VC{length}"] = float(values.mean()) if len(values) else math.nan
    return means
