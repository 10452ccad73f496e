"""Local maxima of scale-space responses, the same that ``skimage.feature.blob_log`` finds.

Shapes: T frames of H x W pixels, S scales, N maxima.

Responses come with a tolerance. Where it leaves open whether a point is a maximum, or which of two
comes first, the responses there are computed once more as the reference does, to the last bit, so
that even the ties of symmetric images end alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from .responses import exact_response, kernel_radius

__all__ = ["Peaks", "find_peaks", "prune_overlaps"]

_MOST_CROPS = 8  # of a frame with more open points all responses are computed exactly
_SMALL = 1024  # pixels of a frame up to which that is no more work than a crop


@dataclass
class Peaks:
    """Maxima of several frames, frame after frame and within one by falling response.

    Attributes:
        frame: int64 ``(N,)``.
        points: int64 ``(N, 3)``: scale, row, column.
        values: float64 ``(N,)``, the responses.
    """

    frame: np.ndarray
    points: np.ndarray
    values: np.ndarray


def find_peaks(
    responses: np.ndarray, grey: np.ndarray, sigmas: np.ndarray, threshold: float, tolerance: float
) -> Peaks:
    """Finds the points above a threshold that none of their 26 neighbours exceeds.

    Args:
        responses: float32 ``(T, S, H, W)``.
        grey: float32 ``(T, H, W)``, the frames they are of.
        sigmas: ``(S,)`` of the scales.
        threshold: which a response must exceed.
        tolerance: largest error of a response.
    """
    place, margin = _candidates(responses, threshold, tolerance)
    values = responses.reshape(-1)[place].astype(np.float64)
    frame, *point = np.unravel_index(place, responses.shape)
    order = np.lexsort([-values, frame])
    peaks = Peaks(frame[order], np.stack(point, 1)[order], values[order])
    is_open = ~((margin > 2 * tolerance) & (values > threshold + tolerance))[order]
    is_tied = (np.diff(peaks.values) >= -2 * tolerance) & (np.diff(peaks.frame) == 0)
    is_open[1:] |= is_tied
    for number in np.unique(peaks.frame[is_open]):
        start, stop = np.searchsorted(peaks.frame, [number, number + 1])
        image = grey[number].astype(np.float64)
        points, exact = _settle(image, peaks.points[start:stop], sigmas, threshold)
        peaks = Peaks(
            np.insert(np.delete(peaks.frame, slice(start, stop)), start, [number] * len(points)),
            np.concatenate([peaks.points[:start], points, peaks.points[stop:]]),
            np.concatenate([peaks.values[:start], exact, peaks.values[stop:]]),
        )
    return peaks


def _candidates(
    responses: np.ndarray, threshold: float, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Gives the flat indices of possible maxima, ascending, and by how much they are it."""
    flat = responses.reshape(-1)
    _, *sizes = responses.shape
    strides = [sizes[1] * sizes[2], sizes[2], 1]
    place = np.flatnonzero(flat > threshold - tolerance)
    # One axis after the other leaves few points for the test of all neighbours; columns first,
    # where the memory is nearest.
    for stride, size in zip(strides[::-1], sizes[::-1], strict=True):
        at = place // stride % size
        least = flat[place] + 2 * tolerance
        below = flat[place - stride * (at > 0)] <= least
        above = flat[place + stride * (at < size - 1)] <= least
        place = place[below & above]
    s, y, x = (
        stride * np.stack([(at == 0) - 1, 0 * at, at < size - 1], 1)
        for stride, size in zip(strides, sizes, strict=True)
        for at in [place // stride % size]
    )
    around = s[:, :, None, None] + y[:, None, :, None] + x[:, None, None, :]
    around = around.reshape(len(place), 27)
    neighbours = np.where(around == 0, -np.inf, flat[place[:, None] + around])
    margin = flat[place] - neighbours.max(1)
    keep = margin >= -2 * tolerance
    return place[keep], margin[keep]


def _settle(
    image: np.ndarray, points: np.ndarray, sigmas: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Tests the candidates of one frame in the arithmetic of the reference."""
    if len(points) > _MOST_CROPS or image.size <= _SMALL:
        cube = np.stack([exact_response(image, sigma) for sigma in sigmas])
        place, _ = _candidates(cube[None], threshold, 0.0)
        if cube.size > 1 and cube.min() == cube.max():  # a flat image has no maximum
            place = place[:0]
        kept = np.stack(np.unravel_index(place, cube.shape), 1)
        values = cube.reshape(-1)[place]
    else:
        around = [_exact_neighbours(image, point, sigmas) for point in points]
        is_peak = [center > threshold and center >= best for center, best in around]
        kept, values = points[is_peak], np.array([center for center, _ in around])[is_peak]
    order = np.lexsort([kept[:, 0], kept[:, 2], kept[:, 1], -values])
    return kept[order], values[order]


def _exact_neighbours(
    image: np.ndarray, point: np.ndarray, sigmas: np.ndarray
) -> tuple[float, float]:
    """Gives the response at a point, and the largest of it and its neighbours."""
    s, y, x = (int(i) for i in point)
    center, best = -math.inf, -math.inf
    for scale in range(max(s - 1, 0), min(s + 2, len(sigmas))):
        reach = kernel_radius(sigmas[scale])
        top, left = max(y - 1 - reach, 0), max(x - 1 - reach, 0)
        plane = exact_response(image[top : y + 2 + reach, left : x + 2 + reach], sigmas[scale])
        rows = slice(max(y - 1, 0) - top, y + 2 - top)
        columns = slice(max(x - 1, 0) - left, x + 2 - left)
        best = max(best, float(plane[rows, columns].max()))
        if scale == s:
            center = float(plane[y - top, x - left])
    return center, best


def prune_overlaps(frame: np.ndarray, blobs: np.ndarray, overlap: float) -> np.ndarray:
    """Drops the smaller of two blobs whose discs share too much; of equal ones the first.

    A blob that was dropped drops no other, so a chain of overlaps depends on the order of its
    pairs; it is that of the reference.

    Args:
        frame: int64 ``(N,)``, ascending.
        blobs: float64 ``(N, 3)``: row, column, sigma.
        overlap: share of the smaller disc above which it goes.

    Returns:
        Bool ``(N,)``, the blobs that stay.
    """
    keep = np.ones(len(blobs), dtype=bool)
    if len(blobs) < 2:
        return keep
    sigmas = blobs[:, 2]
    reach = 2 * sigmas.max() * math.sqrt(2)
    apart = np.column_stack([blobs[:, :2], frame * (2 * reach + 1)])
    pairs = cKDTree(apart).query_pairs(reach, output_type="ndarray")
    pairs = pairs[_disc_overlap(*blobs[pairs].swapaxes(0, 1)) > overlap]
    is_chained = (np.bincount(pairs.reshape(-1), minlength=len(blobs)) > 1)[pairs].any(1)
    chained = np.unique(frame[pairs[is_chained, 0]])
    in_order = [tuple(pair) for pair in pairs[~np.isin(frame[pairs[:, 0]], chained)].tolist()]
    conflicts = set(map(tuple, pairs.tolist()))
    for number in chained:
        start, stop = np.searchsorted(frame, [number, number + 1])
        reach = 2 * sigmas[start:stop].max() * math.sqrt(2)
        near = cKDTree(blobs[start:stop, :2]).query_pairs(reach)
        in_order += [pair for i, j in near if (pair := (i + start, j + start)) in conflicts]
    for i, j in in_order:
        if keep[i] and keep[j]:
            keep[j if sigmas[i] > sigmas[j] else i] = False
    return keep


def _disc_overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Gives the common area of discs as a share of the smaller ones, float64 ``(M,)``."""
    r, q = math.sqrt(2) * one[:, 2], math.sqrt(2) * other[:, 2]
    d = np.hypot(*(one - other)[:, :2].T)
    crossing = np.clip(d, np.abs(r - q) + 1e-12, r + q)
    sectors = (
        a * a * np.arccos(((crossing**2 + a**2 - b**2) / (2 * crossing * a)).clip(-1, 1))
        for a, b in ((r, q), (q, r))
    )
    sides = (r + q - crossing, crossing + r - q, crossing - r + q, crossing + r + q)
    kite = np.sqrt(np.prod(sides, axis=0).clip(0)) / 2
    share = (sum(sectors) - kite) / (math.pi * np.minimum(r, q) ** 2)
    return np.where(d > r + q, 0.0, np.where(d <= np.abs(r - q), 1.0, share))
