"""k-means on pixels and the ceiling of a mask grid, beside which slots are judged."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vidseg.projects.slot_bert.grid_ceiling import grid_ceiling
from vidseg.projects.slot_bert.kmeans_baseline import kmeans_labels


def two_equal_squares() -> tuple[Tensor, Tensor]:
    """Two red squares and a blue one before grey, in three frames of 32 x 48."""
    labels = torch.zeros(3, 32, 48, dtype=torch.int16)
    labels[:, 4:12, 4:12], labels[:, 20:28, 36:44], labels[:, 4:12, 30:38] = 1, 2, 3
    colors = torch.tensor([[90, 90, 90], [230, 20, 20], [230, 20, 20], [20, 20, 230]])
    return colors[labels.long()].permute(0, 3, 1, 2).to(torch.uint8), labels


def same_partition(one: Tensor, other: Tensor) -> bool:
    pairs = torch.unique(torch.stack([one.flatten().long(), other.flatten().long()]), dim=1)
    return len(pairs[0].unique()) == len(pairs[1].unique()) == pairs.shape[1]


def test_kmeans_finds_flat_colours() -> None:
    frames, labels = two_equal_squares()
    colors = torch.where(labels == 2, 1, labels)
    assert same_partition(kmeans_labels(frames, 3), colors)
    assert same_partition(kmeans_labels(frames.float() / 255, 3), colors)


def test_kmeans_tells_equal_colours_apart_by_place() -> None:
    frames = torch.full((2, 3, 1, 32), 90, dtype=torch.uint8)
    halves = torch.arange(32).expand(2, 1, 32) // 16
    assert same_partition(kmeans_labels(frames, 2, pos_weight=0.3), halves)


def test_kmeans_never_needs_more_colours_than_there_are() -> None:
    assert kmeans_labels(torch.full((2, 3, 8, 8), 7, dtype=torch.uint8), 7).unique().tolist() == [0]
    frames, _ = two_equal_squares()
    assert len(kmeans_labels(frames, 7).unique()) == 3
    assert kmeans_labels(frames[:1, :, :1, :2], 7).shape == (1, 1, 2)


def test_kmeans_follows_its_seed_and_gains_by_restarts() -> None:
    torch.manual_seed(3)
    frames = torch.randint(0, 256, (2, 3, 24, 24), dtype=torch.uint8)
    assert torch.equal(kmeans_labels(frames, 5, seed=4), kmeans_labels(frames, 5, seed=4))

    def error(restarts: int) -> float:
        points = frames.permute(0, 2, 3, 1).reshape(-1, 3).double()
        found = kmeans_labels(frames, 5, restarts=restarts, seed=1).flatten()
        means = torch.stack([points[found == k].mean(0) for k in range(5)])
        return float((points - means[found]).square().sum())

    assert error(8) <= error(1)


def test_kmeans_draws_nothing_from_the_global_generator() -> None:
    frames, _ = two_equal_squares()
    state = torch.get_rng_state()
    kmeans_labels(frames, 3)
    assert torch.equal(state, torch.get_rng_state())


def test_ceiling_of_the_full_grid_is_the_truth() -> None:
    _, labels = two_equal_squares()
    assert torch.equal(grid_ceiling(labels, (32, 48)), labels.long())


def test_ceiling_loses_what_the_grid_cannot_hold() -> None:
    labels = torch.zeros(1, 32, 32, dtype=torch.int16)
    labels[0, 8:24, 8:24] = 5
    labels[0, 1, 1] = 2
    assert grid_ceiling(labels, (8, 8)).unique().tolist() == [0, 5]
    kept = grid_ceiling(labels, (8, 8))[0] == 5
    assert not kept[8, 8]
    assert kept[8, 16]
    assert int(kept.sum()) == pytest.approx(256, rel=0.1)


def test_ceiling_counts_unknown_pixels_as_no_object() -> None:
    labels = torch.full((1, 16, 16), -1, dtype=torch.int16)
    labels[0, :, 8:] = 1
    assert (grid_ceiling(labels, (4, 4))[0, :, 8:] == 1).all()
    assert grid_ceiling(torch.full((1, 8, 8), -1), (2, 2)).unique().tolist() == [0]
    assert grid_ceiling(torch.zeros(0, 8, 8), (2, 2)).shape == (0, 8, 8)
