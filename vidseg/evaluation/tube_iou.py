"""Overlap of tracks as tubes of masks: the quantity that YouTube-VIS AP is built on.

The IoU of two tracks is (sum over frames of intersections) / (sum over frames of unions): not the
mean of the IoUs of the frames. All sums are exact integers.

Source: Yang et al., "Video Instance Segmentation", ICCV 2019, section 3.2.

Shapes: N tracks (M other tracks), T frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from vidseg import rle as rle_ops
from vidseg.rle import RLE

__all__ = ["Tubes", "check_runs", "tube_ious"]

MAX_PAIR_FRAMES = 1 << 20  # pair-frames looked at together; bounds the memory of the box test
LAST_CHARACTERS = "P"  # the number that ends an RLE text is written with characters below this one


@dataclass
class Tubes:
    """Tracks of one video, with what can be known about each mask without comparing it.

    Args:
        masks: per track and frame an RLE (``counts`` text or bytes), ``None`` where absent.
        lengths: number of frames of each track, int64 ``(N,)``.
        present: whether the track has a mask in the frame, bool ``(N, T)``, T the longest length.
        areas: foreground pixels, int64 ``(N, T)``.
        sizes: height * 2^32 + width of each mask, 0 where absent, int64 ``(N, T)``.
    """

    masks: list[list[RLE | None]]
    lengths: np.ndarray
    present: np.ndarray
    areas: np.ndarray
    sizes: np.ndarray

    @classmethod
    def from_masks(cls, masks: Sequence[Sequence[RLE | None]]) -> Tubes:
        """Measures the masks of N tracks.

        Raises:
            ValueError: if an RLE has no size or its counts stop inside a number.
        """
        rows = [list(track) for track in masks]
        lengths = np.array([len(track) for track in rows], dtype=np.int64)
        shape = (len(rows), int(lengths.max(initial=0)))
        inside = np.arange(shape[1]) < lengths[:, None]
        present = np.zeros(shape, dtype=bool)
        present[inside] = [mask is not None for mask in chain.from_iterable(rows)]
        flat = [mask for mask in chain.from_iterable(rows) if mask is not None]
        areas, sizes = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        if flat:
            sides = _sizes(flat)
            areas[present] = _checked_areas(flat)
            sizes[present] = (sides[:, 0] << 32) + sides[:, 1]
        return cls(rows, lengths, present, areas, sizes)

    def __len__(self) -> int:
        """Number of tracks."""
        return len(self.masks)

    def select(self, rows: Sequence[int] | np.ndarray) -> Tubes:
        """Gives the tracks at the given row numbers, in that order."""
        index = np.asarray(rows, dtype=np.int64)
        masks = [self.masks[row] for row in index.tolist()]
        return Tubes(
            masks, self.lengths[index], self.present[index], self.areas[index], self.sizes[index]
        )

    def mean_areas(self) -> np.ndarray:
        """Gives the mean area of each track over the frames where it is visible, 0 if never."""
        visible = (self.areas > 0).sum(axis=1)
        return self.areas.sum(axis=1) / np.maximum(visible, 1)

    def boxes(self) -> np.ndarray:
        """Gives boxes ``x0, y0, x1, y1`` of all masks, float64 ``(N, T, 4)``; 0 where absent."""
        boxes = np.zeros((*self.present.shape, 4))
        flat = [mask for mask in chain.from_iterable(self.masks) if mask is not None]
        if flat:
            boxes[self.present] = rle_ops.boxes(flat)
            boxes[..., 2:] += boxes[..., :2]
        return boxes


def tube_ious(rows: Tubes, columns: Tubes, *, min_iou: float = 0.0) -> np.ndarray:
    """Gives the IoU of every pair of tracks.

    Frames beyond the shorter of two tracks are ignored, as is a frame whose two masks differ in
    size; where one mask is absent the other still adds to the union; two empty tracks give 0.

    Args:
        rows: N tracks.
        columns: M tracks of the same video.
        min_iou: pairs whose boxes and areas prove that they stay below are reported as 0 without
            touching their masks; 0 computes every pair exactly.

    Returns:
        float64 ``(N, M)``.

    Raises:
        ValueError: if the runs of a mask that had to be looked at do not add up to its size.
    """
    result = np.zeros((len(rows), len(columns)))
    frames = min(rows.present.shape[1], columns.present.shape[1])
    if result.size == 0 or frames == 0:
        return result
    row_boxes, column_boxes = rows.boxes()[:, :frames], columns.boxes()[:, :frames]
    block = max(1, MAX_PAIR_FRAMES // (len(columns) * frames))
    for start in range(0, len(rows), block):
        part = slice(start, start + block)
        bound = _intersection_bounds(
            rows.areas[part, :frames], row_boxes[part], columns.areas[:, :frames], column_boxes
        )
        totals = _pair_areas(rows, columns, part, bound)
        # intersection / (total - intersection) < min_iou, with a pixel to spare for rounding
        hopeless = bound.sum(axis=2) * (1 + min_iou) < min_iou * totals - 1
        bound[hopeless] = 0
        shared = _intersections(rows, columns, part, bound)
        unions = totals - shared
        np.divide(shared, unions, out=result[part], where=unions > 0)
    return result


def _intersection_bounds(
    row_areas: np.ndarray, row_boxes: np.ndarray, column_areas: np.ndarray, column_boxes: np.ndarray
) -> np.ndarray:
    """Gives a number of pixels that no intersection exceeds, float64 ``(N, M, T)``."""
    a, b = row_boxes[:, None], column_boxes[None]
    bound = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    heights = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    np.maximum(bound, 0, out=bound)
    bound *= np.maximum(heights, 0, out=heights)
    np.minimum(bound, row_areas[:, None], out=bound)
    return np.minimum(bound, column_areas[None], out=bound)


def _pair_areas(rows: Tubes, columns: Tubes, part: slice, bound: np.ndarray) -> np.ndarray:
    """Sums the areas of both masks over the frames that count for a pair, int64 ``(N, M)``.

    Frames that do not count are also struck out of ``bound``.
    """
    frames = bound.shape[2]
    lengths = (rows.lengths[part], columns.lengths)
    row_areas, column_areas = rows.areas[part, :frames], columns.areas[:, :frames]
    row_sizes, column_sizes = rows.sizes[part, :frames], columns.sizes[:, :frames]
    known = np.union1d(row_sizes, column_sizes)
    if np.count_nonzero(known) <= 1 and all((length == frames).all() for length in lengths):
        return row_areas.sum(axis=1)[:, None] + column_areas.sum(axis=1)[None]
    both = (row_sizes[:, None] > 0) & (column_sizes[None] > 0)
    counts = ~(both & (row_sizes[:, None] != column_sizes[None]))
    counts &= np.arange(frames) < np.minimum(lengths[0][:, None], lengths[1][None])[..., None]
    bound *= counts
    return ((row_areas[:, None] + column_areas[None]) * counts).sum(axis=2)


def _intersections(rows: Tubes, columns: Tubes, part: slice, bound: np.ndarray) -> np.ndarray:
    """Sums the intersections over the frames whose bound is positive, int64 ``(N, M)``."""
    shared = np.zeros(bound.shape[:2], dtype=np.int64)
    meets: np.ndarray = bound > 0
    places = np.nonzero(meets)
    if len(places[0]):
        rows = rows.select(range(len(rows))[part])
        _check_used(rows, np.asarray(meets.any(axis=1)))
        _check_used(columns, np.asarray(meets.any(axis=0)))
        # One merge per pair-frame: a matrix call of pycocotools would also compute the pairs that
        # were just ruled out, and costs as much as four merges before it starts.
        merge = coco_mask.merge
        both = [
            merge([rows.masks[row][frame], columns.masks[column][frame]], True)
            for row, column, frame in zip(*(axis.tolist() for axis in places), strict=True)
        ]
        np.add.at(shared, places[:2], rle_ops.area(both))
    return shared


def _check_used(tubes: Tubes, is_used: np.ndarray) -> None:
    """Checks the masks at the given places, bool ``(N, T)``, before C code compares them."""
    places = zip(*(axis.tolist() for axis in np.nonzero(is_used)), strict=True)
    masks: list[Any] = [tubes.masks[row][frame] for row, frame in places]
    check_runs(masks, tubes.areas[:, : is_used.shape[1]][is_used])


def _sizes(masks: list[RLE]) -> np.ndarray:
    sides = np.array([mask["size"] for mask in masks])
    if sides.shape != (len(masks), 2) or sides.dtype.kind not in "iu" or sides.min() < 1:
        wrong = next((mask["size"] for mask in masks if not _is_size(mask["size"])), None)
        raise ValueError(f"an RLE has size {wrong!r}, expected [height, width]")
    return sides.astype(np.int64)


def _is_size(size: Any) -> bool:
    return (
        isinstance(size, (list, tuple))
        and len(size) == 2
        and all(type(side) is int and side > 0 for side in size)
    )


def check_runs(masks: Sequence[RLE], areas: np.ndarray) -> None:
    """Checks that the runs of masks add up to their sizes.

    On a mask where they do not, pycocotools would read foreign memory or never return.

    Args:
        masks: N RLEs.
        areas: their areas.

    Raises:
        ValueError: if one is damaged.
    """
    first, tails = _first_runs([_text(mask) for mask in masks])
    # Without its first number an RLE has its runs of 0 where the runs of 1 were, so that the area
    # of the rest counts them. (The other runs come out wrong, as numbers are stored as differences
    # to the one before the last, but an area does not look at them.)
    rests = [{"size": (1, 1), "counts": tail} for tail in tails]
    covered = areas + first + rle_ops.area(rests)
    for mask, number in zip(masks, covered.tolist(), strict=True):
        height, width = mask["size"]
        if number != height * width:
            size = [height, width]
            raise ValueError(
                f"an RLE is damaged: its runs cover {number} pixels, its size is {size}"
            )


def _checked_areas(masks: list[RLE]) -> np.ndarray:
    # A text that stops inside a number would be read beyond its end.
    if not all(text and text[-1] < LAST_CHARACTERS for text in map(_text, masks)):
        raise ValueError("an RLE is damaged: its counts stop inside a number")
    return rle_ops.area(masks)


def _text(mask: RLE) -> str:
    counts = mask["counts"]
    return counts.decode("latin-1") if isinstance(counts, bytes) else counts


def _first_runs(texts: list[str]) -> tuple[np.ndarray, list[str]]:
    """Splits complete RLE texts into their first number, int64 ``(N,)``, and what follows."""
    numbers, tails = [], []
    for text in texts:
        value, place, code = 0, 0, 32
        while code & 32:
            code = ord(text[place]) - 48
            value |= (code & 31) << (5 * place)
            place += 1
        numbers.append(value)
        tails.append(text[place:])
    return np.array(numbers, dtype=np.int64), tails
