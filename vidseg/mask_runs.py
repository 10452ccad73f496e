"""Reads the runs of many masks at once, straight from their RLE text.

A text holds the lengths of runs of 0 and 1 in turn, pixels counted column by column. A length is
written with 5 bits per character, the lowest first, and from the fourth on as the difference to
the length before the last. Here a whole batch of texts is one array, which takes NumPy less time
than pycocotools needs to measure the areas alone.

Source: ``rleFrString`` of https://github.com/cocodataset/cocoapi (``common/maskApi.c``).

Shapes: N masks, B bounds of all their runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["MaskError", "MaskRuns", "ranks_in_groups", "read_areas", "read_runs"]

FRAME_BITS = 40  # of a bound count pixels, those above count frames
NEAR_MASKS = 1024  # masks read together: they stay in the cache from one look to the next
MAX_CHARACTERS = 7  # of a number: as many as pycocotools writes for one of 32 bits
FIRST_CODE = 48  # of the character that stands for 0
LAST_CODE = 63  # of the characters, counted from the first
DIGIT_BITS, DIGIT, SIGN, MORE = 5, 31, 16, 32  # what the bits of a character say


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
class MaskRuns:
    """Where the runs of N masks begin and end.

    Args:
        bounds: first pixel of each run of 1, then first pixel after it, mask after mask, each
            ``(frame << FRAME_BITS) + pixel`` and thus ascending within a track, int64 ``(B,)``;
            there may be runs without pixels.
        starts: place of the first bound of each mask, int64 ``(N + 1,)``, the last one is B.
        areas: foreground pixels, int64 ``(N,)``.
    """

    bounds: np.ndarray
    starts: np.ndarray
    areas: np.ndarray

    @classmethod
    def without_bounds(cls, areas: np.ndarray) -> MaskRuns:
        """Tells nothing but the areas."""
        return cls(np.zeros(0, dtype=np.int64), np.zeros(len(areas) + 1, dtype=np.int64), areas)


def read_areas(texts: Sequence[str | bytes], heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Reads the areas of N masks, int64 ``(N,)``.

    Args:
        texts: see ``read_runs``, as for the other arguments.
        heights: see there.
        widths: see there.

    Raises:
        MaskError: see there.
    """
    texts = _as_str(texts)
    areas = np.zeros(len(texts), dtype=np.int64)
    for first in range(0, len(texts), NEAR_MASKS):
        part = slice(first, min(first + NEAR_MASKS, len(texts)))
        lengths, rows, padded = _read_numbers(texts[part], first)
        _read_lengths(lengths, rows, padded)
        areas[part] = _check(lengths, rows, heights[part], widths[part], first)
    return areas


def read_runs(
    texts: Sequence[str | bytes], heights: np.ndarray, widths: np.ndarray, frames: np.ndarray
) -> MaskRuns:
    """Reads the runs of N masks.

    Args:
        texts: ``counts`` of compressed RLEs.
        heights: rows of the masks, int64 ``(N,)``.
        widths: their columns, int64 ``(N,)``.
        frames: what the bounds of each mask carry as its frame, int64 ``(N,)``.

    Raises:
        MaskError: if a text is none of an RLE, or its runs do not add up to the mask's size.
    """
    texts = _as_str(texts)
    # a text has at most one number per character, and may need one more for an even number of them
    bounds = np.empty(sum(map(len, texts)) + len(texts), dtype=np.int64)
    starts = np.zeros(len(texts) + 1, dtype=np.int64)
    areas = np.zeros(len(texts), dtype=np.int64)
    offsets = frames << FRAME_BITS
    ends = offsets + heights * widths
    for first in range(0, len(texts), NEAR_MASKS):
        part = slice(first, min(first + NEAR_MASKS, len(texts)))
        lengths, rows, padded = _read_numbers(texts[part], first)
        _read_lengths(lengths, rows, padded)
        areas[part] = _check(lengths, rows, heights[part], widths[part], first)
        # one sum over all masks, which goes from the end of each to the frame of the next
        lengths[rows, 0] += offsets[part]
        lengths[rows[1:], 0] -= ends[part][:-1]
        place = starts[first]
        np.cumsum(lengths.ravel(), out=bounds[place : place + lengths.size])
        starts[first + 1 : part.stop + 1] = place + 2 * np.append(rows[1:], len(lengths))
    return MaskRuns(bounds[: starts[-1]], starts, areas)


