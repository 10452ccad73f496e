"""Contrastive losses of re-identification embeddings."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from tests.golden.training import load
from vidseg.projects.dvis_daq.contrast import (
    ContrastItems,
    clip_items,
    contrastive_losses,
    memory_items,
    object_queries,
)


def close(losses, expected, case, weights=(1.0, 1.0)):
    for name, weight in zip(("loss_reid", "loss_aux_reid"), weights, strict=True):
        found = weight * losses[name]
        torch.testing.assert_close(found, expected[f"{case}/{name}"], rtol=1e-4, atol=1e-6)


def never(*size):
    raise AssertionError(f"drew {size}")


# ---- recorded cases ---------------------------------------------------------------------------


def test_items_match_the_reference():
    x, expected = load("reid_losses")
    items = ContrastItems(
        torch.cat([x[f"item{i}/anchor"] for i in range(3)]),
        pad_sequence([x[f"item{i}/embeds"] for i in range(3)], batch_first=True),
        pad_sequence([x[f"item{i}/label"] for i in range(3)], batch_first=True, padding_value=-1),
    )
    close(contrastive_losses(items), expected, "pairs")


def test_clip_matches_the_reference():
    x, expected = load("reid_losses")
    close(contrastive_losses(clip_items(x["clip/references"], x["clip/src"])), expected, "clip")


def test_memory_matches_the_reference():
    x, expected = load("reid_losses")
    present = x["memory/present"]
    queries = torch.where(present, x["memory/query_of_object"][:, None], -1)
    draws = [x["memory/coins"]]

    def rand(num):
        assert num == len(draws[0])
        return draws.pop()

    items = memory_items(
        x["memory/reid_embeds"], queries, num_negatives=10, use_mean=True, rand=rand
    )
    assert draws == []
    assert len(items.anchors) == 5
    close(contrastive_losses(items), expected, "memory", weights=(2.0, 3.0))


# ---- items ------------------------------------------------------------------------------------


def test_item_loss_by_hand():
    anchor = torch.tensor([[1.0, 0.0]])
    candidates = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [3.0, 4.0], [9.0, 9.0]]])
    losses = contrastive_losses(ContrastItems(anchor, candidates, torch.tensor([[1, 0, 0, -1]])))
    want = math.log(1 + math.exp(0 - 2) + math.exp(3 - 2))
    assert losses["loss_reid"].item() == pytest.approx(want)
    assert losses["loss_aux_reid"].item() == pytest.approx((0 + 0 + 0.6**2) / 3)


@pytest.mark.parametrize("label", [-1, 1])
def test_items_without_negatives_have_finite_gradients(label):
    embeds = torch.randn(2, 3, 4, requires_grad=True)
    labels = torch.tensor([[1, 0, 0], [label, -1, -1]])
    losses = contrastive_losses(ContrastItems(embeds[:, 0] * 100, embeds, labels))
    sum(losses.values()).backward()
    assert embeds.grad.isfinite().all()


def test_half_precision_neither_overflows_nor_leaks():
    embeds = torch.full((1, 3, 256), 30.0, dtype=torch.float16)
    items = ContrastItems(embeds[:, 0], embeds, torch.tensor([[1, 0, 0]]))
    losses = contrastive_losses(items)
    assert losses["loss_reid"].item() == pytest.approx(math.log(3), rel=1e-4)
    assert losses["loss_aux_reid"].dtype == torch.float32


# ---- memory -----------------------------------------------------------------------------------


def test_positives_and_negatives_of_the_memory():
    embeds = torch.randn(4, 5, 3)
    # Seen on all frames; first on frame 1, then on frame 2; first on the last frame.
    queries = torch.tensor([[4, 0, 2, 1], [-1, 3, 4, 4], [-1, -1, -1, 0]])
    items = memory_items(embeds, queries, num_negatives=5, use_mean=False, rand=never)
    frames, own = [1, 1, 2, 2, 3, 3], [0, 3, 2, 4, 1, 4]
    assert torch.equal(items.anchors, embeds[frames, own])
    positives = embeds[[0, 2, 1, 1, 2, 2], [4, 4, 0, 3, 2, 4]]
    assert torch.equal(items.candidates[:, 0], positives)
    assert torch.equal(items.candidates[:, 1:], embeds[[0, 0, 1, 1, 2, 2]])
    unused = [(row == -1).nonzero()[:, 0].tolist() for row in items.labels[:, 1:]]
    assert unused == [[4], [], [0], [3], [2], [4]]
    assert items.labels[:, 0].tolist() == [1] * 6
    assert items.labels.max() == 1


def test_object_is_passed_over_if_as_many_frames_lack_it_as_went_before():
    embeds = torch.randn(5, 3, 2)
    kept = torch.tensor([[-1, 1, 1, -1, -1]])  # two later frames without, one before
    passed = torch.tensor([[-1, 1, 1, 1, -1]])  # one and one
    count = [
        len(memory_items(embeds, queries, num_negatives=3, use_mean=False).anchors)
        for queries in (kept, passed)
    ]
    assert count == [2, 2]


def test_running_mean_follows_similar_embeddings():
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([0.6, 0.8])
    embeds = torch.stack([first, second, first])[:, None]  # (3, 1, 2)
    queries = torch.zeros(1, 3).long()
    items = memory_items(
        embeds, queries, num_negatives=1, use_mean=True, rand=lambda num: torch.ones(num)
    )
    torch.testing.assert_close(items.candidates[0, 0], first)
    torch.testing.assert_close(items.candidates[1, 0], 0.4 * first + 0.6 * second)
    last = memory_items(
        embeds, queries, num_negatives=1, use_mean=True, rand=lambda num: torch.zeros(num)
    )
    torch.testing.assert_close(last.candidates[1, 0], second)


def test_negatives_are_drawn_where_there_are_too_many():
    embeds, queries = torch.randn(6, 9, 4), torch.randint(0, 9, (3, 6))
    items = memory_items(embeds, queries, num_negatives=4, use_mean=False)
    assert (items.labels == 0).sum(1).tolist() == [4] * len(items.labels)
    own = queries.T[:-1].flatten()
    assert (items.labels[torch.arange(len(own)), 1 + own] == -1).all()


@pytest.mark.parametrize(("frames", "objects"), [(1, 2), (3, 0), (1, 0)])
def test_nothing_to_contrast_is_zero_and_keeps_the_graph(frames, objects):
    embeds = torch.randn(frames, 4, 3, requires_grad=True)
    queries = torch.zeros(objects, frames).long()
    parts = [
        memory_items(embeds, queries, num_negatives=3, use_mean=True),
        clip_items(embeds, queries[:, 0] if frames == 1 else queries[:0, 0]),
    ]
    for items in parts:
        losses = contrastive_losses(items)
        total = sum(losses.values())
        assert total.item() == 0
        total.backward()
        assert not embeds.grad.any()


def test_all_embeddings_of_an_item_learn():
    embeds = F.normalize(torch.randn(3, 4, 5), dim=-1).requires_grad_()
    queries = torch.tensor([[0, 1, 2]])
    losses = contrastive_losses(memory_items(embeds, queries, num_negatives=4, use_mean=False))
    losses["loss_reid"].backward()
    assert (embeds.grad[:2].abs().sum(-1) > 0).all()
    assert embeds.grad[2].abs().sum(-1).nonzero()[:, 0].tolist() == [2]


# ---- who is who -------------------------------------------------------------------------------


def test_queries_of_objects():
    present = torch.tensor([[True, True], [False, True], [True, False]])
    pairs = [
        (torch.tensor([0, 4, 5]), torch.tensor([2, 0, 1])),
        (torch.tensor([1]), torch.tensor([1])),  # no query for object 0
    ]
    assert object_queries(pairs, present, match_absent=True).tolist() == [[4, -1], [-1, 1], [0, -1]]
    pairs[0] = torch.tensor([0, 4]), torch.tensor([1, 0])
    found = object_queries(pairs, present, match_absent=False)
    assert found.tolist() == [[4, -1], [-1, 1], [0, -1]]
