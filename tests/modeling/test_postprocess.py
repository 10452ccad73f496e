"""Linking and selection."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from vidseg.modeling.postprocess import (
    foreground_confidence,
    link_queries,
    link_step,
    select_instances,
)


def test_linking_undoes_a_permutation() -> None:
    tracks = torch.randn(1, 6, 16)
    orders = torch.stack([torch.randperm(6) for _ in range(5)])
    orders[0] = torch.arange(6)
    noisy = tracks + 0.01 * torch.randn(5, 6, 16)
    embeds = torch.stack([frame[order] for frame, order in zip(noisy, orders, strict=True)])
    found = link_queries(embeds)
    for order, link in zip(orders, found, strict=True):
        assert torch.equal(order[link], torch.arange(6))


def test_link_step_is_the_best_of_all_assignments() -> None:
    previous, current = torch.randn(4, 3), torch.randn(4, 3) * 5
    cosine = F.normalize(previous, dim=1) @ F.normalize(current, dim=1).T
    best = max(
        itertools.permutations(range(4)),
        key=lambda p: sum(cosine[i, j].item() for i, j in enumerate(p)),
    )
    assert link_step(previous, current).tolist() == list(best)


@pytest.mark.parametrize("num_frames", [0, 1])
def test_linking_short_videos(num_frames: int) -> None:
    assert link_queries(torch.randn(num_frames, 3, 4)).shape == (num_frames, 3)


def test_selection_ranks_pairs() -> None:
    probability = torch.tensor([[0.5, 0.4, 0.1], [0.1, 0.3, 0.6]])
    scores, labels, rows = select_instances(probability.log(), 3)
    torch.testing.assert_close(scores, torch.tensor([0.5, 0.4, 0.3]))
    assert labels.tolist() == [0, 1, 1]
    assert rows.tolist() == [0, 0, 1]
    scores, labels, rows = select_instances(probability.log(), 3, one_label_per_track=True)
    assert (labels.tolist(), rows.tolist()) == ([0, 1], [0, 1])


def test_selection_with_quality_and_few_tracks() -> None:
    logits = torch.tensor([[2.0, 0, 0], [2, 0, 0]])
    scores, _, rows = select_instances(logits, 20, quality=torch.tensor([0.1, 1.0]))
    assert len(scores) == 4
    assert rows[0] == 1
    assert (scores.diff() <= 0).all()


def test_quality_orders_what_the_class_has_picked() -> None:
    probability = torch.tensor([[0.9, 0.05, 0.05], [0.3, 0.1, 0.6]])
    quality = torch.tensor([0.1, 1.0])
    scores, labels, rows = select_instances(probability.log(), 2, quality=quality)
    assert (rows.tolist(), labels.tolist()) == ([1, 0], [0, 0])
    torch.testing.assert_close(scores, torch.tensor([0.3, 0.09]))


@pytest.mark.parametrize("one_label", [False, True])
def test_selection_of_nothing(one_label: bool) -> None:
    found = select_instances(torch.zeros(0, 4), 5, one_label_per_track=one_label)
    assert [len(part) for part in found] == [0, 0, 0]


def test_quality_is_the_mean_foreground_probability() -> None:
    logits = torch.tensor([[[2.0, -1.0], [0.5, -3.0]], [[-1, -1], [-1, -1]]])
    total, pixels = foreground_confidence(logits)
    torch.testing.assert_close(total, torch.stack([logits[0, :, 0].sigmoid().sum(), total[1] * 0]))
    assert pixels.tolist() == [2, 0]
