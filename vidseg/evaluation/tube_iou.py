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
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from vidseg import rle as rle_ops
from vidseg.rle import RLE

__all__ = ["MaskError", "Tubes", "check_runs", "pair_ious", "tube_ious"]

MAX_PAIR_FRAMES = 1 << 16  # pair-frames looked at together; bounds the memory of the comparison
NEAR_MASKS = 255  # masks measured together: they stay in the cache from one look to the next
FIRST_CHARACTERS = 7  # as many as pycocotools writes for a number of 32 bits
ANY_SIZE = (1, 1)
LAST_CHARACTERS = "P"  # the number that ends an RLE text is written with characters below this one


class MaskError(ValueError):
    """A mask that cannot be measured.

    Args:
        message: what is wrong with it.
        index: its place among the masks that were given.
    """

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index


@dataclass
class Tubes:
    """Tracks of any number of videos, with what can be known about each mask alone.

    Args:
        masks: the S masks, an RLE (``counts`` text or bytes) or ``None`` where absent.
        starts: place of the first mask of each track, int64 ``(N,)``.
        lengths: number of frames of each track, int64 ``(N,)``.
        areas: foreground pixels, int64 ``(S,)``.
        sizes: height * 2^32 + width of each mask, 0 where absent, int64 ``(S,)``.
        name: gives the name by which messages call a track, from its number.
    """

    masks: list[RLE | None]
    starts: np.ndarray
    lengths: np.ndarray
    areas: np.ndarray
    sizes: np.ndarray
    name: Callable[[int], str]

    def __post_init__(self) -> None:
        """Has no boxes and no checked masks yet."""
        self._is_checked = np.zeros(len(self.masks), dtype=bool)
        self._has_box = np.zeros(len(self.masks), dtype=bool)
        self._boxes = np.zeros((len(self.masks), 4), dtype=np.int64)

    @classmethod
    def from_masks(
        cls, masks: Sequence[Sequence[RLE | None]], name: Callable[[int], str] = "track {}".format
    ) -> Tubes:
        """Measures the masks of N tracks.

        Args:
            masks: per track and frame an RLE, ``None`` where absent.
            name: gives the name by which messages call a track, from its number.

        Raises:
            ValueError: if an RLE has no size or its counts stop inside a number.
        """
        flat = list(chain.from_iterable(masks))
        lengths = np.array([len(track) for track in masks], dtype=np.int64)
        starts = np.cumsum(lengths) - lengths
        areas, sizes = np.zeros(len(flat), dtype=np.int64), np.zeros(len(flat), dtype=np.int64)
        tubes = cls(flat, starts, lengths, areas, sizes, name)
        places = np.flatnonzero([mask is not None for mask in flat])
        present = [mask for mask in flat if mask is not None]
        for start in range(0, len(present), NEAR_MASKS):
            part = slice(start, start + NEAR_MASKS)
            try:
                sizes[places[part]] = _sizes(present[part])
                areas[places[part]] = _areas(present[part])
            except MaskError as error:
                raise tubes._named(error, places[part]) from None
        return tubes

    def __len__(self) -> int:
        """Number of tracks."""
        return len(self.lengths)

    def mean_areas(self) -> np.ndarray:
        """Gives the mean area of each track over the frames where it is visible, 0 if never."""
        sums, visible = (self._sums(values) for values in (self.areas, self.areas > 0))
        return sums / np.maximum(visible, 1)

    def check(self, places: np.ndarray) -> None:
        """Checks the masks at some places before C code compares them.

        Raises:
            ValueError: if the runs of a mask do not add up to its size.
        """
        new = _new(self._is_checked, places)
        masks = [self.masks[place] for place in new.tolist()]
        try:
            check_runs(masks, self.areas[new], self.sizes[new])
        except MaskError as error:
            raise self._named(error, new) from None

    def boxes_at(self, places: np.ndarray) -> np.ndarray:
        """Gives boxes ``x0, y0, x1, y1`` of the masks at some places, int64 ``(..., 4)``."""
        new = _new(self._has_box, places)
        if len(new):
            boxes = rle_ops.boxes([self.masks[place] for place in new.tolist()])
            boxes[:, 2:] += boxes[:, :2]
            self._boxes[new] = boxes
        return self._boxes[places]

    def _named(self, error: MaskError, places: np.ndarray) -> ValueError:
        place = places[error.index]
        track = int(np.searchsorted(self.starts + self.lengths, place, side="right"))
        return ValueError(f"{self.name(track)}, frame {place - self.starts[track]}: {error}")

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

    def ious(self, min_iou: float) -> np.ndarray:
        """Gives the IoU of every pair that may reach ``min_iou``, and less for the others."""
        even, odd = slice(0, None, 2), slice(1, None, 2)
        self._drop(min_iou)
        if self._have_many_candidates():
            self._apply_boxes(even)
            self._drop(min_iou)
        self._apply_masks(even)
        self._drop(min_iou)
        self._apply_masks(odd)
        shared = self._bounds.sum(axis=1)
        unions = self._totals - shared
        return np.divide(shared, unions, out=np.zeros(shared.shape), where=unions > 0)

    def _drop(self, min_iou: float) -> None:
        bounds = self._bounds.sum(axis=1)
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
        bounds, places, a, b = self._left(frames)
        shared = np.zeros(len(a), dtype=np.int64)
        for start in range(0, len(a), NEAR_MASKS):
            part = slice(start, start + NEAR_MASKS)
            shared[part] = self._intersections(a[part], b[part])
        bounds[places] = shared

    def _intersections(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        self._rows.check(a)
        self._columns.check(b)
        rows, columns = self._rows.masks, self._columns.masks
        # One merge per pair and frame: a matrix call of pycocotools computes pairs that were ruled
        # out, and before it starts takes as long as several merges.
        merge = coco_mask.merge
        pairs = zip(a.tolist(), b.tolist(), strict=True)
        return rle_ops.area([merge([rows[i], columns[j]], True) for i, j in pairs])

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


def _sizes(masks: list[RLE]) -> np.ndarray:
    """Gives height * 2^32 + width, int64 ``(N,)``."""
    try:
        sides = np.array([mask["size"] for mask in masks])
    except ValueError:  # of unequal lengths
        sides = np.zeros(0)
    is_sound = sides.shape == (len(masks), 2) and sides.dtype.kind in "iu" and sides.min() > 0
    if masks and not is_sound:
        index = next(i for i, mask in enumerate(masks) if not _is_size(mask["size"]))
        raise MaskError(
            f"an RLE has size {masks[index]['size']!r}, expected [height, width]", index
        )
    sides = sides.astype(np.int64).reshape(-1, 2)
    return (sides[:, 0] << 32) + sides[:, 1]


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
        MaskError: if one is damaged.
    """
    first, tails = _first_runs(_texts(masks))
    # Without its first number an RLE has its runs of 0 where the runs of 1 were, so that the area
    # of the rest counts them. (The other runs come out wrong, as numbers are stored as differences
    # to the one before the last, but an area does not look at them.)
    rests = [{"size": ANY_SIZE, "counts": tail} for tail in tails]
    covered = areas + first + rle_ops.area(rests)
    wrong = np.flatnonzero(covered != (sizes >> 32) * (sizes & 0xFFFFFFFF))
    if len(wrong):
        index = int(wrong[0])
        raise MaskError(
            f"an RLE is damaged: its runs cover {covered[index]} pixels, "
            f"its size is {list(masks[index]['size'])}",
            index,
        )


def _areas(masks: list[RLE]) -> np.ndarray:
    # A text that stops inside a number would be read beyond its end.
    texts = _texts(masks)
    if "" in texts or max(map(itemgetter(-1), texts), default="") >= LAST_CHARACTERS:
        is_complete = [text != "" and text[-1] < LAST_CHARACTERS for text in texts]
        raise MaskError(
            "an RLE is damaged: its counts stop inside a number", is_complete.index(False)
        )
    return rle_ops.area(masks)


def _texts(masks: Sequence[RLE]) -> list[str]:
    texts = [mask["counts"] for mask in masks]
    if set(map(type, texts)) <= {str}:
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
