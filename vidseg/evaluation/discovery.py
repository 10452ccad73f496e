"""How well segments found without labels agree with objects, in frames and in whole videos.

Everything is read off contingency tables, one per frame: how many pixels of each object lie in each
segment. The table of a video is the sum of those of its frames. All figures are fractions.

Sources: adjusted Rand index, Hubert and Arabie (Journal of Classification 2, 1985), equation 5, on
the foreground as in MONet (Burgess et al., 2019); best overlap, Pont-Tuset et al. (TPAMI 39, 2017),
section 5, over slots as in DINOSAUR (Seitzer et al., ICLR 2023), appendix.

Shapes: C objects, S segments, T frames. A table is ``(..., 1 + C, S)``; its row 0 is background.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseg.assignment import linear_sum_assignment

__all__ = [
    "Share",
    "adjusted_rand_index",
    "contingency_tables",
    "foreground_ari",
    "identity_shares",
    "label_map",
    "mean_best_overlap",
    "mean_matched_iou",
    "mean_shares",
    "object_iou",
    "psnr",
    "score_segments",
    "used_segments",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Share = tuple[float, float]
"""A sum and how many values it is of: shares of several videos are added, then divided."""

IGNORED = -1
_MAX_LABEL = 1024  # larger numbers are renumbered: a table has a row for each number up to the last
_MIN_MSE = 1e-10  # 100 dB


def label_map(masks: NDArray[Any]) -> NDArray[np.int16]:
    """Puts the masks of objects into one map.

    Args:
        masks: bool ``(C, T, H, W)`` or ``(C, H, W)``, without one of the background.

    Returns:
        ``(T, H, W)`` or ``(H, W)``: 0 background, k the k-th object, -1 where objects overlap.
    """
    masks = np.asarray(masks) != 0
    depth = masks.sum(0)
    numbers = np.arange(1, len(masks) + 1, dtype=np.int16)
    labels = np.tensordot(numbers, masks, axes=1) if len(masks) else np.zeros(masks.shape[1:])
    return np.where(depth > 1, IGNORED, labels).astype(np.int16)


def contingency_tables(
    labels: NDArray[Any], segments: NDArray[Any], *, num_segments: int | None = None
) -> Ints:
    """Counts the pixels of every object that lie in every segment, frame by frame.

    Args:
        labels: integers ``(T, H, W)``: 0 background, k an object, negative not counted at all.
        segments: integers ``(T, H, W)``: the segment of every pixel, from 0 on.
        num_segments: S; by default the largest number of a segment plus one.

    Returns:
        ``(T, 1 + C, S)``. Objects and segments keep their numbers, unless these pass 1024: then
        they are numbered anew in ascending order.

    Raises:
        ValueError: if the shapes differ, the numbers are no integers or those of segments negative
            or not below ``num_segments``.
    """
    labels, segments = np.asarray(labels), np.asarray(segments)
    if labels.shape != segments.shape or labels.ndim != 3:
        raise ValueError(
            "labels and segments must have one shape (T, H, W), "
            f"not {labels.shape} and {segments.shape}"
        )
    if labels.dtype.kind not in "iub" or segments.dtype.kind not in "iub":
        raise ValueError(
            f"labels and segments are numbers of objects, not {labels.dtype} and {segments.dtype}"
        )
    if segments.size and segments.min() < 0:
        raise ValueError("segments are numbered from 0 on; leave pixels out by negative labels")
    num_frames = len(labels)
    flat = (num_frames, math.prod(labels.shape[1:]))
    rows = _renumber(labels.reshape(flat), keep=0)
    columns = segments.reshape(flat)
    if num_segments is None:
        columns = _renumber(columns)
    num_rows = max(int(rows.max(initial=0)), 0) + 1
    num_columns = int(columns.max(initial=-1)) + 1
    if num_segments is not None:
        if num_columns > num_segments:
            raise ValueError(f"segment {num_columns - 1} is not below {num_segments}")
        num_columns = num_segments
    num_columns = max(num_columns, 1)
    cells = (rows.astype(np.int64) * num_columns) + columns
    cells += np.arange(num_frames)[:, None] * (num_rows * num_columns)
    counts = np.bincount(cells[rows >= 0], minlength=num_frames * num_rows * num_columns)
    return counts.reshape(num_frames, num_rows, num_columns)


def adjusted_rand_index(tables: Ints) -> Floats:
    """Gives the share of pairs of pixels on which two partitions agree, beyond chance.

    Args:
        tables: ``(..., R, S)`` of counts, rows against columns.

    Returns:
        ``(...)``, at most 1; 1 where chance alone agrees in full: one cluster on both sides, or
        only clusters of single pixels, or no pixel.
    """
    counts = np.asarray(tables, np.int64)

    def pairs(numbers: Ints) -> Ints:
        return np.asarray(numbers * (numbers - 1) // 2)

    both = pairs(counts).sum((-2, -1))
    in_rows, in_columns = pairs(counts.sum(-1)).sum(-1), pairs(counts.sum(-2)).sum(-1)
    in_all = pairs(counts.sum((-2, -1)))
    # Told from whole numbers: rounding would make a denominator of nought a tiny one.
    certain = (in_rows == in_columns) & ((in_rows == 0) | (in_rows == in_all))
    chance = in_rows * (in_columns / np.maximum(in_all, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        index = (both - chance) / ((in_rows + in_columns) / 2 - chance)
    return np.where(certain, 1.0, index)


def foreground_ari(tables: Ints, *, empty: float = math.nan) -> Floats:
    """Gives the adjusted Rand index of the pixels of objects alone (FG-ARI).

    Args:
        tables: ``(..., 1 + C, S)``.
        empty: what a table with fewer than two pixels of objects counts as: it has no pair of
            pixels. Left out by default; with 1 the figures are those of evaluators that give the
            background a channel of its own, and higher. A table without any pixel, as of a frame
            of padding, is always left out.
    """
    foreground = np.asarray(tables)[..., 1:, :]
    is_nothing = np.asarray(tables).sum((-2, -1)) == 0
    index = np.where(foreground.sum((-2, -1)) < 2, empty, adjusted_rand_index(foreground))
    return np.where(is_nothing, math.nan, index)


def object_iou(tables: Ints) -> Floats:
    """Gives the IoU of every object and segment ``(..., C, S)``; 0 where both are absent.

    The pixels of a segment on the background count.
    """
    counts = np.asarray(tables, np.int64)
    union = counts.sum(-1)[..., None] + counts.sum(-2)[..., None, :] - counts
    return np.asarray((counts / np.maximum(union, 1))[..., 1:, :])


def mean_best_overlap(tables: Ints) -> Floats:
    """Gives the mean over objects of their best IoU with any segment (mBO), nan without objects.

    One segment may be the best of several objects.
    """
    best = object_iou(tables).max(-1)
    return _over_present(best.sum(-1), tables)


def mean_matched_iou(tables: Ints) -> Floats:
    """Gives the mean IoU of objects with segments matched one to one, nan without objects.

    The matching is the one with the largest sum of IoU; an object without a segment counts as 0.
    """
    iou = object_iou(tables)
    best = np.zeros(iou.shape[:-2])
    for index in np.ndindex(best.shape):
        rows, columns = linear_sum_assignment(iou[index], maximize=True)
        best[index] = iou[index][rows, columns].sum()
    return _over_present(best, tables)


def identity_shares(tables: Ints) -> dict[str, Share]:
    """Tells how steadily objects stay with their segments.

    The owner of an object in a frame is the segment with most of its pixels, the first of equals.
    A single segment for the whole video owns everything all the time, so these figures mean
    something only beside FG-ARI.

    Args:
        tables: ``(T, 1 + C, S)`` of consecutive frames.

    Returns:
        ``consistency``: pairs of consecutive frames, both with the object, that have the same
        owner, of all such pairs. ``switches``: changes of the owner from one frame with the object
        to the next one, hidden frames between them or not, per object. ``return``: objects that
        were hidden and have the same owner before and after, of all such returns.
        ``majority_share``: frames in the most frequent owner, of all frames with the object, mean
        over objects.
    """
    objects = np.asarray(tables)[:, 1:]
    owners, visible = objects.argmax(-1), objects.sum(-1) > 0  # (T, C)
    pairs = visible[1:] & visible[:-1]
    same = pairs & (owners[1:] == owners[:-1])
    switches = returns = num_returns = num_objects = 0
    majority = 0.0
    for column, shown in zip(owners.T, visible.T, strict=True):
        frames = np.flatnonzero(shown)
        if not len(frames):
            continue
        seen = column[frames]
        has_changed, was_hidden = seen[1:] != seen[:-1], np.diff(frames) > 1
        num_objects += 1
        switches += int(has_changed.sum())
        num_returns += int(was_hidden.sum())
        returns += int((was_hidden & ~has_changed).sum())
        majority += np.bincount(seen).max() / len(seen)
    return {
        "consistency": (float(same.sum()), float(pairs.sum())),
        "switches": (float(switches), float(num_objects)),
        "return": (float(returns), float(num_returns)),
        "majority_share": (float(majority), float(num_objects)),
    }


def score_segments(
    labels: NDArray[Any], segments: NDArray[Any], *, first_frame: bool = True
) -> dict[str, Share]:
    """Scores the segments of a video by every figure of this module.

    Args:
        labels: ``(T, H, W)``, see ``contingency_tables``.
        segments: ``(T, H, W)``, the same segment with the same number in all frames.
        first_frame: whether the first frame counts; some protocols give its boxes away.

    Returns:
        ``FG-ARI``, ``FG-ARI_empty_is_1``, ``ARI`` (of all pixels), ``mBO`` and ``mIoU`` under
        ``video/`` and ``image/``, and those of ``identity_shares`` under ``identity/``; what is
        undefined is a sum over nothing. Give those of many videos to ``mean_shares``.

    Raises:
        ValueError: see ``contingency_tables``.
    """
    start = 0 if first_frame else 1
    tables = contingency_tables(labels[start:], segments[start:])
    shares: dict[str, Share] = {}
    for level, counts in (("video", tables.sum(0, keepdims=True)), ("image", tables)):
        shares[f"{level}/FG-ARI"] = _share(foreground_ari(counts))
        shares[f"{level}/FG-ARI_empty_is_1"] = _share(foreground_ari(counts, empty=1.0))
        is_known = counts.sum((1, 2)) > 0
        shares[f"{level}/ARI"] = _share(np.where(is_known, adjusted_rand_index(counts), math.nan))
        shares[f"{level}/mBO"] = _share(mean_best_overlap(counts))
        shares[f"{level}/mIoU"] = _share(mean_matched_iou(counts))
    shares |= {f"identity/{name}": share for name, share in identity_shares(tables).items()}
    return shares


def mean_shares(videos: Iterable[Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """Adds the shares of videos by name and divides; nan for a sum over nothing."""
    sums: dict[str, Floats] = {}
    for video in videos:
        for name, share in video.items():
            sums[name] = sums.get(name, np.zeros(2)) + np.asarray(share, np.float64)
    return {
        name: float(total / number) if number else math.nan
        for name, (total, number) in sums.items()
    }


def psnr(images: NDArray[Any], references: NDArray[Any]) -> Floats:
    """Gives the peak signal-to-noise ratio of every image in dB, 100 at most.

    Args:
        images: ``(T, ...)``; clipped to [0, 1], as it would be shown.
        references: the same shape, in [0, 1].
    """
    error = np.clip(np.asarray(images, np.float64), 0, 1) - np.asarray(references, np.float64)
    mse = np.square(error).reshape(len(error), -1).mean(1)
    return np.asarray(-10 * np.log10(np.maximum(mse, _MIN_MSE)))


def used_segments(segments: NDArray[Any], *, min_share: float = 0.01) -> float:
    """Gives the number of segments that hold more than ``min_share`` of a frame, mean over frames.

    Args:
        segments: integers ``(T, H, W)`` from 0 on.
        min_share: of the pixels.
    """
    areas = contingency_tables(np.zeros_like(segments), segments)[:, 0]  # (T, S)
    return float((areas > min_share * areas.sum(-1, keepdims=True)).sum(-1).mean())


def _renumber(numbers: NDArray[Any], *, keep: int = -1) -> NDArray[Any]:
    """Makes large numbers small, in their order; those up to ``keep`` stay as they are."""
    if not numbers.size or numbers.max() <= _MAX_LABEL:
        return numbers
    values, places = np.unique(numbers, return_inverse=True)
    kept = values <= keep
    new = np.where(kept, values, np.cumsum(~kept) + keep)
    return np.asarray(new[places].reshape(numbers.shape))


def _over_present(sums: Floats, tables: Ints) -> Floats:
    """Divides by the number of objects that have a pixel."""
    number = (np.asarray(tables)[..., 1:, :].sum(-1) > 0).sum(-1)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(number > 0, sums / number, math.nan))


def _share(values: Floats) -> Share:
    """Gives the sum and the number of the values that are defined."""
    defined = values[np.isfinite(values)]
    return float(defined.sum()), float(len(defined))
