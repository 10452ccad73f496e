"""VPQ and STQ: how well segments of things and stuff are classified, found and followed.

Sources: video panoptic quality, Kim et al. (CVPR 2020), section 3, with the windows of VIPSeg, Miao
et al. (CVPR 2022), section 5; segmentation and tracking quality, Weber et al., STEP (NeurIPS 2021
Datasets and Benchmarks), section 4.

Shapes: T frames of H x W pixels, G annotated and P predicted tubes, C classes. A tube is a segment
through a whole video. In tables, row and column 0 are void.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "WINDOWS",
    "PanopticVideo",
    "STQCounts",
    "VPQCounts",
    "count_stq",
    "count_vpq",
    "stq",
    "vpq",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WINDOWS = (1, 2, 4, 6, 8)
"""Frames of a window; VPQ of n frames is also known as VPQ of k = 5(n - 1)."""

_MIN_IOU = 0.5  # of a match, which must be above
_MAX_VOID = 0.5  # share of an unmatched prediction above which it is not held against the method


@dataclass
class PanopticVideo:
    """What is counted in one video.

    Args:
        tables: pixels of annotated tubes (rows) in predicted ones (columns), row and column 0 void,
            ``(T, 1 + G, 1 + P)``.
        truth_classes: class of every annotated tube, from 0 on, ``(G,)``; tubes stand in the order
            in which the annotations name them first.
        found_classes: of every predicted tube, ``(P,)``.
        is_crowd: bool ``(G,)``.
        areas: pixels of annotated tubes as the annotations tell them, ``(T, G)``.
        is_listed: whether the annotations of a frame name the tube, bool ``(T, G)``.
    """

    tables: Ints
    truth_classes: Ints
    found_classes: Ints
    is_crowd: NDArray[np.bool_]
    areas: Ints
    is_listed: NDArray[np.bool_]


@dataclass
class VPQCounts:
    """Sums over windows of some length by class, each ``(C,)``."""

    iou: Floats
    hits: Ints
    false: Ints
    missed: Ints

    def __add__(self, other: VPQCounts) -> VPQCounts:
        """Puts windows together."""
        return VPQCounts(
            self.iou + other.iou,
            self.hits + other.hits,
            self.false + other.false,
            self.missed + other.missed,
        )


def count_vpq(video: PanopticVideo, num_frames: int, num_classes: int) -> VPQCounts:
    """Matches tubes in every window of a video.

    Args:
        video: one that is shorter than a window has none.
        num_frames: of a window.
        num_classes: C.
    """
    tables, areas, listed = (
        _in_windows(part, num_frames) for part in (video.tables, video.areas, video.is_listed)
    )
    found_areas, on_void = tables.sum(1)[:, 1:], tables[:, 0, 1:]  # (W, P)
    inside = tables[:, 1:, 1:]  # (W, G, P)
    union = (areas[:, :, None] + (found_areas - on_void)[:, None]) - inside
    same = video.truth_classes[:, None] == video.found_classes
    may_match = same & ~video.is_crowd[:, None] & (listed > 0)[:, :, None] & (inside > 0)
    iou = np.where(may_match, inside / np.maximum(union, 1), 0.0)
    iou[iou <= _MIN_IOU] = 0  # at most one is left for each tube
    # pixels that nobody asked for: void, and crowds of the same class
    excused = on_void + (inside * (same & video.is_crowd[:, None])).sum(1)
    is_false = (found_areas > 0) & ~iou.any(1) & ~(excused > _MAX_VOID * found_areas)
    is_missed = (listed > 0) & ~video.is_crowd & ~iou.any(2)

    def by_class(classes: Ints, values: NDArray[np.generic]) -> Floats:
        return np.asarray(np.bincount(classes, values.sum(0), minlength=num_classes), np.float64)

    return VPQCounts(
        by_class(video.truth_classes, iou.sum(2)),
        by_class(video.truth_classes, (iou > 0).sum(2)).astype(np.int64),
        by_class(video.found_classes, is_false).astype(np.int64),
        by_class(video.truth_classes, is_missed).astype(np.int64),
    )


def vpq(counts: VPQCounts) -> Floats:
    """Gives the quality of every class ``(C,)`` as a fraction, nan where it occurs nowhere."""
    weight = counts.hits + 0.5 * counts.false + 0.5 * counts.missed
    return np.where(weight > 0, counts.iou / np.maximum(weight, 0.5), math.nan)


@dataclass
class STQCounts:
    """What STQ adds up over videos.

    Args:
        association: sum of the association quality of things' tubes.
        num_tubes: how many there are.
        confusion: pixels of classes in predicted classes, ``(C, C + 1)``; column C is void.
    """

    association: float
    num_tubes: int
    confusion: Ints

    def __add__(self, other: STQCounts) -> STQCounts:
        """Puts videos together."""
        return STQCounts(
            self.association + other.association,
            self.num_tubes + other.num_tubes,
            self.confusion + other.confusion,
        )


def count_stq(video: PanopticVideo, is_thing: Sequence[bool], *, strict: bool = False) -> STQCounts:
    """Counts what STQ needs of a video.

    Predictions on void count in full, and segments that are annotated as crowds like all others: it
    is what VIPSeg's script does, and its figures are the published ones.

    Args:
        video: what is counted in it.
        is_thing: by class, C of them.
        strict: whether to repeat the fault of VIPSeg's script, which takes the first annotated
            segment of a video for a crowd if it is a thing.
    """
    table = video.tables.sum(0)
    num_classes = len(is_thing)
    thing = np.asarray(is_thing, bool)
    rows = np.append(num_classes, video.truth_classes)
    columns = np.append(num_classes, video.found_classes)
    confusion = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    np.add.at(confusion, (rows[:, None], columns), table)
    counted = thing[video.truth_classes]
    left_out = np.zeros_like(counted)
    if strict:
        left_out[:1] = counted[:1]
    counted = counted & ~left_out
    tubes = thing[video.found_classes]
    inside = table[1:, 1:][counted][:, tubes]
    truth_sizes = table[1:][counted].sum(1)
    found_sizes = (table[:, 1:].sum(0) - table[1:, 1:][left_out].sum(0))[tubes]
    union = truth_sizes[:, None] + found_sizes - inside
    quality = (inside * (inside / np.maximum(union, 1))).sum(1)
    is_there = truth_sizes > 0
    return STQCounts(
        float((quality[is_there] / truth_sizes[is_there]).sum()),
        int(is_there.sum()),
        confusion[:num_classes],
    )


def stq(counts: STQCounts) -> dict[str, float]:
    """Gives STQ, AQ and IoU as fractions, nan where undefined.

    Pixels that are predicted as void, though annotated, make void a class with IoU 0 in the mean.
    """
    square = np.pad(counts.confusion, ((0, 1), (0, 0)))  # annotated void is not looked at
    union = square.sum(0) + square.sum(1) - np.diag(square)
    iou = float((np.diag(square)[union > 0] / union[union > 0]).mean()) if union.any() else math.nan
    association = counts.association / counts.num_tubes if counts.num_tubes else math.nan
    return {"STQ": math.sqrt(association * iou), "AQ": association, "IoU": iou}


def _in_windows(values: NDArray[np.generic], num_frames: int) -> Ints:
    """Sums values ``(T, ...)`` over all windows of some frames, ``(T - num_frames + 1, ...)``."""
    sums = np.cumsum(values, axis=0, dtype=np.int64)
    sums = np.concatenate([np.zeros_like(sums[:1]), sums])
    return np.asarray(sums[num_frames:] - sums[:-num_frames])
