"""Scores folders of label maps whose numbers stand for segments, not for classes.

The forms of the folders are those of ``label_videos``.
"""

from __future__ import annotations

import os

import numpy as np

from vidseg.errors import DataError

from .discovery import Share, mean_shares, score_segments
from .label_files import Ints, label_videos
from .merged_discovery import merged_shares
from .region_boundary import named_region_boundary_shares, region_boundary_shares

__all__ = ["PLAIN", "TASKS", "score_discovery", "score_region_boundary"]

PLAIN = ("identity/switches",)
"""Metrics that are no fractions."""

TASKS = ("unsupervised", "semi-supervised")
"""Of DAVIS."""

_VOID = 255  # in annotations

Figures = dict[str, float]


def score_region_boundary(
    gt: str | os.PathLike[str],
    results: str | os.PathLike[str],
    *,
    task: str = TASKS[0],
    strict: bool = False,
) -> tuple[Figures, dict[str, Figures]]:
    """Scores segments of objects by J&F.

    Args:
        gt: folder of annotations: 0 background, 255 void.
        results: folder of predictions: 0 no object.
        task: of ``TASKS``: whether segments and objects are matched, see
            ``region_boundary_shares``, or have the same numbers, see
            ``named_region_boundary_shares``.
        strict: see ``region_boundary_shares``; of no meaning for segments with numbers.

    Returns:
        J&F, J, F, their recall and their decay as means over the objects of the set, and the same
        by video; fractions.

    Raises:
        DataError: see ``label_videos``; if no video has an object, or a prediction has a number
            that no object has.
    """
    shares = {}
    for name, labels, found in label_videos(gt, results):
        truth = _with_void(labels)
        if task == "unsupervised":
            shares[name] = region_boundary_shares(truth, found, background=0, strict=strict)
            continue
        try:
            shares[name] = named_region_boundary_shares(truth, found)
        except ValueError as error:
            raise DataError(
                f"{results}, video {name}: {error}; predictions without the numbers of the "
                "annotations are scored by the task unsupervised"
            ) from None
    where = "" if task == "unsupervised" else " between the first and the last frame"
    return _means(gt, shares, "J&F", where)


def score_discovery(
    gt: str | os.PathLike[str], results: str | os.PathLike[str], *, merged: bool = False
) -> tuple[Figures, dict[str, Figures]]:
    """Scores slots by the figures of ``score_segments``.

    Args:
        gt: folder of annotations: 0 background, 255 not counted.
        results: folder of predictions: the slot of every pixel.
        merged: whether to follow the protocol of SOLV instead, see ``merged_shares``.

    Returns:
        the metrics of the set, and the same by video; fractions, but for those in ``PLAIN``.

    Raises:
        DataError: see ``label_videos``; if no video has an object.
    """
    score = merged_shares if merged else score_segments
    shares = {
        name: score(_with_void(labels), found) for name, labels, found in label_videos(gt, results)
    }
    return _means(gt, shares, "mIoU" if merged else "video/mBO")


def _with_void(labels: Ints) -> Ints:
    return np.where(labels == _VOID, -1, labels)


def _means(
    gt: str | os.PathLike[str], shares: dict[str, dict[str, Share]], needed: str, where: str = ""
) -> tuple[Figures, dict[str, Figures]]:
    if not any(share[needed][1] for share in shares.values()):
        raise DataError(
            f"no video of {gt} has an object{where}, so there is nothing to score against"
        )
    return mean_shares(shares.values()), {
        name: mean_shares([share]) for name, share in shares.items()
    }
