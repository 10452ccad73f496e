"""Scale, codebooks and code statistics, fitted on passes over the training set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.projects.rqvae.support import FULL, GLOBAL, WIDTH, build, document
from vidseg.errors import DataError
from vidseg.projects.rqvae.fitting import Fitting


class Passes:
    """A training set that counts the passes over it."""

    def __init__(self, documents: list[Tensor], masks: dict[int, Tensor] | None = None) -> None:
        self.documents = documents
        self.masks = masks or {}
        self.count = 0

    def __call__(self) -> Iterator[list[dict[str, Any]]]:
        self.count += 1
        for number, features in enumerate(self.documents):
            sample: dict[str, Any] = {"features": features, "video_id": f"d{number}"}
            if number in self.masks:
                sample["mask"] = self.masks[number]
            yield [sample]


@pytest.mark.parametrize("settings", [FULL, GLOBAL], ids=["full", "global"])
def test_what_is_fitted_when(settings: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    model = build(fitted=False, warmup_fraction=0.5, **settings).train()
    batches = Passes([document(60, seed) for seed in range(40)])
    assert model.at_iteration(0, 10, batches)
    assert "the first 5 steps train without quantisation" in caplog.text
    assert model.standardisation.is_fitted
    assert not model.rvq.initialized
    assert model.training
    for iteration in range(1, 5):
        assert not model.at_iteration(iteration, 10, batches)
    assert batches.count == 1
    assert (model(document(60)[None])[2] == -1).all()
    assert model.at_iteration(5, 10, batches)
    assert model.rvq.initialized
    assert "from here on features are quantised" in caplog.text
    assert int(model.fitting.num_documents) == 40
    assert batches.count == 3
    assert (model(document(60)[None])[2] >= 0).all()
    before = model.rvq.codebooks.clone()
    for iteration in range(6, 10):
        assert not model.at_iteration(iteration, 10, batches)
    model.fitting.num_documents.zero_()
    assert model.at_iteration(10, 10, batches)
    assert int(model.fitting.num_documents) == 40
    assert torch.equal(model.rvq.codebooks, before)


def test_codebooks_start_with_a_share_of_every_part_of_the_set() -> None:
    model = build(fitted=False, warmup_fraction=0.0, kmeans_min_vectors=100, **FULL)
    seen: list[float] = []
    latents = model.latents

    def watched(features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        seen.append(float(features[0, 0]))
        return latents(features, mask)

    model.latents = watched  # type: ignore[method-assign]
    gathered = []
    model.rvq.initialize = lambda vectors: gathered.append(len(vectors))  # type: ignore
    documents = [document(40, seed) for seed in range(50)]
    for number, one in enumerate(documents):
        one[0, 0] = number
    model.standardisation.fit([(one, None) for one in documents])
    model.fitting.num_windows.fill_(500)
    model.fitting._fit_codebooks(model, Passes(documents))
    assert gathered[0] >= 100
    assert gathered[0] <= 110
    gaps = torch.tensor(seen).diff()
    assert gaps.max() <= 5 * 1.2
    assert gaps.min() >= 4


def test_all_vectors_are_taken_of_a_small_set(caplog: pytest.LogCaptureFixture) -> None:
    model = build(fitted=False, warmup_fraction=0.0, **FULL)
    model.at_iteration(0, 10, Passes([document(21)]))
    assert "6 vectors for codebooks of 16" in caplog.text
    assert model.rvq.initialized


def test_a_set_without_a_valid_window_is_told() -> None:
    model = build(fitted=False, warmup_fraction=0.0, min_valid_frames=9)
    with pytest.raises(DataError, match=r"k-means: .*not one window.*MIN_VALID_FRAMES"):
        model.at_iteration(0, 10, Passes([document(8), document(5, 1)]))


def test_masked_windows_take_no_part() -> None:
    mask = torch.ones(60, dtype=torch.bool)
    mask[20:] = False
    cut = build(fitted=False, warmup_fraction=0.0, **FULL)
    cut.at_iteration(0, 10, Passes([document(60, 1)[:20], document(60, 2)]))
    masked = build(fitted=False, warmup_fraction=0.0, **FULL)
    other = document(60, 1)
    other[20:] = torch.nan
    masked.at_iteration(0, 10, Passes([other, document(60, 2)], {0: mask}))
    for name, value in cut.state_dict().items():
        assert torch.equal(value, masked.state_dict()[name]), name


def test_trained_weights_keep_their_scale_and_codebooks() -> None:
    model = build(**FULL)
    scale, books = model.standardisation.mean.clone(), model.rvq.codebooks.clone()
    batches = Passes([document(60)])
    assert not model.at_iteration(0, 10, batches)
    assert torch.equal(model.standardisation.mean, scale)
    assert torch.equal(model.rvq.codebooks, books)
    assert batches.count == 0


def test_what_was_fitted_travels_in_the_checkpoint() -> None:
    model = build(fitted=False, warmup_fraction=0.0, **FULL)
    model.at_iteration(0, 10, Passes([document(60, seed) for seed in range(5)]))
    other = build(fitted=False, **FULL)
    other.load_state_dict(model.state_dict())
    x = document(50)
    assert torch.equal(model.encode(x).codes, other.encode(x).codes)
    assert other.code_statistics.num_documents == 5
    assert torch.equal(other.code_statistics.mean, model.code_statistics.mean)


def test_a_bad_document_is_named() -> None:
    model = build(fitted=False, **FULL)
    bad = document(50)
    bad[7, 3] = torch.inf
    with pytest.raises(DataError, match=r"document d1: .*frame 7 hold NaN"):
        model.at_iteration(0, 10, Passes([document(50), bad]))
    with pytest.raises(DataError, match="document d0: there are no frames"):
        model.at_iteration(0, 10, Passes([torch.zeros(0, WIDTH)]))


def test_share_of_the_schedule_is_checked() -> None:
    with pytest.raises(ValueError, match=r"1\.5"):
        Fitting((8, 16, 8), warmup_fraction=1.5, min_vectors=0)
