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
FIRST_CHARACTERS = 7  # as many as pycocotools writes for a number of 32 bits
ANY_SIZE = (1, 1)
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

    def masks_at(self, is_used: np.ndarray, frames: slice) -> list[Any]:
        """Gives the masks at the places of a bool array over some of the frames, in its order."""
        tracks = [track[frames] for track in self.masks]
        places = zip(*(axis.tolist() for axis in np.nonzero(is_used)), strict=True)
        return [tracks[row][frame] for row, frame in places]


def tube_ious(
    rows: Tubes, columns: Tubes, *, wanted: np.ndarray | None = None, min_iou: float = 0.0
) -> np.ndarray:
    """Gives the IoU of every pair of tracks.

    Frames beyond the shorter of two tracks are ignored, as is a frame whose two masks differ in
    size; where one mask is absent the other still adds to the union; two empty tracks give 0.

    Args:
        rows: N tracks.
        columns: M tracks of the same video.
        wanted: pairs to compare, bool ``(N, M)``, ``None`` for all; the others are given 0.
        min_iou: pairs that provably stay below may be given a smaller value than they have; 0
            computes every pair exactly.

    Returns:
        float64 ``(N, M)``.

    Raises:
        ValueError: if the runs of a mask that had to be looked at do not add up to its size.
    """
    result = np.zeros((len(rows), len(columns)))
    frames = min(rows.present.shape[1], columns.present.shape[1])
    if result.size == 0 or frames == 0:
        return result
    block = max(1, MAX_PAIR_FRAMES // (len(columns) * frames))
    for start in range(0, len(rows), block):
        stop = start + block
        part = rows if block >= len(rows) else rows.select(range(len(rows))[start:stop])
        comparison = _Comparison(part, columns, frames)
        if wanted is not None:
            comparison.leave_out(~wanted[start:stop])
        result[start:stop] = comparison.ious(min_iou)
    return result


class _Comparison:
    """Intersections of all pairs of N and M tracks, from cheap bounds to exact numbers.

    A bound per pair and frame, at first the smaller of the two areas, is lowered step by step: by
    the boxes of every other frame, then by the masks of these frames, then by the rest of the
    masks. A pair drops out as soon as its bounds show that it stays below the wanted IoU. (Boxes
    take pycocotools nearly as long as an intersection, and every other frame tells most.)
    """

    def __init__(self, rows: Tubes, columns: Tubes, frames: int) -> None:
        self._rows, self._columns = rows, columns
        self._bounds = np.minimum(
            rows.areas[:, None, :frames], columns.areas[None, :, :frames]
        )  # (N, M, T)
        self._totals = _pair_areas(rows, columns, self._bounds)  # (N, M)

    def leave_out(self, pairs: np.ndarray) -> None:
        """Takes pairs, bool ``(N, M)``, for disjoint."""
        self._bounds[pairs] = 0

    def ious(self, min_iou: float) -> np.ndarray:
        """Gives the IoU of every pair that may reach ``min_iou``, and less for the others."""
        even, odd = slice(0, None, 2), slice(1, None, 2)
        self._drop(min_iou)
        self._apply_boxes(even)
        self._drop(min_iou)
        meets: np.ndarray = self._bounds > 0
        _check_used(self._rows, np.asarray(meets.any(axis=1)))
        _check_used(self._columns, np.asarray(meets.any(axis=0)))
        self._apply_masks(even)
        self._drop(min_iou)
        self._apply_masks(odd)
        shared = self._bounds.sum(axis=2)
        unions = self._totals - shared
        return np.divide(shared, unions, out=np.zeros(shared.shape), where=unions > 0)

    def _drop(self, min_iou: float) -> None:
        bounds = self._bounds.sum(axis=2)
        # intersection / (total - intersection) < min_iou, with a pixel to spare for rounding
        self._bounds[bounds * (1 + min_iou) < min_iou * self._totals - 1] = 0

    def _apply_boxes(self, frames: slice) -> None:
        """Lowers the bounds in some frames to the area that two boxes share."""
        bounds = self._bounds[:, :, frames]
        meets = bounds > 0
        a = _used_boxes(self._rows, meets.any(axis=1), frames)[:, None]  # (N, 1, T, 4)
        b = _used_boxes(self._columns, meets.any(axis=0), frames)[None]
        widths = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
        heights = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
        np.minimum(bounds, np.maximum(widths, 0) * np.maximum(heights, 0), out=bounds)

    def _apply_masks(self, frames: slice) -> None:
        """Replaces the bounds in some frames by the exact intersections."""
        bounds = self._bounds[:, :, frames]
        places = np.nonzero(bounds > 0)
        if len(places[0]) == 0:
            return
        rows = [track[frames] for track in self._rows.masks]
        columns = [track[frames] for track in self._columns.masks]
        # One merge per pair and frame: a matrix call of pycocotools computes pairs that were ruled
        # out, and before it starts takes as long as several merges.
        merge = coco_mask.merge
        both = [
            merge([rows[row][frame], columns[column][frame]], True)
            for row, column, frame in zip(*(axis.tolist() for axis in places), strict=True)
        ]
        bounds[places] = rle_ops.area(both)


def _used_boxes(tubes: Tubes, is_used: np.ndarray, frames: slice) -> np.ndarray:
    """Gives boxes ``x0, y0, x1, y1`` of the masks at the used places, int64 ``(N, T, 4)``."""
    boxes = np.zeros((*is_used.shape, 4), dtype=np.int64)
    masks = tubes.masks_at(is_used, frames)
    if masks:
        boxes[is_used] = rle_ops.boxes(masks)
        boxes[..., 2:] += boxes[..., :2]
    return boxes


def _check_used(tubes: Tubes, is_used: np.ndarray) -> None:
    """Checks the masks at the used places, bool ``(N, T)``, before C code compares them."""
    num_frames = is_used.shape[1]
    masks = tubes.masks_at(is_used, slice(None))
    if masks:
        areas, sizes = tubes.areas[:, :num_frames], tubes.sizes[:, :num_frames]
        check_runs(masks, areas[is_used], sizes[is_used])


def _pair_areas(rows: Tubes, columns: Tubes, bounds: np.ndarray) -> np.ndarray:
    """Sums the areas of both masks over the frames that count for a pair, int64 ``(N, M)``.

    Frames that do not count are also struck out of ``bounds``.
    """
    frames = bounds.shape[2]
    row_areas, column_areas = rows.areas[:, :frames], columns.areas[:, :frames]
    row_sizes, column_sizes = rows.sizes[:, :frames], columns.sizes[:, :frames]
    size = column_sizes.max()
    has_one_size = all(((some == 0) | (some == size)).all() for some in (row_sizes, column_sizes))
    if has_one_size and rows.lengths.min() >= frames and columns.lengths.min() >= frames:
        return row_areas.sum(axis=1)[:, None] + column_areas.sum(axis=1)[None]
    both = (row_sizes[:, None] > 0) & (column_sizes[None] > 0)
    counts = ~(both & (row_sizes[:, None] != column_sizes[None]))
    shorter = np.minimum(rows.lengths[:, None], columns.lengths[None])
    counts &= np.arange(frames) < shorter[..., None]
    bounds *= counts
    return ((row_areas[:, None] + column_areas[None]) * counts).sum(axis=2)


def _sizes(masks: list[RLE]) -> np.ndarray:
    """Gives heights and widths, int64 ``(N, 2)``."""
    try:
        sides = np.array([mask["size"] for mask in masks])
    except ValueError:  # of unequal lengths
        sides = np.zeros(0)
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


def check_runs(masks: Sequence[RLE], areas: np.ndarray, sizes: np.ndarray) -> None:
    """Checks that the runs of masks add up to their sizes.

    On a mask where they do not, pycocotools would never return.

    Args:
        masks: N RLEs, none of whose texts stops inside a number.
        areas: their areas, ``(N,)``.
        sizes: as in ``Tubes``, ``(N,)``.

    Raises:
        ValueError: if one is damaged.
    """
    first, tails = _first_runs(_texts(masks))
    # Without its first number an RLE has its runs of 0 where the runs of 1 were, so that the area
    # of the rest counts them. (The other runs come out wrong, as numbers are stored as differences
    # to the one before the last, but an area does not look at them.)
    rests = [{"size": ANY_SIZE, "counts": tail} for tail in tails]
    covered = areas + first + rle_ops.area(rests)
    wrong = np.flatnonzero(covered != (sizes >> 32) * (sizes & 0xFFFFFFFF))
    if len(wrong):
        number, size = covered[wrong[0]], list(masks[wrong[0]]["size"])
        raise ValueError(f"an RLE is damaged: its runs cover {number} pixels, its size is {size}")


def _checked_areas(masks: list[RLE]) -> np.ndarray:
    # A text that stops inside a number would be read beyond its end.
    if not all([text and text[-1] < LAST_CHARACTERS for text in _texts(masks)]):
        raise ValueError("an RLE is damaged: its counts stop inside a number")
    return rle_ops.area(masks)


def _texts(masks: Sequence[RLE]) -> list[str]:
    texts = [mask["counts"] for mask in masks]
    if all([type(text) is str for text in texts]):
        return texts
    return [text.decode("latin-1") if isinstance(text, bytes) else text for text in texts]


def _first_runs(texts: list[str]) -> tuple[np.ndarray, list[str]]:
    """Splits complete RLE texts into their first number, int64 ``(N,)``, and what follows."""
    # A number has 5 bits per character, the lowest first; bit 6 says that there is more.
    starts = "".join([text[:FIRST_CHARACTERS].ljust(FIRST_CHARACTERS, "0") for text in texts])
    codes = np.frombuffer(starts.encode("latin-1", "replace"), dtype=np.uint8).astype(np.int64) - 48
    codes = codes.reshape(len(texts), FIRST_CHARACTERS)
    has_more = (codes & 32) > 0
    belongs = np.ones_like(has_more)
    belongs[:, 1:] = np.logical_and.accumulate(has_more[:, :-1], axis=1)
    shifts = 5 * np.arange(FIRST_CHARACTERS)
    numbers = np.where(belongs, (codes & 31) << shifts, 0).sum(axis=1)
    lengths = belongs.sum(axis=1).tolist()
    return numbers, [text[length:] for text, length in zip(texts, lengths, strict=True)]
