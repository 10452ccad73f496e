"""k-means that leaves no cluster empty."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from .nearest import nearest

__all__ = ["draw", "kmeans"]


@torch.no_grad()
def kmeans(
    vectors: Tensor,
    num_clusters: int,
    iterations: int,
    *,
    noise: float,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Clusters vectors by Lloyd's algorithm from randomly drawn ones.

    A cluster that lost its last vector starts anew at every step, at a vector drawn in proportion
    to its squared distance from its centroid. Drawing all of them like that (k-means++, Arthur and
    Vassilvitskii, 2007) spends clusters on outliers: it used fewer codes, at a larger error.

    Args:
        vectors: ``(M, V)``, at least one.
        num_clusters: K.
        iterations: Lloyd steps.
        noise: standard deviation around the centroids that repeat a vector, for want of others.
        generator: of a CPU; torch's global one if None.

    Returns:
        Centroids ``(K, V)`` and how many vectors belong to each, ``(K,)``.
    """
    centroids = draw(vectors, num_clusters, noise=noise, generator=generator)
    for _ in range(iterations):
        labels = nearest(vectors, centroids)
        counts = torch.bincount(labels, minlength=num_clusters)
        sums = torch.zeros_like(centroids).index_add_(0, labels, vectors)
        centroids = sums / counts.clamp(min=1).unsqueeze(1)
        empty = counts == 0
        if empty.any():
            number = int(empty.sum())
            errors = (vectors - centroids[labels]).square().sum(1)
            centroids[empty] = draw(vectors, number, errors, noise=noise, generator=generator)
    return centroids, torch.bincount(nearest(vectors, centroids), minlength=num_clusters)


def draw(
    vectors: Tensor,
    number: int,
    weights: Tensor | None = None,
    *,
    noise: float,
    generator: Generator | None = None,
) -> Tensor:
    """Draws vectors, each at most once; if there are too few, the rest repeats some with noise.

    Args:
        vectors: ``(M, V)``, at least one.
        number: how many to draw.
        weights: ``(M,)``, each vector's chance; equal chances if None. Those of weight 0 count as
            not there.
        noise: standard deviation of the noise.
        generator: of a CPU, where all draws are made; torch's global one if None.

    Returns:
        ``(number, V)``.
    """
    if weights is None:
        places = torch.randperm(len(vectors), generator=generator)[:number]
    else:
        chances = weights.double().cpu()
        at_most = min(number, int((chances > 0).sum()))
        places = torch.zeros(0, dtype=torch.int64)
        if at_most:
            places = torch.multinomial(chances, at_most, generator=generator)
    missing = number - len(places)
    repeated = torch.randint(len(vectors), (missing,), generator=generator)
    drawn = vectors[torch.cat([places, repeated]).to(vectors.device)]
    if missing:
        around = torch.randn(missing, vectors.shape[1], generator=generator) * noise
        drawn[-missing:] += around.to(drawn)
    return drawn
