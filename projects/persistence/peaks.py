"""Local maxima of scale-space responses, the same that ``skimage.feature.blob_log`` finds.

Shapes: T frames of H x W pixels, S scales, N maxima.

Responses come with a tolerance. Where it leaves open whether a point is a maximum, or which of two
comes first, the responses there are computed once more as the reference does, to the last bit, so
that even the ties of symmetric images end alike.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from .responses import exact_response, kernel_radius

__all__ = ["find_peaks", "prune_overlaps"]

_MOST_CROPS = 8  # of a frame with more open points all responses are computed exactly
_OFFSETS = [  # of the neighbours in scale, row, column; those that rule out most come first
    (s, y, x)
    for s, y, x in sorted(np.ndindex(3, 3, 3), key=lambda at: sum(abs(i - 1) for i in at))
    if (s, y, x) != (1, 1, 1)
]


def find_peaks(
    responses: Tensor, grey: Tensor, sigmas: np.ndarray, threshold: float, tolerance: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Finds the points above a threshold that none of their 26 neighbours exceeds.

    Args:
        responses: ``(T, S, H, W)``.
        grey: float32 ``(T, H, W)``, the frames they are of.
        sigmas: ``(S,)`` of the scales.
        threshold: which a response must exceed.
        tolerance: largest error of a response.

    Returns:
        For each frame int64 ``(N, 3)``, scale, row and column by falling response, and the
        responses, float64 ``(N,)``.
    """
    found, certain = _candidates(responses, threshold, tolerance)
    values = responses.reshape(-1)[found].double().cpu().numpy()
    t, s, y, x = np.unravel_index(found.cpu().numpy(), responses.shape)
    points, is_sure = np.stack([s, y, x], 1), certain.cpu().numpy()
    bounds = np.searchsorted(t, np.arange(len(responses) + 1))
    peaks = []
    for frame, (start, stop) in enumerate(itertools.pairwise(bounds)):
        part = slice(start, stop)
        own = points[part], values[part]
        if _is_settled(own[1], is_sure[part], tolerance):
            order = np.argsort(-own[1], kind="stable")
            peaks.append((own[0][order], own[1][order]))
        else:
            image = grey[frame].double().cpu().numpy()
            peaks.append(_settle(image, own[0], sigmas, threshold))
    return peaks


def _candidates(responses: Tensor, threshold: float, tolerance: float) -> tuple[Tensor, Tensor]:
    """Gives the flat indices of possible maxima, ascending, and which of them are certain."""
    flat = responses.reshape(-1)
    found = (flat > threshold - tolerance).nonzero()[:, 0]
    strides = responses.stride()[1:]
    sizes = responses.shape[1:]
    margin = torch.full((len(found),), math.inf, dtype=flat.dtype, device=flat.device)
    for offset in _OFFSETS:
        neighbour = found
        for step, stride, size in zip(offset, strides, sizes, strict=True):
            if step != 1:  # beyond the border there is only the point itself
                place = found // stride % size
                inside = place > 0 if step == 0 else place < size - 1
                neighbour = neighbour + inside * ((step - 1) * stride)
        gap = flat[found] - flat[neighbour]
        gap = torch.where(neighbour == found, math.inf, gap)
        margin = torch.minimum(margin, gap)
        keep = margin >= -2 * tolerance
        found, margin = found[keep], margin[keep]
    is_sure = (margin > 2 * tolerance) & (flat[found] > threshold + tolerance)
    return found, is_sure


def _is_settled(values: np.ndarray, is_sure: np.ndarray, tolerance: float) -> bool:
    if not is_sure.all():
        return False
    return bool((np.diff(np.sort(values)) > 2 * tolerance).all())


def _settle(
    image: np.ndarray, points: np.ndarray, sigmas: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Tests the candidates of one frame in the arithmetic of the reference."""
    cube: np.ndarray | None = None
    if len(points) > _MOST_CROPS or image.size < 64:
        cube = np.stack([exact_response(image, sigma) for sigma in sigmas])
        if cube.size > 1 and cube.min() == cube.max():  # a flat image has no maximum
            return points[:0], np.zeros(0)
    kept, values = [], []
    for point in points:
        around, center = _exact_neighbours(image, point, sigmas, cube)
        if center > threshold and center >= around.max():
            kept.append(point)
            values.append(center)
    order = np.lexsort([*np.array(kept).reshape(-1, 3)[:, [0, 2, 1]].T, -np.array(values)])
    return np.array(kept, dtype=np.int64).reshape(-1, 3)[order], np.array(values)[order]


def _exact_neighbours(
    image: np.ndarray, point: np.ndarray, sigmas: np.ndarray, cube: np.ndarray | None
) -> tuple[np.ndarray, float]:
    """Gives the responses around a point, itself included, and that of the point."""
    s, y, x = (int(i) for i in point)
    scales = range(max(s - 1, 0), min(s + 2, len(sigmas)))
    rows, columns = (slice(max(i - 1, 0), i + 2) for i in (y, x))
    planes = []
    for scale in scales:
        if cube is not None:
            planes.append(cube[scale, rows, columns])
            continue
        reach = kernel_radius(sigmas[scale])
        top, left = (max(i - 1 - reach, 0) for i in (y, x))
        crop = image[top : y + 2 + reach, left : x + 2 + reach]
        plane = exact_response(crop, sigmas[scale])
        planes.append(
            plane[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left][
                : image.shape[0] - rows.start, : image.shape[1] - columns.start
            ]
        )
    around = np.stack(planes)
    return around, float(around[s - scales.start, y - rows.start, x - columns.start])


def prune_overlaps(blobs: np.ndarray, overlap: float) -> np.ndarray:
    """Drops the smaller of two blobs whose discs share too much; of equal ones the first.

    A blob that was dropped drops no other, so a chain of overlaps depends on the order of its
    pairs; it is that of the reference.

    Args:
        blobs: float64 ``(N, 3)``: row, column, sigma.
        overlap: share of the smaller disc from which on it goes.

    Returns:
        Bool ``(N,)``, the blobs that stay.
    """
    sigmas = blobs[:, 2].copy()
    if len(blobs) > 1:
        distance = 2 * sigmas.max() * math.sqrt(2)
        for i, j in cKDTree(blobs[:, :2]).query_pairs(distance):
            if sigmas[i] and sigmas[j] and _disc_overlap(blobs[i], blobs[j]) > overlap:
                sigmas[j if sigmas[i] > sigmas[j] else i] = 0
    return sigmas > 0


def _disc_overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Gives the common area of two discs as a share of the smaller one."""
    r, q = math.sqrt(2) * one[2], math.sqrt(2) * other[2]
    d = math.dist(one[:2], other[:2])
    if d > r + q:
        return 0.0
    if d <= abs(r - q):
        return 1.0
    sectors = [
        a * a * math.acos(min(max((d * d + a * a - b * b) / (2 * d * a), -1.0), 1.0))
        for a, b in ((r, q), (q, r))
    ]
    kite = math.sqrt(max((r + q - d) * (d + r - q) * (d - r + q) * (d + r + q), 0.0)) / 2
    return (sum(sectors) - kite) / (math.pi * min(r, q) ** 2)
