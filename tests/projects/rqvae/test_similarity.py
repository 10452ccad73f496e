"""Similarities of many documents against a loop over pairs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vidseg.projects.rqvae import similarity
from vidseg.projects.rqvae.similarity import collect


def draw(lengths: list[int], width: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [F.normalize(torch.randn(n, width, generator=generator), dim=-1) for n in lengths]


def maxsim(x: Tensor, y: Tensor) -> float:
    products = x @ y.T
    return float(products.amax(1).mean() + products.amax(0).mean()) / 2


@pytest.mark.parametrize("rows", [1, 7, 16, 512])
def test_maxsim_equals_a_loop(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "_BLOCK_ROWS", rows)
    documents, queries = draw([3, 1, 9, 4, 30, 2]), draw([5, 1, 40])
    found = collect(documents).similarities(collect(queries))
    expected = torch.tensor([[maxsim(x, y) for y in documents] for x in queries])
    torch.testing.assert_close(found, expected)


def test_maxsim_is_symmetric_and_one_with_itself() -> None:
    documents = collect(draw([3, 1, 9, 4]))
    found = documents.similarities(documents)
    torch.testing.assert_close(found, found.T)
    torch.testing.assert_close(found.diagonal(), torch.ones(4))
    assert found.max() <= 1


def test_documents_without_windows_are_similar_to_none() -> None:
    documents = collect(draw([3, 0, 4]))
    found = documents.similarities(documents.take(np.array([1, 2])))
    assert found[0].tolist() == [0, 0, 0]
    assert found[1, 1] == 0
    assert found[1, 2] == pytest.approx(1)


def test_vectors_and_bags_are_compared_by_cosine() -> None:
    vectors = F.normalize(torch.randn(5, 20), dim=1)
    vectors[3] = 0
    dense = collect(list(vectors))
    sparse = collect([vector.to_sparse() for vector in vectors])
    own = np.array([4, 0])
    expected = vectors[[4, 0]] @ vectors.T
    torch.testing.assert_close(dense.similarities(dense.take(own)), expected.clamp(-1, 1))
    torch.testing.assert_close(sparse.similarities(sparse.take(own)), expected.clamp(-1, 1))
    assert len(dense) == len(sparse) == 5


def test_nothing_to_compare_with() -> None:
    with pytest.raises(ValueError, match="no document"):
        collect([])


MEASURE = """
import resource, sys
import torch
from torch.nn import functional as F
from vidseg.projects.rqvae.similarity import collect

torch.set_num_threads(1)
num = int(sys.argv[1])
documents = [F.normalize(torch.randn(42, 64), dim=-1) for _ in range(num)]
queries = collect(documents[:8])
collect(documents[:50]).similarities(queries)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = collect(documents).similarities(queries)
assert found.shape == (8, num)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_memory_among_2000_documents_is_bounded() -> None:
    """The products of eight queries with all windows would take 113 MB."""
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, "2000"], capture_output=True, text=True, check=True
    )
    grown = int(run.stdout) * (1 if sys.platform == "darwin" else 1024)
    assert grown < 64 * 2**20, f"{grown / 2**20:.0f} MiB more"
