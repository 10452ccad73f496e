"""How sure a blob is an object: brighter than its surroundings, round, of the expected size.

Shapes: T frames of H x W pixels, C channels, N blobs, P side of the window around a blob.

Blobs are measured many at a time, in windows as wide as the largest of them needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

__all__ = ["Appearance", "crofton_perimeter", "measure_blobs", "size_factor"]

_INNER, _OUTER = 1.3, 2.0  # radii of the ring around a blob
_LEAST_RANGE = 1e-6  # of the brightness of a frame
_LEAST_AREA = 4  # pixels from which on a region has a shape
_SPREAD = 0.5  # of the logarithm of radii
_CHUNK = 1 << 18  # pixels of all windows at a time
_WITHIN_BLOB = np.zeros((3, 3, 3), dtype=bool)  # neighbours of a pixel: the 8 around it
_WITHIN_BLOB[1] = True


@dataclass
class Appearance:
    """What the pixels around N blobs say.

    Attributes:
        brightness: float64 ``(N,)`` in [0, 1].
        circularity: float64 ``(N,)`` in [0, 1].
        color: float32 ``(N, 3)`` in [0, 1], mean of the disc.
    """

    brightness: np.ndarray
    circularity: np.ndarray
    color: np.ndarray


def measure_blobs(
    frames: np.ndarray, grey: np.ndarray, blobs: np.ndarray, index: np.ndarray
) -> Appearance:
    """Measures blobs in their frames.

    Args:
        frames: float32 ``(T, C, H, W)`` in [0, 1], C 1 or 3.
        grey: float32 ``(T, H, W)`` in [0, 1].
        blobs: float64 ``(N, 3)``: row, column, sigma.
        index: int64 ``(N,)``, frame of each blob.
    """
    found = Appearance(np.ones(len(blobs)), np.ones(len(blobs)), np.zeros((len(blobs), 3), "f4"))
    ranges = _ranges(grey, index)
    for part in _chunks(blobs[:, 2]):
        window = _Window(grey, blobs[part], index[part])
        inside, ring = window.mean_within(0, 1), window.mean_within(_INNER, _OUTER)
        for n in np.flatnonzero(np.isnan(ring)):
            ring[n] = np.median(grey[index[part][n]])
        found.brightness[part] = np.clip((inside - ring) / ranges[index[part]], 0, 1)
        found.circularity[part] = _circularity(window.region((inside + ring) / 2))
        found.color[part] = window.colors(frames)
    return found


def size_factor(radius: np.ndarray, expected: float) -> np.ndarray:
    """Gives how well radii agree with the expected one, in (0, 1]."""
    return np.exp(-(np.log(radius / expected) ** 2) / (2 * _SPREAD**2))


def crofton_perimeter(regions: np.ndarray) -> np.ndarray:
    """Gives the perimeters of regions by Crofton's formula with four directions.

    A perimeter is pi / 4 times the number of lines, of those through the grid in one direction,
    that enter the region, added up over the directions, diagonal lines being 1 / sqrt(2) apart.

    Args:
        regions: bool ``(N, P, Q)``.

    Returns:
        float64 ``(N,)`` in pixels, as ``skimage.measure.perimeter_crofton``.
    """
    inside = np.pad(regions, ((0, 0), (1, 1), (1, 1)))
    a, b = inside[:, :-1, :-1], inside[:, :-1, 1:]
    c, d = inside[:, 1:, :-1], inside[:, 1:, 1:]

    def entered(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        return np.count_nonzero(after & ~before, axis=(1, 2))

    straight = entered(a, b) + entered(a, c)
    diagonal = entered(a, d) + entered(b, c)
    return math.pi / 4 * (straight + diagonal / math.sqrt(2))


def _ranges(grey: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Gives the range of brightness of the frames that have blobs, float64 ``(T,)``."""
    ranges = np.full(len(grey), _LEAST_RANGE)
    used = np.unique(index)
    if len(used):
        low, high = np.percentile(grey[used].reshape(len(used), -1), (1, 99), axis=1)
        ranges[used] = np.maximum(high - low, _LEAST_RANGE)
    return ranges


def _chunks(sigmas: np.ndarray) -> Iterator[np.ndarray]:
    """Gives the indices of blobs of similar size, as many as the memory for windows allows."""
    order = np.argsort(-sigmas, kind="stable")
    start = 0
    while start < len(order):
        side = 2 * _reach(sigmas[order[start]]) + 1
        stop = start + max(_CHUNK // side**2, 1)
        yield order[start:stop]
        start = stop


def _reach(sigma: float) -> int:
    return math.ceil(_OUTER * math.sqrt(2) * sigma)


class _Window:
    """The grey values around blobs, ``(N, P, P)``, with their distance from the centre in radii."""

    def __init__(self, grey: np.ndarray, blobs: np.ndarray, index: np.ndarray) -> None:
        height, width = grey.shape[1:]
        reach = _reach(blobs[:, 2].max())
        steps = np.arange(-reach, reach + 1)
        rows = blobs[:, 0].astype(np.int64)[:, None] + steps
        columns = blobs[:, 1].astype(np.int64)[:, None] + steps
        valid_y, valid_x = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
        self._rows, self._columns = rows.clip(0, height - 1), columns.clip(0, width - 1)
        self._index, self._reach = index, reach
        square = (steps[:, None] ** 2 + steps**2).astype(np.float64)
        self._distance = np.sqrt(square / (2 * blobs[:, 2, None, None] ** 2))
        self._distance[~(valid_y[:, :, None] & valid_x[:, None])] = np.inf
        self._values = grey[index[:, None, None], self._rows[:, :, None], self._columns[:, None]]

    def mean_within(self, low: float, high: float) -> np.ndarray:
        """Gives the mean grey between two distances, float64 ``(N,)``; NaN if there is nothing."""
        within = (self._distance >= low) & (self._distance <= high)
        total = np.where(within, self._values, 0).sum((1, 2), dtype=np.float64)
        count = within.sum((1, 2))
        return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)

    def region(self, level: np.ndarray) -> np.ndarray:
        """Gives what is brighter than a level and connected to the centre, bool ``(N, P, P)``."""
        bright = (self._values > level[:, None, None]) & (self._distance <= _OUTER)
        labels, _ = ndimage.label(bright, _WITHIN_BLOB)
        center = labels[:, self._reach, self._reach]
        return bright & (labels == center[:, None, None])

    def colors(self, frames: np.ndarray) -> np.ndarray:
        """Gives the mean colour of the discs, float32 ``(N, 3)``."""
        within = self._distance <= 1
        n, y, x = within.nonzero()
        pixels = frames[self._index[n], :, self._rows[n, y], self._columns[n, x]]
        count = within.sum((1, 2))
        means = [np.bincount(n, channel, len(count)) / count for channel in pixels.T]
        return np.stack(means * (3 // len(means)), 1).astype(np.float32)


def _circularity(regions: np.ndarray) -> np.ndarray:
    area = np.count_nonzero(regions, axis=(1, 2))
    perimeter = crofton_perimeter(regions)
    shape = 4 * math.pi * area / np.maximum(perimeter, 1) ** 2
    return np.where(area < _LEAST_AREA, 1.0, np.clip(shape, 0, 1))
