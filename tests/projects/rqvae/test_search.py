"""Search over many documents: the same hits as by comparing all, in the memory of a block."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from vidseg.errors import ConfigError
from vidseg.projects.rqvae import search
from vidseg.projects.rqvae.documents import DocumentCodes
from vidseg.projects.rqvae.retrieval import METHODS, aggregate, collect_statistics
from vidseg.projects.rqvae.retrieval_head import AttentionPooling
from vidseg.projects.rqvae.search import search_documents
from vidseg.projects.rqvae.similarity import collect

Q, K, V = 3, 16, 8


def draw(num: int) -> list[DocumentCodes]:
    generator = torch.Generator().manual_seed(0)
    documents = []
    for number in range(num):
        codes = torch.randint(0, K, (3 + number % 5, Q), generator=generator)
        mask = torch.ones(len(codes), dtype=torch.bool)
        documents.append(DocumentCodes(codes, mask, 12 * len(codes), {"id": f"d{number}"}))
    return documents


@pytest.fixture
def model() -> SimpleNamespace:
    books = torch.randn(Q, K, V)
    statistics = collect_statistics(((one.codes, one.window_mask) for one in draw(9)), books)
    rvq = SimpleNamespace(codebooks=books)
    return SimpleNamespace(
        rvq=rvq, code_statistics=statistics, bag_levels=2, head=AttentionPooling(V)
    )


@pytest.mark.parametrize("method", METHODS)
def test_hits_are_those_of_comparing_all(
    method: str, model: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_WINDOWS_AT_ONCE", 16)
    documents = draw(40)
    described = collect(
        [
            aggregate(
                one.codes,
                one.window_mask,
                method,
                codebooks=model.rvq.codebooks,
                statistics=model.code_statistics,
                head=model.head,
            ).detach()
            for one in documents
        ]
    )
    similarity = described.similarities(described)[7]
    similarity[7] = -2
    best = similarity.sort(descending=True, stable=True).indices[:5].tolist()
    # As of a file: documents can only be gone through.
    hits = search_documents(documents[7], iter(documents), method, model=model, num_hits=5)
    assert [hit.id for hit in hits] == [f"d{index}" for index in best]
    assert [hit.similarity for hit in hits] == pytest.approx(similarity[best].tolist())


def test_a_copy_is_the_best_hit_and_equal_ones_keep_their_order(model: SimpleNamespace) -> None:
    documents = draw(6)
    copies = [
        DocumentCodes(documents[0].codes, documents[0].window_mask, 36, {"id": n}) for n in "ab"
    ]
    hits = search_documents(documents[0], [*documents, *copies], model=model, num_hits=2)
    assert [hit.id for hit in hits] == ["a", "b"]
    assert hits[0].similarity == pytest.approx(1)


def test_fewer_documents_than_hits(model: SimpleNamespace) -> None:
    (query,) = draw(1)
    assert search_documents(query, [], model=model) == []
    assert search_documents(query, [query], model=model) == []
    assert len(search_documents(query, draw(4), model=model)) == 3


def test_unknown_method_and_missing_head(model: SimpleNamespace) -> None:
    (query,) = draw(1)
    with pytest.raises(ConfigError, match="'A/bags'; nearest: A/bag"):
        search_documents(query, [], "A/bags", model=model)
    model.head = None
    with pytest.raises(ConfigError, match="method C needs the weights of a DocumentRetriever"):
        search_documents(query, [], "C", model=model)


MEASURE = """
import resource
from types import SimpleNamespace
import torch
from vidseg.projects.rqvae.documents import DocumentCodes
from vidseg.projects.rqvae.retrieval import CodeStatistics
from vidseg.projects.rqvae.search import search_documents

torch.set_num_threads(1)
books = torch.randn(8, 512, 64)
statistics = CodeStatistics(torch.zeros(64), torch.zeros(8, 512), 1)
model = SimpleNamespace(
    rvq=SimpleNamespace(codebooks=books), code_statistics=statistics, bag_levels=2
)

def documents(num):
    mask = torch.ones(42, dtype=torch.bool)
    for number in range(num):
        yield DocumentCodes(torch.randint(0, 512, (42, 8)), mask, 500, {"id": str(number)})

(query,) = documents(1)
peaks = []
for num in (500, 2000):
    assert len(search_documents(query, documents(num), model=model)) == 10
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[1] - peaks[0])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_documents() -> None:
    """The windows of 2 000 documents would take 21 MB."""
    run = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    grown = int(run.stdout) * (1 if sys.platform == "darwin" else 1024)
    assert grown < 8 * 2**20, f"{grown / 2**20:.1f} MiB more for four times as many documents"
