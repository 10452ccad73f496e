"""The protocol of SOLV: objects keep the segment that fits them best, the rest is background.

Its figures are not comparable with those of ``discovery``: segments without an object are merged
before they are scored, and the mean of IoU is over objects of the whole set.

Source: SOLV, Aydemir et al., Self-supervised Object-centric Learning for Videos (NeurIPS 2023),
section 4.

Shapes: C objects, S segments, T frames.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseg.assignment import linear_sum_assignment

from .discovery import Share, contingency_tables, foreground_ari

__all__ = ["merged_shares"]


def merged_shares(labels: NDArray[Any], segments: NDArray[Any]) -> dict[str, Share]:
    """Scores the segments of a video after those without an object became background.

    Args:
        labels: ``(T, H, W)``, see ``contingency_tables``.
        segments: ``(T, H, W)``.

    Returns:
        ``mIoU``: of every object the mean over frames in which it or its segment is, summed over
        objects. ``FG-ARI``: mean over frames, of one video. A video without objects has neither.
    """
    tables = contingency_tables(labels, segments)
    union = tables.sum(2)[:, :, None] + tables.sum(1)[:, None] - tables  # (T, 1 + C, S)
    num_frames = (union > 0).sum(0)
    means = (tables / np.maximum(union, 1)).sum(0) / np.maximum(num_frames, 1)
    present = np.flatnonzero(tables[:, 1:].sum((0, 2))) + 1
    if not len(present):
        return {"mIoU": (0.0, 0.0), "FG-ARI": (0.0, 0.0)}
    rows, columns = linear_sum_assignment(means[present], maximize=True)
    others = np.setdiff1d(np.arange(tables.shape[2]), columns)
    merged = np.concatenate(
        [tables[..., columns], tables[..., others].sum(-1, keepdims=True)], axis=-1
    )
    of_frames = foreground_ari(merged)
    of_frames = of_frames[np.isfinite(of_frames)]
    return {
        "mIoU": (float(means[present[rows], columns].sum()), float(len(present))),
        "FG-ARI": (float(of_frames.mean()), 1.0) if len(of_frames) else (0.0, 0.0),
    }
