"""Region and boundary scores J and F of segments that were found without being asked for.

Source: DAVIS, Perazzi et al. (CVPR 2016), section 4, and its unsupervised protocol for several
objects, Caelles et al. (2019), section 3.

Shapes: C objects, S segments, T frames of H x W pixels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseg.assignment import linear_sum_assignment

from .discovery import Share, contingency_tables

__all__ = ["region_boundary_shares"]

_TOLERANCE = 0.008  # of the diagonal, that boundaries may lie apart

Masks = NDArray[np.bool_]
Floats = NDArray[np.float64]


def region_boundary_shares(
    labels: NDArray[Any], segments: NDArray[Any], *, background: int | None = None
) -> dict[str, Share]:
    """Scores the segments of a video that fit its objects best, one to one.

    Both scores of an object are means over all frames; where neither it nor its segment is there,
    they are 1. An object that no segment is left for has 0.

    Args:
        labels: integers ``(T, H, W)``: 0 background, k an object, negative void: cut out of the
            segments.
        segments: integers ``(T, H, W)`` from 0 on.
        background: a segment that stands for no object; with slots, which of them it is is unknown.

    Returns:
        Fractions ``J``, ``F`` and their mean ``J&F``, each a sum over objects.
    """
    labels, segments = np.asarray(labels), np.asarray(segments)
    objects = np.unique(labels[labels > 0])
    names = np.unique(segments)
    tables = contingency_tables(
        np.where(labels > 0, np.searchsorted(objects, labels) + 1, np.minimum(labels, 0)),
        np.searchsorted(names, segments),
    )
    union = tables.sum(2)[:, :, None] + tables.sum(1)[:, None] - tables
    regions = np.where(union > 0, tables / np.maximum(union, 1), 1.0)[:, 1:]  # (T, C, S)
    means = regions[..., names != background].sum(0) / max(len(regions), 1)
    names = names[names != background]
    region = boundary = 0.0
    for row, column in zip(*linear_sum_assignment(means, maximize=True), strict=True):
        found = (segments == names[column]) & (labels >= 0)
        region += float(means[row, column])
        boundary += float(_boundary_scores(found, labels == objects[row]).mean())
    count = float(len(objects))
    return {
        "J": (region, count),
        "F": (boundary, count),
        "J&F": ((region + boundary) / 2, count),
    }


def _boundary_scores(found: Masks, truth: Masks) -> Floats:
    """Gives the F measure of the boundaries of every frame, masks ``(T, H, W)``."""
    radius = math.ceil(_TOLERANCE * math.hypot(*found.shape[1:]))
    lines = _boundary(found), _boundary(truth)
    near = _dilate(lines[0], radius), _dilate(lines[1], radius)
    counts = [line.sum((1, 2)) for line in lines]
    hits = [(line & other).sum((1, 2)) for line, other in zip(lines, near[::-1], strict=True)]
    has_none = [count == 0 for count in counts]
    precision, recall = (
        np.where(none, 1.0, hit / np.maximum(count, 1))
        for none, hit, count in zip(has_none, hits, counts, strict=True)
    )
    total = precision + recall
    return np.asarray(np.where(total > 0, 2 * precision * recall / np.maximum(total, 1e-12), 0.0))


def _boundary(masks: Masks) -> Masks:
    """Marks the pixels that differ from their right, lower or lower right neighbour."""
    right = np.zeros_like(masks)
    below = np.zeros_like(masks)
    right[..., :-1] = masks[..., :-1] ^ masks[..., 1:]
    below[..., :-1, :] = masks[..., :-1, :] ^ masks[..., 1:, :]
    line = right | below
    line[..., :-1, :-1] |= masks[..., :-1, :-1] ^ masks[..., 1:, 1:]
    return line


def _dilate(masks: Masks, radius: int) -> Masks:
    """Widens masks by a disc; a row at a time, as a disc is a stack of segments."""
    height, width = masks.shape[-2:]
    padded = np.pad(masks, ((0, 0), (0, 0), (radius + 1, radius)))
    before = padded.cumsum(-1, dtype=np.int32)  # (T, H, W + 2 radius + 1)
    wide = np.zeros_like(masks)
    for shift in range(-radius, radius + 1):
        half = math.isqrt(radius**2 - shift**2)
        start = radius - half
        row = before[..., start + 2 * half + 1 :][..., :width] > before[..., start:][..., :width]
        source = slice(max(0, -shift), min(height, height - shift))
        target = slice(max(0, shift), min(height, height + shift))
        wide[..., target, :] |= row[..., source, :]
    return wide
