"""Mask losses against recorded values and values worked out by hand."""

from __future__ import annotations

import pytest
import torch

from tests.golden.training import Replay, load
from vidseg.modeling.mask_losses import (
    dice_loss,
    draw_points,
    mask_point_losses,
    pair_bce,
    pair_dice,
    sample_points,
    sample_uncertain_points,
    sigmoid_ce_loss,
)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_losses_match_the_reference(kind):
    x, expected = load("point_losses")
    num_masks = float(x["num_masks"])
    dice = dice_loss(x["logits"], x[f"targets_{kind}"], num_masks)
    bce = sigmoid_ce_loss(x["logits"], x[f"targets_{kind}"], num_masks)
    torch.testing.assert_close(dice, expected[f"dice_{kind}"], rtol=1e-5, atol=0)
    torch.testing.assert_close(bce, expected[f"bce_{kind}"], rtol=1e-5, atol=0)


def test_pair_costs_match_the_reference():
    x, expected = load("point_losses")
    dice = pair_dice(x["pair_logits"], x["pair_targets"])
    bce = pair_bce(x["pair_logits"], x["pair_targets"])
    torch.testing.assert_close(dice, expected["pair_dice"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(bce, expected["pair_bce"], rtol=1e-5, atol=1e-6)


def test_uncertain_points_match_the_reference():
    x, expected = load("point_sampling")
    rand = Replay(x)
    coords = sample_uncertain_points(
        x["src"],
        int(x["num_points"]),
        oversample_ratio=float(x["oversample_ratio"]),
        importance_sample_ratio=float(x["importance_sample_ratio"]),
        rand=rand,
    )
    rand.assert_exhausted()
    for ours, theirs in zip(
        coords, expected["coords"], strict=True
    ):  # the order of the chosen is free
        assert {tuple(p) for p in ours.tolist()} == {tuple(p) for p in theirs.tolist()}
    for name in ("src", "tgt"):
        values = sample_points(x[name], expected["coords"])
        torch.testing.assert_close(values, expected[f"{name}_at"], rtol=1e-5, atol=1e-6)


def test_sampling_reads_cell_centres_and_zero_outside():
    maps = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    coords = torch.tensor([[[0.25, 0.25], [0.75, 0.25], [0.5, 0.5], [2.0, 2.0]]])
    assert sample_points(maps, coords).flatten().tolist() == [1.0, 2.0, 2.5, 0.0]


def test_no_point_is_random_when_all_are_important():
    candidates, fill = draw_points(2, 8, oversample_ratio=2, importance_sample_ratio=1)
    assert candidates.shape == (2, 16, 2)
    assert fill.shape == (2, 0, 2)


def test_targets_are_read_by_row():
    torch.manual_seed(0)
    targets = torch.zeros(3, 8, 8)
    targets[2] = 1
    draw = draw_points(2, 16, oversample_ratio=3.0, importance_sample_ratio=0.75)
    logits = torch.stack([torch.full((4, 4), 9.0), torch.full((4, 4), -9.0)])
    right = mask_point_losses(logits, targets, torch.tensor([2, 0]), 1, num_points=16, draw=draw)
    wrong = mask_point_losses(logits, targets, torch.tensor([0, 2]), 1, num_points=16, draw=draw)
    # Points near the border are read against the zeros around the map, hence not exactly 0.
    assert right[0] < 0.5 * wrong[0]
    assert right[1] < 0.5 * wrong[1]


def test_no_mask_keeps_the_graph():
    logits = torch.zeros(0, 4, 4, requires_grad=True)
    draw = draw_points(0, 16, oversample_ratio=3.0, importance_sample_ratio=0.75)
    losses = mask_point_losses(
        logits, torch.zeros(0, 8, 8), torch.zeros(0).long(), 1, num_points=16, draw=draw
    )
    sum(losses).backward()
    assert sum(losses).item() == 0
    assert logits.grad is not None