def ranks_in_groups(groups: np.ndarray) -> np.ndarray:
    """Numbers the members of each group from 0; groups are contiguous, int64 ``(N,)``."""
    first = np.flatnonzero(np.diff(groups, prepend=-1))
    lengths = np.diff(first, append=len(groups))
    return np.arange(len(groups)) - np.repeat(first, lengths)


def _read_lengths(numbers: np.ndarray, rows: np.ndarray, padded: np.ndarray) -> None:
    """Turns numbers, as ``_read_numbers`` gives them, into the lengths that they stand for."""
    # the first run of 0 stands alone: the second one is not written as a difference either
    alone = numbers[rows, 0]
    numbers[rows, 0] = 0
    for runs in numbers.T:
        _undo_differences(runs, rows)
    numbers[rows, 0] = alone
    numbers[padded, 1] = 0


def _undo_differences(runs: np.ndarray, rows: np.ndarray) -> None:
    """Sums up the differences between runs of one kind, anew from each of some rows."""
    runs[rows[1:]] -= np.add.reduceat(runs, rows)[:-1]
    np.cumsum(runs, out=runs)


def _read_numbers(texts: list[str], first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gives the numbers in some texts.

    Args:
        texts: not empty.
        first: place of the first of them among all masks, for messages.

    Returns:
        the numbers that stand for runs of 0 and 1, int64 ``(K, 2)``; the first row of each text;
        and the rows whose second number is not in the text, as it has an odd number of them.

    Raises:
        MaskError: if a text stops inside a number, a number is too long or a character unknown.
    """
    # the 0 after each text stays where the number of lengths would be odd without it
    codes = np.frombuffer("0".join([*texts, ""]).encode("latin-1", "replace"), dtype=np.uint8)
    codes = codes - np.uint8(FIRST_CODE)
    sizes = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    stops = np.cumsum(sizes + 1) - 1
    if codes.max() > LAST_CODE:
        index = first + int(np.searchsorted(stops, (codes > LAST_CODE).argmax()))
        raise MaskError("an RLE is damaged: its counts have a character that no RLE has", index)
    is_last = (codes & MORE) == 0
    is_cut = (sizes == 0) | ~is_last[stops - 1]
    if is_cut.any():
        index = first + int(is_cut.argmax())
        raise MaskError("an RLE is damaged: its counts stop inside a number", index)
    more = np.flatnonzero(~is_last)
    counts = sizes - np.diff(np.searchsorted(more, stops), prepend=0)
    is_odd = counts % 2 == 1
    surplus = stops[~is_odd]
    is_last[surplus] = False
    numbers = ((codes[is_last] & DIGIT) ^ SIGN).astype(np.int64) - SIGN
    # few numbers have several characters: these come from the last but one to the first
    at_number = more - np.arange(len(more)) - np.searchsorted(surplus, more)
    nth = ranks_in_groups(at_number)
    if nth.max(initial=0) > MAX_CHARACTERS - 2:
        index = first + int(np.searchsorted(stops, more[nth.argmax()]))
        raise MaskError("an RLE is damaged: a number in its counts is too long", index)
    for digit in range(nth.max(initial=-1), -1, -1):
        at = nth == digit
        numbers[at_number[at]] = (numbers[at_number[at]] << DIGIT_BITS) + (codes[more[at]] & DIGIT)
    ends = np.cumsum((counts + 1) // 2)
    return numbers.reshape(-1, 2), np.append(0, ends[:-1]), ends[is_odd] - 1


def _check(
    lengths: np.ndarray, rows: np.ndarray, heights: np.ndarray, widths: np.ndarray, first: int
) -> np.ndarray:
    """Gives the areas of masks whose runs add up to their sizes."""
    zeros, ones = (np.add.reduceat(runs, rows) for runs in lengths.T)
    covered = zeros + ones
    wrong = np.flatnonzero(covered != heights * widths)
    if len(wrong):
        index = int(wrong[0])
        raise MaskError(
            f"an RLE is damaged: its runs cover {covered[index]} pixels, "
            f"its size is {[int(heights[index]), int(widths[index])]}",
            first + index,
        )
    if lengths.min() < 0:
        row = np.flatnonzero((lengths < 0).any(axis=1))[0]
        index = int(np.searchsorted(rows, row, side="right")) - 1
        raise MaskError(f"an RLE is damaged: a run has {lengths[row].min()} pixels", first + index)
    return ones


def _as_str(texts: Sequence[str | bytes]) -> list[str]:
    if set(map(type, texts)) <= {str}:
        return texts  # type: ignore[return-value]
    return [text.decode("latin-1") if isinstance(text, bytes) else text for text in texts]
