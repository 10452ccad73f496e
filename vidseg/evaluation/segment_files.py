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
from .region_boundary import region_boundary_shares

__all__ = ["PLAIN", "score_discovery", "score_region_boundary"]

PLAIN = ("identity/switches",)
"""Metrics that are no fractions."""

_VOID = 255  # in annotations

Figures = dict[str, float]


def score_region_boundary(
    gt: str | os.PathLike[str], results: str | os.PathLike[str]
) -> tuple[Figures, dict[str, Figures]]:
    """Scores segments of objects by J&F, see ``region_boundary_shares``.

    Args:
        gt: folder of annotations: 0 background, 255 void.
        results: folder of predictions: 0 no object.

    Returns:
        J&F, J and F as means over the objects of the set, and the same by video; fractions.

    Raises:
        DataError: see ``label_videos``; if no video has an object.
    """
    shares = {
        name: region_boundary_shares(_with_void(labels), found, background=0)
        for name, labels, found in label_videos(gt, results)
    }
    return _means(gt, {name: _first(share, "J&F") for name, share in shares.items()}, "J&F")


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


def _first(shares: dict[str, Share], name: str) -> dict[str, Share]:
    return {name: shares[name]} | shares


def _means(
    gt: str | os.PathLike[str], shares: dict[str, dict[str, Share]], needed: str
) -> tuple[Figures, dict[str, Figures]]:
    if not any(share[needed][1] for share in shares.values()):
        raise DataError(f"no video of {gt} has an object, so there is nothing to score against")
    return mean_shares(shares.values()), {
        name: mean_shares([share]) for name, share in shares.items()
    }
