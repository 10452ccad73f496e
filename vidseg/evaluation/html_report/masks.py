"""Masks as the page draws them: shrunk, and as lengths of runs from left to right.

Shapes: H x W pixels of a mask, h x w of the shrunk one, B bounds of runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vidseg.errors import DataError
from vidseg.mask_runs import MaskError, read_runs
from vidseg.rle import RLE

__all__ = ["row_runs", "shrunk_masks", "shrunk_places", "shrunk_size"]


def shrunk_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Gives the width and height at which the longer side is ``side`` at most, each at least 1."""
    factor = min(1.0, side / max(width, height, 1))
    return max(1, round(width * factor)), max(1, round(height * factor))


def shrunk_places(size: int, shrunk: int) -> NDArray[np.int64]:
    """Gives the pixels at the middles of the shrunk ones, ascending, int64 ``(shrunk,)``."""
    return ((2 * np.arange(shrunk) + 1) * size // (2 * shrunk)).astype(np.int64)


def shrunk_masks(
    masks: Sequence[RLE | None], width: int, height: int, *, name: str
) -> list[list[int] | None]:
    """Shrinks the masks of a track to one size, whatever their own, and gives their ``row_runs``.

    A mask that would vanish keeps one pixel. ``None`` stays ``None``, as does a mask without
    pixels.

    Args:
        masks: RLEs.
        width: w.
        height: h.
        name: what messages call the track.

    Raises:
        DataError: if a mask is damaged.
    """
    result: list[list[int] | None] = [None] * len(masks)
    present = [(place, mask) for place, mask in enumerate(masks) if mask is not None]
    if not present:
        return result
    heights, widths = np.array([mask["size"] for _, mask in present], dtype=np.int64).T
    frames = np.zeros(len(present), dtype=np.int64)
    try:
        runs = read_runs([mask["counts"] for _, mask in present], heights, widths, frames)
    except MaskError as error:
        raise DataError(f"{name}: {error}") from None
    for number, (place, _) in enumerate(present):
        if runs.areas[number]:
            bounds = runs.bounds[runs.starts[number] : runs.starts[number + 1]]
            result[place] = row_runs(
                _sample(bounds, int(heights[number]), int(widths[number]), width, height)
            )
    return result


def row_runs(mask: NDArray[np.bool_]) -> list[int]:
    """Gives the lengths of the runs of a mask ``(h, w)``, row by row, that of background first."""
    flat = np.concatenate([[False], mask.ravel()])
    bounds = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(bounds, prepend=0, append=mask.size).tolist()


def _sample(
    bounds: NDArray[np.int64], mask_height: int, mask_width: int, width: int, height: int
) -> NDArray[np.bool_]:
    """Reads a mask at h x w places of it, without making all of it, bool ``(h, w)``.

    Args:
        bounds: where its runs begin and end, pixels counted column by column, ``(B,)``.
        mask_height: H.
        mask_width: W.
        width: w.
        height: h.
    """
    columns, rows = shrunk_places(mask_width, width), shrunk_places(mask_height, height)
    pixels = (columns[:, None] * mask_height + rows).ravel()  # ascending where it matters
    turns = np.bincount(np.searchsorted(pixels, bounds), minlength=len(pixels) + 1)
    mask = (np.cumsum(turns[:-1]) % 2).astype(bool).reshape(width, height).T
    if not mask.any():
        filled = np.flatnonzero(np.diff(bounds)[::2])[0]
        column, row = divmod(int(bounds[2 * filled]), mask_height)
        mask[row * height // mask_height, column * width // mask_width] = True
    return mask
