"""What clustering the pixels of a clip gives, without learning: the score that a model has to pass.

Shapes: T frames of H x W pixels, P points, K clusters.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

__all__ = ["kmeans_labels"]

_SAMPLE = 16384  # pixels of a clip that the centroids are found on
_MAX_ITERATIONS = 30


@torch.no_grad()
def kmeans_labels(
    frames: Tensor,
    num_clusters: int,
    *,
    pos_weight: float = 0.0,
    restarts: int = 3,
    seed: int = 0,
) -> Tensor:
    """Clusters the pixels of all frames together by colour and place.

    Lloyd's algorithm from k-means++ (Arthur and Vassilvitskii, 2007), the best of some restarts. A
    colour keeps its cluster through the clip, which gives segments an identity.

    Args:
        frames: uint8 ``(T, 3, H, W)``, or float in [0, 1].
        num_clusters: K; a clip of fewer colours gets as many clusters as it has.
        pos_weight: of the coordinates, each in [-1, 1], beside colours in [0, 1].
        restarts: how many runs to choose from, by their squared error.
        seed: of all draws.

    Returns:
        int64 ``(T, H, W)`` from 0 to K - 1.
    """
    num_frames, _, height, width = frames.shape
    colors = frames.float() / 255 if frames.dtype == torch.uint8 else frames.float()
    points = colors.permute(0, 2, 3, 1).reshape(-1, colors.shape[1])
    if pos_weight:
        rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
        places = grid.reshape(1, -1, 2).expand(num_frames, -1, -1).reshape(-1, 2)
        points = torch.cat([points, pos_weight * places], dim=1)
    generator = torch.Generator().manual_seed(seed)
    sample = points[torch.randperm(len(points), generator=generator)[:_SAMPLE]]
    runs = [_fit(sample, num_clusters, generator) for _ in range(restarts)]
    centroids = min(runs, key=lambda run: run[1])[0]
    return _nearest(points, centroids).view(num_frames, height, width)


def _fit(points: Tensor, num_clusters: int, generator: Generator) -> tuple[Tensor, float]:
    """Gives centroids ``(K, C)`` and their mean squared error."""
    centroids = _spread(points, num_clusters, generator)
    labels = _nearest(points, centroids)
    for _ in range(_MAX_ITERATIONS):
        members = F.one_hot(labels, len(centroids)).to(points)  # (P, K)
        counts = members.sum(0)[:, None]
        # A cluster that has lost its last point stays where it was.
        centroids = torch.where(counts > 0, members.T @ points / counts.clamp(min=1), centroids)
        before, labels = labels, _nearest(points, centroids)
        if torch.equal(before, labels):
            break
    return centroids, float((points - centroids[labels]).square().sum(1).mean())


def _spread(points: Tensor, num_clusters: int, generator: Generator) -> Tensor:
    """Draws points, each in proportion to its squared distance from those drawn before."""
    chosen = [int(torch.randint(len(points), (), generator=generator))]
    distances = (points - points[chosen[0]]).square().sum(1)
    while len(chosen) < num_clusters and bool(distances.any()):
        chosen.append(int(torch.multinomial(distances, 1, generator=generator)))
        distances = torch.minimum(distances, (points - points[chosen[-1]]).square().sum(1))
    return points[chosen]


def _nearest(points: Tensor, centroids: Tensor) -> Tensor:
    return (centroids.square().sum(1) - 2 * points @ centroids.T).argmin(1)
