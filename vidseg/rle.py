"""Run-length encoded masks: the form in which masks are stored, exchanged and compared.

An RLE is the compressed form of pycocotools, ``{"size": [H, W], "counts": bytes}``: runs of 0 and 1
in column order. Inside vidseg ``counts`` are bytes; in json files they are text.

Shapes: N masks, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from .mask_runs import read_areas

__all__ = [
    "RLE",
    "area",
    "boxes",
    "decode",
    "empty",
    "encode",
    "from_polygons",
    "from_segmentation",
    "from_text",
    "iou",
    "require_cover",
    "to_text",
    "union",
]

RLE = dict[str, Any]
"""``{"size": [H, W], "counts": bytes}``."""

MAX_AREAS = 255  # pycocotools 2.0.11 puts the number of masks into a uint8, which NumPy 2 refuses
_FARTHEST = 1_000_000  # pixels from the first one that a point may be
MIN_POLYGON_NUMBERS = 6  # three points; pycocotools reads anything shorter as a box or crashes


def encode(masks: Any) -> Any:
    """Encodes one mask or a stack of masks.

    Args:
        masks: bool (or 0/1 integer) array or tensor, ``(H, W)`` or ``(N, H, W)``, on any device.

    Returns:
        One RLE for ``(H, W)``, a list of N RLEs for ``(N, H, W)``.

    Raises:
        ValueError: if the array has neither two nor three dimensions.
    """
    array = _as_uint8(masks)
    if array.ndim not in (2, 3):
        raise ValueError(f"masks have shape {array.shape}, expected (H, W) or (N, H, W)")
    stack = array[None] if array.ndim == 2 else array
    if 0 in stack.shape:
        rles = [empty(stack.shape[1], stack.shape[2]) for _ in range(len(stack))]
    else:
        # pycocotools wants Fortran order (H, W, N): every mask column by column
        columns = np.ascontiguousarray(stack.transpose(0, 2, 1))  # (N, W, H)
        rles = coco_mask.encode(columns.transpose(2, 1, 0))
    return rles[0] if array.ndim == 2 else rles


def decode(rle: RLE | Sequence[RLE]) -> np.ndarray:
    """Decodes one RLE to bool ``(H, W)``, or N RLEs of one size to bool ``(N, H, W)``.

    Raises:
        ValueError: if a list is empty (its size is unknown) or mixes sizes.
    """
    if isinstance(rle, dict):
        return decode([rle])[0]
    if not rle:
        raise ValueError("cannot decode an empty list of RLEs: the mask size is unknown")
    sizes = {tuple(one["size"]) for one in rle}
    if len(sizes) > 1:
        raise ValueError(f"RLEs of different sizes cannot be stacked: {sorted(sizes)}")
    height, width = sizes.pop()
    if height * width == 0:
        return np.zeros((len(rle), height, width), dtype=bool)
    return coco_mask.decode(list(rle)).astype(bool, copy=False).transpose(2, 0, 1)


def area(rle: RLE | Sequence[RLE]) -> Any:
    """Counts foreground pixels: an int for one RLE, int64 ``(N,)`` for N."""
    if isinstance(rle, dict):
        return int(coco_mask.area([rle])[0])
    if not rle:
        return np.zeros(0, dtype=np.int64)
    parts = [rle[start : start + MAX_AREAS] for start in range(0, len(rle), MAX_AREAS)]
    return np.concatenate([coco_mask.area(list(part)) for part in parts]).astype(np.int64)


def boxes(rles: Sequence[RLE]) -> np.ndarray:
    """Gives the tight boxes ``x, y, width, height`` in pixels, float64 ``(N, 4)``; 0 if empty."""
    if not rles:
        return np.zeros((0, 4))
    return coco_mask.toBbox(list(rles))


def iou(rows: Sequence[RLE], columns: Sequence[RLE]) -> np.ndarray:
    """Gives the intersection over union of all pairs, float64 ``(len(rows), len(columns))``.

    Pairs whose sizes differ and pairs of two empty masks give 0.
    """
    if not rows or not columns:
        return np.zeros((len(rows), len(columns)))
    result = coco_mask.iou(list(rows), list(columns), [0] * len(columns))
    return np.maximum(np.nan_to_num(result, nan=0.0), 0.0)


def union(rles: Sequence[RLE]) -> RLE:
    """Unites masks of one size.

    Raises:
        ValueError: if there is none, or the sizes differ.
    """
    if len({tuple(one["size"]) for one in rles}) != 1:
        raise ValueError("union needs at least one RLE, all of one size")
    return coco_mask.merge(list(rles))


def empty(height: int, width: int) -> RLE:
    """Gives the RLE of a mask without foreground."""
    return _compress({"size": [height, width], "counts": [height * width]})


def from_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> RLE:
    """Rasterises polygons ``[x0, y0, x1, y1, ...]`` and unites them.

    Raises:
        ValueError: if a polygon has fewer than three points, an odd number of coordinates, or one
            that is not finite or farther away than any picture reaches.
    """
    for polygon in polygons:
        if not isinstance(polygon, (list, tuple, np.ndarray)):
            raise ValueError(f"a polygon is a {type(polygon).__name__}, expected [x0, y0, x1, ...]")
        if len(polygon) < MIN_POLYGON_NUMBERS or len(polygon) % 2:
            raise ValueError(f"a polygon has {len(polygon)} numbers, expected an even number >= 6")
    if not all(isinstance(side, (int, np.integer)) for side in (height, width)):
        raise ValueError(f"polygons need the size of the frame, which is {height!r} x {width!r}")
    if not polygons:
        return empty(height, width)
    outlines = [list(map(float, polygon)) for polygon in polygons]
    for outline in outlines:
        # The rasteriser walks along all edges, outside of the picture, too.
        if not math.isfinite(sum(outline)) or max(map(abs, outline)) > _FARTHEST:
            raise ValueError(
                f"a polygon has a point far outside of the frame, not within {_FARTHEST} pixels"
            )
    parts = coco_mask.frPyObjects(outlines, height, width)
    return coco_mask.merge(parts)


def from_segmentation(segmentation: Any, height: int, width: int) -> RLE | None:
    """Reads a segmentation in any form that json data sets use.

    Args:
        segmentation: compressed RLE (``counts`` text or bytes), uncompressed RLE (``counts`` list),
            a list of polygons, or ``None`` / ``[]`` for an absent object.
        height: rows of the frame; polygons are rasterised at this size.
        width: columns of the frame.

    Returns:
        The RLE, at its own stored size (which may differ from the frame's), or ``None`` if absent.

    Raises:
        ValueError: if the form is none of these, with the reason.
    """
    if segmentation is None or (isinstance(segmentation, list) and not segmentation):
        return None
    if isinstance(segmentation, list):
        return from_polygons(segmentation, height, width)
    if not isinstance(segmentation, dict):
        raise ValueError(f"a segmentation is a {type(segmentation).__name__}, not RLE or polygons")
    return from_text(segmentation)


def from_text(rle: dict[str, Any]) -> RLE:
    """Gives the internal form of an RLE read from json (``counts`` text, bytes or a list).

    Raises:
        ValueError: if ``size`` or ``counts`` is missing or of a wrong form, or an uncompressed RLE
            does not cover its size.
    """
    missing = [key for key in ("size", "counts") if key not in rle]
    if missing:
        raise ValueError(f"an RLE lacks the key {missing[0]!r}")
    size, counts = rle["size"], rle["counts"]
    if not _is_size(size):
        raise ValueError(f"an RLE has size {size!r}, expected [height, width]")
    if isinstance(counts, str):
        return {"size": [int(size[0]), int(size[1])], "counts": counts.encode("ascii", "replace")}
    if isinstance(counts, bytes):
        return {"size": [int(size[0]), int(size[1])], "counts": counts}
    if not isinstance(counts, list) or not all(isinstance(run, int) for run in counts):
        raise ValueError(f"an RLE has counts of type {type(counts).__name__}")
    if min(counts, default=0) < 0:
        raise ValueError(f"an uncompressed RLE has a run of {min(counts)} pixels")
    if sum(counts) != size[0] * size[1]:
        raise ValueError(f"an uncompressed RLE covers {sum(counts)} pixels, its size is {size}")
    return _compress({"size": list(size), "counts": counts})


def require_cover(rle: RLE | None) -> None:
    """Refuses an RLE whose runs do not cover its size, of which ``decode`` may make anything.

    Raises:
        ValueError: if the runs are damaged, or cover more or less; ``None`` passes.
    """
    if rle is None:
        return
    sides = np.array(rle["size"], dtype=np.int64)
    read_areas([rle["counts"]], sides[:1], sides[1:])


def to_text(rle: RLE | None) -> dict[str, Any] | None:
    """Gives the json form of an RLE (``counts`` as text); ``None`` stays ``None``."""
    if rle is None:
        return None
    counts = rle["counts"]
    text = counts.decode("ascii") if isinstance(counts, bytes) else counts
    return {"size": [int(rle["size"][0]), int(rle["size"][1])], "counts": text}


def _compress(rle: dict[str, Any]) -> RLE:
    return coco_mask.frPyObjects(rle, *rle["size"])


def _is_size(size: Any) -> bool:
    if not isinstance(size, (list, tuple)) or len(size) != 2:
        return False
    return all(isinstance(side, (int, np.integer)) and side >= 0 for side in size)


def _as_uint8(masks: Any) -> np.ndarray:
    """Views an array or a tensor of any device as uint8 without copying where possible."""
    if hasattr(masks, "detach"):  # a torch tensor; torch itself is not needed to read it
        masks = masks.detach().cpu().numpy()
    array = np.asarray(masks)
    if array.dtype == np.bool_:
        return array.view(np.uint8)
    return (array != 0).view(np.uint8)
