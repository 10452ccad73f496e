"""Descriptors of documents: what they are made of, and what must not matter."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vidseg.projects.rqvae.documents import DocumentCodes
from vidseg.projects.rqvae.retrieval import (
    METHODS,
    CodeStatistics,
    aggregate,
    collect_statistics,
    dequantize,
    describe,
    describe_document,
    split_halves,
)
from vidseg.projects.rqvae.retrieval_head import AttentionPooling

Q, K, V = 4, 16, 8


@pytest.fixture
def codebooks() -> Tensor:
    scale = torch.tensor([1.0, 0.5, 0.25, 0.125]).view(Q, 1, 1)
    return torch.randn(Q, K, V, generator=torch.Generator().manual_seed(1)) * scale


def draw(num_windows: int, num_masked: int = 0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, K, (num_windows + num_masked, Q), generator=generator)
    codes[num_windows:] = -1
    return codes, torch.arange(num_windows + num_masked) < num_windows


@pytest.fixture
def statistics(codebooks: Tensor) -> CodeStatistics:
    return collect_statistics((draw(10, seed=seed) for seed in range(20)), codebooks)


def test_unused_levels_contribute_nothing(codebooks: Tensor) -> None:
    codes = torch.tensor([[3, 5, -1, -1], [-1, -1, -1, -1]])
    found = dequantize(codes, codebooks)
    assert torch.equal(found[0], codebooks[0, 3] + codebooks[1, 5])
    assert not found[1].any()
    assert torch.equal(dequantize(codes[:, :2], codebooks), found)


def test_statistics_equal_those_of_all_windows(codebooks: Tensor) -> None:
    documents = [draw(5 + seed, num_masked=seed % 3, seed=seed) for seed in range(6)]
    found = collect_statistics(iter(documents), codebooks)
    windows = torch.cat([dequantize(codes[mask], codebooks) for codes, mask in documents])
    torch.testing.assert_close(found.mean, windows.mean(0))
    assert found.num_documents == 6
    for level in range(Q):
        for entry in range(K):
            holders = sum(bool((codes[:, level] == entry).any()) for codes, _ in documents)
            assert found.document_frequency[level, entry] == holders


def test_statistics_of_nothing_are_zero(codebooks: Tensor) -> None:
    found = collect_statistics(iter([]), codebooks)
    assert not found.mean.any()
    assert found.num_documents == 0


def test_descriptors_are_unit_vectors(codebooks: Tensor, statistics: CodeStatistics) -> None:
    codes, mask = draw(7, 2)
    head = AttentionPooling(V)
    found = describe(codes, mask, codebooks=codebooks, statistics=statistics, head=head)
    assert tuple(found) == METHODS
    assert found["A/maxsim"].shape == (7, V)
    for descriptor in found.values():
        dense = descriptor.to_dense() if descriptor.is_sparse else descriptor
        torch.testing.assert_close(dense.norm(dim=-1), torch.ones(dense.shape[:-1]))


def test_without_a_head_there_is_no_c(codebooks: Tensor, statistics: CodeStatistics) -> None:
    found = describe(*draw(3), codebooks=codebooks, statistics=statistics)
    assert tuple(found) == ("A/maxsim", "A/bag", "B", "B/continuous")


@pytest.mark.parametrize("method", METHODS)
def test_masked_windows_do_not_matter(
    method: str, codebooks: Tensor, statistics: CodeStatistics
) -> None:
    codes, mask = draw(6, 3)
    kinds = {"codebooks": codebooks, "statistics": statistics, "head": AttentionPooling(V)}
    alone = aggregate(codes[:6], mask[:6], method, **kinds)
    among = aggregate(codes, mask, method, **kinds)
    assert torch.equal(alone.to_dense(), among.to_dense())


@pytest.mark.parametrize("method", METHODS)
def test_a_masked_document_is_a_zero(
    method: str, codebooks: Tensor, statistics: CodeStatistics
) -> None:
    codes, mask = draw(0, 3)
    head = AttentionPooling(V, num_queries=3, output_dim=2 * V)
    kinds = {"codebooks": codebooks, "statistics": statistics, "head": head}
    found = aggregate(codes, mask, method, **kinds)
    assert not found.to_dense().any()
    assert found.shape[-1] == aggregate(*draw(4), method, **kinds).shape[-1]


def test_b_is_the_mean_quantised_again(codebooks: Tensor, statistics: CodeStatistics) -> None:
    codes, mask = draw(9)
    mean = dequantize(codes, codebooks).mean(0)
    # Mean over windows and sum over levels commute.
    by_level = [codebooks[level][codes[:, level]].mean(0) for level in range(Q)]
    torch.testing.assert_close(torch.stack(by_level).sum(0), mean)
    residual, total = mean, torch.zeros(V)
    for book in codebooks:
        nearest = book[((residual - book) ** 2).sum(1).argmin()]
        residual, total = residual - nearest, total + nearest
    kinds = {"codebooks": codebooks, "statistics": statistics}
    expected = F.normalize(total - statistics.mean, dim=0)
    torch.testing.assert_close(aggregate(codes, mask, "B", **kinds), expected)
    expected = F.normalize(mean - statistics.mean, dim=0)
    torch.testing.assert_close(aggregate(codes, mask, "B/continuous", **kinds), expected)


@pytest.mark.parametrize(("num_queries", "output_dim"), [(1, 0), (3, 0), (1, V), (5, 2 * V)])
def test_an_untrained_c_compares_like_b(
    num_queries: int, output_dim: int, codebooks: Tensor, statistics: CodeStatistics
) -> None:
    head = AttentionPooling(V, num_queries=num_queries, output_dim=output_dim)
    kinds = {"codebooks": codebooks, "statistics": statistics, "head": head}
    documents = [describe(*draw(9, seed=seed), **kinds) for seed in range(4)]
    c, b = (torch.stack([one[name] for one in documents]) for name in ("C", "B/continuous"))
    assert c.shape[1] == head.output_dim
    torch.testing.assert_close(c @ c.T, b @ b.T)
    for one in documents:
        torch.testing.assert_close(one["C/codes"], one["B"])


def test_bag_weighs_rare_codes_more(codebooks: Tensor) -> None:
    frequency = torch.full((Q, K), 5.0)
    frequency[0, 0], frequency[0, 1] = 90, 1
    statistics = CodeStatistics(torch.zeros(V), frequency, 100)
    codes = torch.tensor([[0, 2, 0, 0], [1, 3, 0, 0], [1, 3, 9, 9]])
    mask = torch.ones(3, dtype=torch.bool)
    kinds = {"codebooks": codebooks, "statistics": statistics}
    bag = aggregate(codes, mask, "A/bag", bag_levels=2, **kinds)
    assert bag.coalesce().indices().tolist() == [[0, 1, K + 2, K + 3]]
    weights = bag.to_dense()
    assert weights[1] > 2**0.5 * weights[0]  # twice as often, and rarer
    assert weights[K + 3] / weights[K + 2] == pytest.approx(2**0.5)
    assert len(aggregate(codes, mask, "A/bag", bag_levels=4, **kinds).coalesce().values()) == 8


def test_fewer_levels_can_be_compared(codebooks: Tensor, statistics: CodeStatistics) -> None:
    codes, mask = draw(5)
    padded = codes.clone()
    padded[:, 2:] = -1
    kinds = {"codebooks": codebooks, "statistics": statistics}
    for method in ("A/maxsim", "A/bag", "B/continuous"):
        first = aggregate(codes[:, :2], mask, method, **kinds).to_dense()
        torch.testing.assert_close(first, aggregate(padded, mask, method, **kinds).to_dense())


def test_unknown_method_names_the_nearest(codebooks: Tensor, statistics: CodeStatistics) -> None:
    with pytest.raises(ValueError, match="'A/maxsin'; nearest: A/maxsim"):
        aggregate(*draw(2), "A/maxsin", codebooks=codebooks, statistics=statistics)


@pytest.mark.parametrize(("mode", "num"), [("same", 42), ("tail", 41)])
def test_halves_share_no_frame(mode: str, num: int) -> None:
    mask = torch.ones(num, dtype=torch.bool)
    mask[3] = False
    first, second = split_halves(mask, 500, window=25, stride=12, mode=mode)
    assert not first[3]
    assert not (first & second).any()
    start = -6 if mode == "same" else 0
    starts = [[start + 12 * n for n in half.nonzero()[:, 0].tolist()] for half in (first, second)]
    assert max(starts[0]) + 25 <= 250 <= min(starts[1])
    assert first.sum() >= 18
    assert second.sum() >= 19
    assert int((mask & ~first & ~second).sum()) <= 3


def test_halves_of_a_document_are_described(codebooks: Tensor, statistics: CodeStatistics) -> None:
    kinds = {"codebooks": codebooks, "statistics": statistics}
    geometry = {"window": 25, "stride": 12, "mode": "same"}
    codes, mask = draw(42)
    found = describe_document(DocumentCodes(codes, mask, 500), **geometry, **kinds)
    first, second = split_halves(mask, 500, **geometry)
    assert torch.equal(found["half1/B"], aggregate(codes, first, "B", **kinds))
    assert torch.equal(found["half2/A/maxsim"], aggregate(codes, second, "A/maxsim", **kinds))
    one = describe_document(DocumentCodes(codes[:1], mask[:1], 500), **geometry, **kinds)
    assert "B" in one
    assert not any(name.startswith("half") for name in one)
