"""Attention over windows: what it starts from, what it learns, and what stays frozen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vidseg.errors import ConfigError, DataError
from vidseg.projects.rqvae.autoencoder import DocumentRQVAE
from vidseg.projects.rqvae.retrieval_head import (
    AttentionPooling,
    DocumentRetriever,
    contrastive_loss,
    draw_crops,
)

SETTINGS: dict[str, Any] = {
    "input_dim": 6,
    "latent_dim": 8,
    "codebook_size": 8,
    "num_codebooks": 2,
    "window_size": 5,
    "window_stride": 2,
    "num_encoder_layers": 1,
    "num_decoder_layers": 2,
    "nhead": 2,
    "dropout": 0.0,
    "code_dim": 4,
    "warmup_fraction": 0.0,
    "kmeans_min_vectors": 20,
    "quantizer": {"kmeans_init": True},
}


def samples(num: int = 12, num_frames: int = 40) -> list[dict[str, Any]]:
    """Documents that differ by their mean."""
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "video_id": f"d{n}",
            "features": torch.randn(num_frames, 6, generator=generator)
            + 3 * torch.randn(6, generator=generator),
        }
        for n in range(num)
    ]


def batches() -> Iterator[list[dict[str, Any]]]:
    return ([sample] for sample in samples())


@pytest.fixture(scope="module")
def trained() -> DocumentRQVAE:
    torch.manual_seed(0)
    model = DocumentRQVAE(**SETTINGS)
    model.at_iteration(0, 1, batches)
    return model


@pytest.fixture
def retriever(trained: DocumentRQVAE) -> DocumentRetriever:
    torch.manual_seed(0)
    model = DocumentRetriever(documents_per_step=8, **SETTINGS)
    found = model.load_state_dict(trained.state_dict(), strict=False)
    assert not found.unexpected_keys
    assert all(name.startswith("head.") for name in found.missing_keys)
    return model


def test_untrained_weights_are_uniform() -> None:
    windows = torch.randn(3, 7, 4)
    head = AttentionPooling(4)
    torch.testing.assert_close(head.pool(windows), windows.mean(1, keepdim=True))
    mask = torch.arange(7) < torch.tensor([[7], [3], [1]])
    found = head.pool(windows, mask)
    for index, length in enumerate((7, 3, 1)):
        torch.testing.assert_close(found[index, 0], windows[index, :length].mean(0))
    assert torch.equal(head.project(found), found[:, 0])


def test_pooling_equals_the_formula() -> None:
    head, windows = AttentionPooling(4, num_queries=2, output_dim=5), torch.randn(7, 4)
    torch.nn.init.normal_(head.query)
    torch.nn.init.normal_(head.key.weight)
    means = []
    for query, key in zip(head.query, head.key.weight.split(4), strict=True):
        logits = torch.stack([query @ (key @ u) / 2 for u in windows])
        means.append(sum(w * u for w, u in zip(logits.softmax(0), windows, strict=True)))
    found = head.pool(windows)
    torch.testing.assert_close(found, torch.stack(means))
    torch.testing.assert_close(head.project(found), head.projection.weight @ torch.cat(means))
    mask = torch.zeros(7, dtype=torch.bool)
    head.pool(windows, mask).sum().backward()
    assert head.query.grad is not None
    assert torch.isfinite(head.query.grad).all()


def test_crops_are_disjoint_runs_of_the_document() -> None:
    lengths = torch.tensor([2, 3, 10, 42] * 50)
    generator = torch.Generator().manual_seed(0)
    first, second = draw_crops(lengths, 42, shares=(0.1, 0.5), generator=generator)
    assert not (first & second).any()
    for mask in (first, second):
        sizes = mask.sum(1)
        assert (sizes >= 1).all()
        assert (sizes <= lengths // 2).all()
        assert not (mask & (torch.arange(42) >= lengths[:, None])).any()
        starts = F.pad(mask.int(), (1, 0)).diff(dim=1) == 1
        assert (starts.sum(1) == 1).all()
    long = lengths == 42
    covered = (first | second)[long].any(0)
    assert covered.all()
    assert len(first[long].sum(1).unique()) > 5


def test_loss_by_hand() -> None:
    first, second = (F.normalize(torch.randn(5, 3), dim=1) for _ in range(2))
    logits = first @ second.T / 0.2
    rows = [-logits[i].log_softmax(0)[i] for i in range(5)]
    columns = [-logits[:, i].log_softmax(0)[i] for i in range(5)]
    expected = (sum(rows) + sum(columns)) / 10
    torch.testing.assert_close(contrastive_loss(first, second, 0.2), expected)


def test_training_separates_documents_and_freezes_the_rest(retriever: DocumentRetriever) -> None:
    before = {name: value.clone() for name, value in retriever.state_dict().items()}
    trainable = [p for p in retriever.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trainable, 0.01)
    losses = []
    for iteration in range(150):
        retriever.at_iteration(iteration, 150, batches)
        retriever.train()
        torch.manual_seed(iteration)
        (loss,) = retriever(samples(1)).values()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    after = retriever.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {"head.query", "head.key.weight", "head.projection.weight"}


def test_codes_are_computed_once_and_again_after_a_resume(retriever: DocumentRetriever) -> None:
    passes = 0

    def counted() -> Iterator[list[dict[str, Any]]]:
        nonlocal passes
        passes += 1
        return batches()

    assert not retriever.is_fitted
    for iteration in (3, 4, 5):
        retriever.at_iteration(iteration, 5, counted)
    assert passes == 1
    assert retriever.is_fitted
    retriever.train()
    torch.manual_seed(7)
    expected = retriever([])["loss_contrastive"]
    resumed = DocumentRetriever(documents_per_step=8, **SETTINGS)
    resumed.load_state_dict(retriever.state_dict())
    resumed.at_iteration(4, 5, batches)
    resumed.train()
    torch.manual_seed(7)
    assert torch.equal(resumed([])["loss_contrastive"], expected)


def test_an_untrained_head_compares_as_b_does(retriever: DocumentRetriever) -> None:
    found: list[dict[str, Tensor]] = [one.vectors for one in retriever.eval()(samples(3))]
    c, b = (torch.stack([one[name] for one in found]) for name in ("C", "B/continuous"))
    torch.testing.assert_close(c @ c.T, b @ b.T)
    torch.testing.assert_close(found[0]["half2/C/codes"], found[0]["half2/B"])


def test_without_trained_weights_there_is_nothing_to_learn() -> None:
    model = DocumentRetriever(**SETTINGS)
    with pytest.raises(ConfigError, match=r"SOLVER\.INIT_FROM or its weights in MODEL\.WEIGHTS"):
        model.at_iteration(0, 10, batches)


def test_documents_of_one_window_cannot_be_halved(retriever: DocumentRetriever) -> None:
    with pytest.raises(DataError, match="has 1 documents of at least two windows"):
        retriever.at_iteration(0, 10, lambda: iter([samples(1), samples(3, num_frames=2)]))
