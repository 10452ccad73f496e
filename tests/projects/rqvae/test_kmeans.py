"""k-means of the codebooks."""

from __future__ import annotations

import itertools
import logging

import pytest
import torch

from vidseg.projects.rqvae.kmeans import draw, kmeans
from vidseg.projects.rqvae.quantizer import ResidualVectorQuantizerEMA


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_a_cluster_that_loses_its_vectors_starts_anew_elsewhere() -> None:
    # Nine in ten vectors are one and the same, so that most first centroids are as well.
    vectors = torch.cat([torch.zeros(900, 5), 10 * torch.randn(100, 5)])
    centroids, counts = kmeans(vectors, 32, 10, noise=0.0)
    assert (counts > 0).all()
    assert len(centroids.unique(dim=0)) == 32


def test_centroids_are_the_means_of_their_vectors() -> None:
    vectors = torch.randn(200, 3)
    centroids, counts = kmeans(vectors, 4, 100, noise=0.0)
    labels = torch.cdist(vectors, centroids).argmin(1)
    means = torch.stack([vectors[labels == k].mean(0) for k in range(4)])
    torch.testing.assert_close(centroids, means)
    assert torch.equal(counts, labels.bincount(minlength=4))


def test_draws_do_not_repeat_a_vector_while_there_are_others() -> None:
    vectors = torch.arange(10.0).unsqueeze(1)
    assert draw(vectors, 10, noise=1.0).flatten().sort().values.tolist() == list(range(10))
    weights = (torch.arange(10) % 2).float()
    odd = draw(vectors, 5, weights, noise=1.0)
    assert odd.flatten().sort().values.tolist() == [1, 3, 5, 7, 9]
    more = draw(vectors, 8, weights, noise=0.1)
    assert len(more.unique()) == 8
    assert (more - more.round()).abs().max() < 0.5


def test_draws_come_from_the_given_generator() -> None:
    vectors = torch.randn(50, 3)
    state = torch.get_rng_state()
    one, two = (
        kmeans(vectors, 60, 3, noise=0.1, generator=torch.Generator().manual_seed(3))[0]
        for _ in range(2)
    )
    assert torch.equal(one, two)
    assert torch.equal(state, torch.get_rng_state())


def test_every_level_starts_with_codes_in_use() -> None:
    quantizer = ResidualVectorQuantizerEMA(64, 16, 6)
    vectors = torch.randn(20 * 64, 16) * torch.linspace(0.1, 2, 16)
    quantizer.initialize(vectors)
    assert quantizer.initialized
    codes = quantizer.eval().encode(vectors)
    assert all(len(column.unique()) > 0.95 * 64 for column in codes.unbind(1))
    errors = [
        (quantizer.decode(codes[:, :levels]) - vectors).square().mean() for levels in range(1, 7)
    ]
    assert all(later < 0.9 * earlier for earlier, later in itertools.pairwise(errors))
    # The averages agree with the codebooks: a step with the same vectors moves them little.
    before = quantizer.codebooks.clone()
    quantizer.train()(vectors)
    assert (quantizer.codebooks - before).norm() < 0.1 * before.norm()


def test_before_k_means_nothing_is_quantised() -> None:
    quantizer = ResidualVectorQuantizerEMA(8, 6, 3, kmeans_init=True)
    z, mask = torch.randn(4, 5, 6, requires_grad=True), torch.rand(4, 5) < 0.5
    z_q, loss, codes = quantizer(z, mask)
    assert torch.equal(z_q, z * mask.unsqueeze(2))
    assert loss == 0
    assert codes.shape == (4, 5, 3)
    assert (codes == -1).all()
    assert (quantizer.encode(z) == -1).all()
    assert quantizer.num_updates == 0


@pytest.mark.parametrize("number", [1, 5])
def test_fewer_vectors_than_entries(number: int, caplog: pytest.LogCaptureFixture) -> None:
    quantizer = ResidualVectorQuantizerEMA(32, 6, 3)
    vectors = torch.randn(number, 6)
    with caplog.at_level(logging.WARNING):
        quantizer.initialize(vectors)
    assert f"{number} vectors for codebooks of 32 entries" in caplog.text
    for codebook in quantizer.codebooks:
        assert len(codebook.unique(dim=0)) == 32
    z_q = quantizer.eval()(vectors)[0]
    torch.testing.assert_close(z_q, vectors, atol=1e-2, rtol=0)


def test_vectors_that_are_all_the_same() -> None:
    quantizer = ResidualVectorQuantizerEMA(8, 6, 2)
    quantizer.initialize(torch.ones(50, 6))
    assert all(value.isfinite().all() for value in quantizer.buffers())
    quantizer.train()(torch.ones(50, 6))
    assert all(value.isfinite().all() for value in quantizer.buffers())


def test_no_vectors() -> None:
    with pytest.raises(ValueError, match="no vectors"):
        ResidualVectorQuantizerEMA(8, 6, 2).initialize(torch.zeros(0, 6))
