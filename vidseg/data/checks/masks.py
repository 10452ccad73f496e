"""Masks of objects, and the boxes and areas that are stated beside them.

Shapes: H W pixels; boxes are x, y, width, height in pixels.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from vidseg import rle
from vidseg.rle import MIN_POLYGON_NUMBERS, RLE

from .contents import Item, Track
from .findings import Findings, listed

__all__ = ["check_masks"]

_BOX_SLACK = (2.0, 0.05)  # pixels, and share of the longer side
_AREA_SLACK = 0.1
_OUTSIDE_SLACK = 1.0  # pixels; annotators click on the border
_TINY = 4  # pixels
_FULL = 0.99
_SAME_IOU = 0.95  # mean over the frames
_SWAP_IOU = (0.5, 0.1)  # with the other's last mask at least, with the own one at most

_Masks = list[RLE | None]


def check_masks(tracks: Iterable[Track], findings: Findings) -> None:
    """Decodes all masks and compares them with their surroundings and with each other.

    Args:
        tracks: all objects of a file.
        findings: receives the defects.
    """
    by_item: dict[Any, list[Track]] = defaultdict(list)
    for track in tracks:
        by_item[track.item.key].append(track)
    findings.counts["masks"] = 0
    for group in by_item.values():
        known = [(track, _check_track(track, findings)) for track in group]
        findings.counts["masks"] += sum(sum(m is not None for m in masks) for _, masks in known)
        _compare([(track, masks) for track, masks in known if not track.crowd], findings)


def _check_track(track: Track, findings: Findings) -> _Masks:
    told = _Told(track, findings)
    masks = [_read(track, frame, told) for frame in range(len(track.masks))]
    visible = [frame for frame, mask in enumerate(masks) if mask is not None]
    _check_areas(track, masks, told)
    _check_boxes(track, masks, told)
    broken = "broken-mask" in told.kinds
    if (
        track.masks
        and not visible
        and not broken
        and not {"mask-size", "mask-transposed"} & told.kinds
    ):
        findings.add("never-visible", track.name, f"{len(track.masks)} frames of {track.item.name}")
    if len(visible) == 1 and len(track.masks) > 1:
        findings.add("single-frame-object", track.name, f"frame {visible[0]} of {track.item.name}")
    told.finish()
    return masks


class _Told:
    """Collects what is wrong with the frames of an object: one finding of a kind for all."""

    def __init__(self, track: Track, findings: Findings) -> None:
        self._track = track
        self._findings = findings
        self._messages: dict[str, list[str]] = defaultdict(list)

    @property
    def kinds(self) -> set[str]:
        return set(self._messages)

    def __call__(self, kind: str, frame: int, message: str) -> None:
        self._messages[kind].append(f"{self._track.keys[frame]} {message}")

    def finish(self) -> None:
        for kind, messages in self._messages.items():
            more = f", and {len(messages) - 1} frames more" if len(messages) > 1 else ""
            self._findings.add(kind, self._track.name, messages[0] + more)


def _read(track: Track, frame: int, told: _Told) -> RLE | None:
    """Gives a mask as RLE of the size of the video; ``None`` if absent or not usable."""
    segmentation, item = track.masks[frame], track.item
    if not segmentation:
        return None
    try:
        if isinstance(segmentation, list):
            return _read_polygons(segmentation, item, frame, told)
        mask = rle.from_segmentation(segmentation, 0, 0)
        rle.require_cover(mask)
    except (ValueError, TypeError, OverflowError) as error:
        told("broken-mask", frame, f"cannot be read: {error}")
        return None
    assert mask is not None  # an absent object has been returned above
    size = tuple(mask["size"])
    if item.size is not None and size != item.size:
        is_turned = size == item.size[::-1]
        kind = "mask-transposed" if is_turned else "mask-size"
        told(kind, frame, f"has size {list(size)}, {item.name} {list(item.size)}")
        return None
    return mask


def _read_polygons(polygons: list[Any], item: Item, frame: int, told: _Told) -> RLE | None:
    """Rasterises polygons.

    Raises:
        ValueError: if they are none.
    """
    if not all(isinstance(polygon, list) for polygon in polygons):
        raise ValueError("it is a list, but not of polygons [x0, y0, x1, y1, ...]")
    if not all(math.isfinite(number) for polygon in polygons for number in polygon):
        raise ValueError("a polygon has coordinates that are no finite numbers")
    kept = [p for p in polygons if len(p) >= MIN_POLYGON_NUMBERS and len(p) % 2 == 0]
    if len(kept) < len(polygons):
        numbers = [len(polygon) for polygon in polygons if polygon not in kept]
        told("short-polygon", frame, f"has polygons of {listed(numbers)} numbers")
    if item.size is None or not kept:
        return None
    height, width = item.size
    xs, ys = ([number for p in kept for number in p[axis::2]] for axis in (0, 1))
    low, high = min(*xs, *ys), max(max(xs) - width, max(ys) - height)
    if low < -_OUTSIDE_SLACK or high > _OUTSIDE_SLACK:
        reach = f"x {min(xs):g} to {max(xs):g}, y {min(ys):g} to {max(ys):g}"
        told("polygon-outside", frame, f"reaches {reach} in {width} x {height} pixels")
    return rle.from_polygons(kept, height, width)


def _check_areas(track: Track, masks: _Masks, told: _Told) -> None:
    visible = [frame for frame, mask in enumerate(masks) if mask is not None]
    areas = rle.area([mask for mask in masks if mask is not None])
    boxes = rle.boxes([mask for mask in masks if mask is not None])
    for frame, area, box in zip(visible, areas.tolist(), boxes, strict=True):
        height, width = masks[frame]["size"]  # type: ignore[index]
        if area == 0:
            told("empty-mask", frame, "has no pixel")
        elif area < _TINY:
            told("tiny-mask", frame, f"has {area} pixels")
        elif area >= _FULL * height * width:
            told("full-mask", frame, f"covers {area} of {height * width} pixels")
        stated = track.areas[frame]
        if stated is None:
            continue
        # Areas of polygons leave out half of the pixels on the outline.
        slack = _AREA_SLACK * area + box[2] + box[3]
        if not _is_number(stated) or abs(stated - area) > slack:
            told("area-mismatch", frame, f"has {area} pixels, the stated area is {stated!r}")


def _check_boxes(track: Track, masks: _Masks, told: _Told) -> None:
    visible = [
        (frame, mask)
        for frame, mask in enumerate(masks)
        if mask is not None and track.boxes[frame] is not None
    ]
    for (frame, _), tight in zip(visible, rle.boxes([m for _, m in visible]), strict=True):
        box = track.boxes[frame]
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
            told("box-mismatch", frame, f"has the box {str(box)[:60]}, which is not 4 numbers")
        elif not tight[2:].any() or _fits(_corners(box), _corners(tight)):
            continue
        else:
            is_corners = _fits(box, _corners(tight))
            kind = "box-as-corners" if is_corners else "box-mismatch"
            shown = [round(number, 1) for number in tight.tolist()]
            told(kind, frame, f"has the box {box}, the mask lies in {shown}")
    for frame, mask in enumerate(masks):
        if mask is None and not track.masks[frame] and track.boxes[frame] and track.masks:
            told(
                "box-mismatch", frame, f"is absent, but has the box {str(track.boxes[frame])[:60]}"
            )


def _corners(box: Sequence[float]) -> list[float]:
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def _fits(corners: Sequence[float], tight: Sequence[float]) -> bool:
    side = max(tight[2] - tight[0], tight[3] - tight[1])
    slack = max(_BOX_SLACK[0], _BOX_SLACK[1] * side)
    return all(abs(a - b) <= slack for a, b in zip(corners, tight, strict=True))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _compare(group: list[tuple[Track, _Masks]], findings: Findings) -> None:
    """Looks for objects that are the same, and for such that exchange their places."""
    length = max((len(masks) for _, masks in group), default=0)
    count = len(group)
    total = np.zeros((count, count))
    together = np.zeros((count, count), dtype=np.int64)
    swaps: dict[tuple[int, int], list[int]] = defaultdict(list)
    last: tuple[list[int], list[RLE]] = ([], [])
    for frame in range(length):
        present = [k for k, (_, m) in enumerate(group) if frame < len(m) and m[frame] is not None]
        masks: list[Any] = [group[k][1][frame] for k in present]
        if len({tuple(mask["size"]) for mask in masks}) > 1:
            continue
        overlap = rle.iou(masks, masks)
        total[np.ix_(present, present)] += overlap
        together[present] += 1  # frames in which the row's object is visible
        for pair in _swapped(last, (present, masks)):
            swaps[pair].append(frame)
        last = (present, masks)
    frames = np.maximum(together, together.T)
    # Both must be visible in the same frames: where one is not, the overlap is 0.
    same = np.triu((frames > 0) & (total > _SAME_IOU * frames), 1)
    for first, second in zip(*np.nonzero(same), strict=True):
        a, b = group[first][0], group[second][0]
        kind = "" if a.category == b.category else ", of another class"
        findings.add("same-object", b.name, f"has the masks of {a.name} of {a.item.name}{kind}")
    for (first, second), places in swaps.items():
        a, b = group[first][0], group[second][0]
        message = f"and {b.name} of {a.item.name} at frame {listed(places)}"
        findings.add("swapped-objects", a.name, message)


def _swapped(
    last: tuple[list[int], list[RLE]], now: tuple[list[int], list[RLE]]
) -> Iterable[tuple[int, int]]:
    """Gives pairs of objects each of which is where the other was in the frame before."""
    both = [k for k in now[0] if k in set(last[0])]
    if len(both) < 2:
        return
    before = [last[1][last[0].index(k)] for k in both]
    after = [now[1][now[0].index(k)] for k in both]
    high, low = _SWAP_IOU
    overlap = rle.iou(after, before)
    moved = np.diag(overlap) < low
    mutual = np.minimum(overlap, overlap.T)
    crossed = (mutual > high) & moved & moved[:, None]
    for i, j in zip(*np.nonzero(np.triu(crossed, 1)), strict=True):
        yield both[i], both[j]
