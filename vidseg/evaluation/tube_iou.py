"""Overlap of tracks as tubes of masks: the quantity that YouTube-VIS AP is built on.

The IoU of two tracks is (sum over frames of intersections) / (sum over frames of unions): not the
mean of the IoUs of the frames. All sums are exact integers.

Source: Yang et al., "Video Instance Segmentation", ICCV 2019, section 3.2.

Shapes: N tracks (M other tracks), S masks of all N tracks laid end to end, P pairs of tracks, T
frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, pairwise
from operator import itemgetter
from typing import Any

import numpy as np

from vidseg import rle as rle_ops
from vidseg.mask_runs import MaskError, MaskRuns, read_areas, read_runs
from vidseg.rle import RLE

__all__ = ["Tubes", "pair_ious", "tube_ious"]

MAX_PAIR_FRAMES = 1 << 16  # pair-frames looked at together; bounds the memory of the comparison


@dataclass
class Tubes:
    """Tracks of any number of videos, with what can be known about each mask alone.

    Args:
        masks: the S masks, an RLE (``counts`` text or bytes) or ``None`` where absent.
        starts: place of the first mask of each track, int64 ``(N,)``.
        lengths: number of frames of each track, int64 ``(N,)``.
        areas: foreground pixels, int64 ``(S,)``.
        sizes: height * 2^32 + width of each mask, 0 where absent, int64 ``(S,)``.
        bounds: where the runs of the masks begin and end, as in ``MaskRuns``, int64 ``(B,)``.
        spans: first and last + 1 of the bounds of each mask, int64 ``(S, 2)``.
    """

    masks: list[RLE | None]
    starts: np.ndarray
    lengths: np.ndarray
    areas: np.ndarray
    sizes: np.ndarray
    bounds: np.ndarray
    spans: np.ndarray

    def __post_init__(self) -> None:
        """Has no boxes yet."""
        self._has_box = np.zeros(len(self.masks), dtype=bool)
        self._boxes = np.zeros((len(self.masks), 4), dtype=np.int64)

    @classmethod
    def from_masks(
        cls,
        masks: Sequence[Sequence[RLE | None]],
        name: Callable[[int], str] = "track {}".format,
        *,
        is_compared: bool = True,
    ) -> Tubes:
        """Measures the masks of N tracks.

        Args:
            masks: per track and frame an RLE, ``None`` where absent.
            name: gives the name by which messages call a track, from its number.
            is_compared: whether more than the areas will be asked for.

        Raises:
            ValueError: if an RLE has no size or is damaged.
        """
        flat = list(chain.from_iterable(masks))
        lengths = np.array([len(track) for track in masks], dtype=np.int64)
        starts = np.cumsum(lengths) - lengths
        frames = np.arange(len(flat)) - np.repeat(starts, lengths)
        places = np.flatnonzero([mask is not None for mask in flat])
        present = [mask for mask in flat if mask is not None]
        try:
            heights, widths = _sides(present)
            texts = list(map(itemgetter("counts"), present))
            if is_compared:
                runs = read_runs(texts, heights, widths, frames[places])
            else:
                runs = MaskRuns.without_bounds(read_areas(texts, heights, widths))
        except MaskError as error:
            place = places[error.index]
            track = int(np.searchsorted(starts + lengths, place, side="right"))
            raise ValueError(f"{name(track)}, frame {frames[place]}: {error}") from None
        areas, sizes = np.zeros(len(flat), dtype=np.int64), np.zeros(len(flat), dtype=np.int64)
        areas[places], sizes[places] = runs.areas, (heights << 32) + widths
        spans = np.zeros((len(flat), 2), dtype=np.int64)
        spans[places] = np.stack([runs.starts[:-1], runs.starts[1:]], axis=1)
        return cls(flat, starts, lengths, areas, sizes, runs.bounds, spans)

    def __len__(self) -> int:
        """Number of tracks."""
        return len(self.lengths)

    def mean_areas(self) -> np.ndarray:
        """Gives the mean area of each track over the frames where it is visible, 0 if never."""
        sums, visible = (self._sums(values) for values in (self.areas, self.areas > 0))
        return sums / np.maximum(visible, 1)

    def pieces(self, first: np.ndarray, last: np.ndarray) -> list[np.ndarray]:
        """Gives the bounds of stretches of masks from the places of their first and last ones."""
        ends = zip(self.spans[first, 0].tolist(), self.spans[last, 1].tolist(), strict=True)
        return [self.bounds[start:stop] for start, stop in ends]

    def boxes_at(self, places: np.ndarray) -> np.ndarray:
        """Gives boxes ``x0, y0, x1, y1`` of the masks at some places, int64 ``(..., 4)``."""
        new = _new(self._has_box, places)
        if len(new):
            boxes = rle_ops.boxes([self.masks[place] for place in new.tolist()])
            boxes[:, 2:] += boxes[:, :2]
            self._boxes[new] = boxes
        return self._boxes[places]

    def _sums(self, values: np.ndarray) -> np.ndarray:
        sums = np.concatenate([[0], np.cumsum(values)])
        return sums[self.starts + self.lengths] - sums[self.starts]


def tube_ious(rows: Tubes, columns: Tubes, *, min_iou: float = 0.0) -> np.ndarray:
    """Gives the IoU of every track of one video with every other: ``pair_ious`` of all pairs.

    Returns:
        float64 ``(N, M)``.

    Raises:
        ValueError: see there.
    """
    grid = np.indices((len(rows), len(columns))).reshape(2, -1)
    return pair_ious(rows, columns, *grid, min_iou=min_iou).reshape(len(rows), len(columns))


def pair_ious(
    rows: Tubes,
    columns: Tubes,
    row_of: np.ndarray,
    column_of: np.ndarray,
    *,
    min_iou: float = 0.0,
) -> np.ndarray:
    """Gives the IoU of pairs of tracks.

    Frames beyond the shorter of two tracks are ignored, as is a frame whose two masks differ in
    size; where one mask is absent the other still adds to the union; two empty tracks give 0.

    Args:
        rows: N tracks.
        columns: M tracks.
        row_of: number of the first track of each pair, int64 ``(P,)``.
        column_of: number of the second track, int64 ``(P,)``.
        min_iou: pairs that provably stay below may be given a smaller value than they have; 0
            computes every pair exactly.

    Returns:
        float64 ``(P,)``.

    Raises:
        ValueError: if the runs of a mask that had to be looked at do not add up to its size.
    """
    result = np.zeros(len(row_of))
    frames = np.minimum(rows.lengths[row_of], columns.lengths[column_of])
    block = max(1, MAX_PAIR_FRAMES // max(1, int(frames.max(initial=0))))
    for start in range(0, len(row_of), block):
        part = slice(start, start + block)
        comparison = _Comparison(rows, columns, row_of[part], column_of[part])
        result[part] = comparison.ious(min_iou)
    return result


class _Comparison:
    """Intersections of P pairs of tracks, from cheap bounds to exact numbers.

    A bound per pair and frame, at first the smaller of the two areas, is lowered step by step: by
    the boxes of every other frame, then by the masks of these frames, then by the rest of the
    masks. A pair drops out as soon as its bounds show that it stays below the wanted IoU. Boxes
    take pycocotools a third of the time of an intersection: they are worth it for tracks that have
    several candidates each, and in every other frame they tell most.
    """

    def __init__(
        self, rows: Tubes, columns: Tubes, row_of: np.ndarray, column_of: np.ndarray
    ) -> None:
        self._rows, self._columns = rows, columns
        self._row_of, self._column_of = row_of, column_of
        lengths = np.minimum(rows.lengths[row_of], columns.lengths[column_of])[:, None]
        frames = np.arange(lengths.max(initial=0))
        counts = frames < lengths  # (P, T)
        # beyond its end a track is given the very first mask, which does not count
        self._row_places = np.where(counts, rows.starts[row_of, None] + frames, 0)
        self._column_places = np.where(counts, columns.starts[column_of, None] + frames, 0)
        row_sizes, column_sizes = rows.sizes[self._row_places], columns.sizes[self._column_places]
        counts &= (row_sizes == column_sizes) | (row_sizes == 0) | (column_sizes == 0)
        row_areas, column_areas = rows.areas[self._row_places], columns.areas[self._column_places]
        self._bounds = np.minimum(row_areas, column_areas) * counts
        self._totals = ((row_areas + column_areas) * counts).sum(axis=1)  # (P,)
        self._shared = np.zeros(len(row_of), dtype=np.int64)  # in the frames that are done

    def ious(self, min_iou: float) -> np.ndarray:
        """Gives the IoU of every pair that may reach ``min_iou``, and less for the others."""
        even = slice(0, None, 2)
        self._drop(min_iou)
        if self._have_many_candidates():
            self._apply_boxes(even)
            self._drop(min_iou)
            self._apply_masks(even)
            self._drop(min_iou)
        self._apply_masks(slice(None))
        shared = self._shared
        unions = self._totals - shared
        return np.divide(shared, unions, out=np.zeros(shared.shape), where=unions > 0)

    def _drop(self, min_iou: float) -> None:
        bounds = self._bounds.sum(axis=1) + self._shared
        # intersection / (total - intersection) < min_iou, with a pixel to spare for rounding
        self._bounds[bounds * (1 + min_iou) < min_iou * self._totals - 1] = 0

    def _have_many_candidates(self) -> bool:
        left = self._bounds.any(axis=1)
        sides = (self._row_of[left], self._column_of[left])
        return int(left.sum()) > sum(len(np.unique(side)) for side in sides)

    def _apply_boxes(self, frames: slice) -> None:
        """Lowers the bounds in some frames to the area that two boxes share."""
        bounds, places, a, b = self._left(frames)
        first, second = self._rows.boxes_at(a), self._columns.boxes_at(b)
        low = np.maximum(first[:, :2], second[:, :2])
        sides = np.maximum(np.minimum(first[:, 2:], second[:, 2:]) - low, 0)
        bounds[places] = np.minimum(bounds[places], sides[:, 0] * sides[:, 1])

    def _apply_masks(self, frames: slice) -> None:
        """Replaces the bounds in some frames by the exact intersections."""
        bounds, (pairs, times), a, b = self._left(frames)
        if len(a) == 0:
            return
        bounds[pairs, times] = 0
        # frames that follow each other are taken in one piece
        jumps = [
            np.diff(pairs, prepend=-1),
            np.diff(a, prepend=a[0]) - 1,
            np.diff(b, prepend=0) - 1,
        ]
        first = np.flatnonzero(np.any(jumps, axis=0))
        last = np.append(first[1:], len(a)) - 1
        rows = self._rows.pieces(a[first], a[last])
        columns = self._columns.pieces(b[first], b[last])
        starts = np.flatnonzero(np.diff(pairs[first], prepend=-1))
        differing = np.zeros(len(starts), dtype=np.int64)
        for index, (start, stop) in enumerate(pairwise([*starts.tolist(), len(first)])):
            # the bounds of two masks in one order are those of the pixels that only one of them has
            both = np.concatenate([*rows[start:stop], *columns[start:stop]])
            both.sort(kind="stable")  # merges two ascending parts
            differing[index] = (both[1::2] - both[::2]).sum()
        areas = np.add.reduceat(self._rows.areas[a] + self._columns.areas[b], first[starts])
        self._shared[pairs[first[starts]]] += (areas - differing) // 2

    def _left(self, frames: slice) -> tuple[np.ndarray, Any, np.ndarray, np.ndarray]:
        """Gives the bounds in some frames, where they are not 0, and the masks compared there."""
        bounds = self._bounds[:, frames]
        places = np.nonzero(bounds)
        a, b = self._row_places[:, frames][places], self._column_places[:, frames][places]
        return bounds, places, a, b


def _new(is_known: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Gives the places that were not known yet, each once, and marks them as known."""
    new = np.unique(places[~is_known[places]])
    is_known[new] = True
    return new


def _sides(masks: list[RLE]) -> np.ndarray:
    """Gives heights and widths, int64 ``(2, N)``."""
    sides: list[Any] = []
    lengths: list[int] = []
    for size, group in groupby(map(itemgetter("size"), masks)):
        if not _is_size(size):
            message = f"an RLE has size {size!r}, expected [height, width]"
            raise MaskError(message, sum(lengths))
        sides.append(size)
        lengths.append(len(list(group)))
    return np.repeat(np.array(sides, dtype=np.int64).reshape(-1, 2), lengths, axis=0).T


def _is_size(size: Any) -> bool:
    return (
        isinstance(size, (list, tuple))
        and len(size) == 2
        and all(isinstance(side, (int, np.integer)) and 0 < side < 1 << 31 for side in size)
    )
