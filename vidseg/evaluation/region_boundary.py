"""Region and boundary scores J and F of segments.

Source: DAVIS, Perazzi et al. (CVPR 2016), section 4; for several objects, Pont-Tuset et al. (2017),
section 4, and the unsupervised protocol, Caelles et al. (2019), section 3.

Shapes: C objects, S segments, T frames of H x W pixels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseg.assignment import linear_sum_assignment

from .discovery import Share, contingency_tables

__all__ = ["named_region_boundary_shares", "region_boundary_shares"]

_TOLERANCE = 0.008  # of the diagonal, that boundaries may lie apart
_RECALLED = 0.5
_BINS = 4  # of the frames, for decay

Masks = NDArray[np.bool_]
Floats = NDArray[np.float64]


def region_boundary_shares(
    labels: NDArray[Any],
    segments: NDArray[Any],
    *,
    background: int | None = None,
    strict: bool = False,
) -> dict[str, Share]:
    """Scores the segments of a video that fit its objects best, one to one.

    Both scores of an object are means over all frames; where neither it nor its segment is there,
    they are 1. An object that no segment is left for has 0.

    Args:
        labels: integers ``(T, H, W)``: 0 background, k an object, negative void: cut out of the
            segments.
        segments: integers ``(T, H, W)`` from 0 on.
        background: a segment that stands for no object; with slots, which of them it is is unknown.
        strict: whether to do as the script of DAVIS does: the best fit is that by J and F, not by J
            alone, and an object that no segment is left for has 1 in frames where it is absent.

    Returns:
        Fractions, each a sum over objects: ``J&F``, the mean of ``J`` and ``F``; of both also
        ``-Recall``, the share of frames above 0.5, and ``-Decay``, by how much the mean of the
        first quarter of the frames exceeds that of the last.
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
    regions, names = regions[..., names != background], names[names != background]
    if strict and len(names) < len(objects):  # segments without a pixel are left for the others
        absent = np.stack([(labels != one).all((1, 2)) for one in objects], axis=1)  # (T, C)
        missing = len(objects) - len(names)
        regions = np.concatenate([regions, np.repeat(absent[..., None], missing, 2)], axis=2)
        names = np.append(names, segments.max() + 1 + np.arange(missing))

    def boundaries(row: int, column: int) -> Floats:
        found = (segments == names[column]) & (labels >= 0)
        return _boundary_scores(found, labels == objects[row])

    fits = regions.sum(0) / max(len(regions), 1)  # (C, S)
    if strict:
        for row, column in np.ndindex(fits.shape):
            fits[row, column] += boundaries(row, column).mean()
    scores = np.zeros((2, len(objects), len(labels)))
    for row, column in zip(*linear_sum_assignment(fits, maximize=True), strict=True):
        scores[:, row] = regions[:, row, column], boundaries(row, column)
    return _shares(*scores)


def named_region_boundary_shares(labels: NDArray[Any], segments: NDArray[Any]) -> dict[str, Share]:
    """Scores segments that bear the number of their object: the semi-supervised task of DAVIS.

    The first frame was given and the last is left out, as in the published script. Void is
    background.

    Args:
        labels: integers ``(T, H, W)``: k an object, others none.
        segments: integers ``(T, H, W)``: k the segment of object k, 0 none.

    Returns:
        As ``region_boundary_shares``.

    Raises:
        ValueError: if a segment bears the number of no object.
    """
    labels, segments = np.asarray(labels), np.asarray(segments)
    objects = np.unique(labels[labels > 0])
    unknown = np.setdiff1d(segments, [0, *objects])
    if len(unknown):
        raise ValueError(f"there is no object {unknown[0]}, which a prediction has")
    scores = np.zeros((2, len(objects), max(0, len(labels) - 2)))
    for row, number in enumerate(objects if scores.size else ()):
        truth, found = labels[1:-1] == number, segments[1:-1] == number
        union = (truth | found).sum((1, 2))
        regions = np.where(union > 0, (truth & found).sum((1, 2)) / np.maximum(union, 1), 1.0)
        scores[:, row] = regions, _boundary_scores(found, truth)
    return _shares(*scores)


def _shares(regions: Floats, boundaries: Floats) -> dict[str, Share]:
    """Sums up over objects, from scores ``(C, T)``; without a frame there is no object."""
    count = float(len(regions)) if regions.size else 0.0
    shares: dict[str, Share] = {"J&F": (0.0, count)}
    for name, scores in (("J", regions), ("F", boundaries)):
        length = max(scores.shape[1], 1)
        shares[name] = (float(scores.sum() / length), count)
        shares[f"{name}-Recall"] = (float((scores > _RECALLED).sum() / length), count)
        shares[f"{name}-Decay"] = (float(sum(map(_decay, scores if count else ()))), count)
    return shares | {"J&F": ((shares["J"][0] + shares["F"][0]) / 2, count)}


def _decay(scores: Floats) -> float:
    """Gives the mean of the first bin of frames less that of the last; bins share their ends."""
    # What is halfway is rounded up. The published script keeps these in a byte: past 256 frames
    # its bins are wrong.
    ends = np.round(np.linspace(1, len(scores), _BINS + 1) + 1e-10).astype(int) - 1
    return float(scores[: ends[1] + 1].mean() - scores[ends[-2] :].mean())


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
