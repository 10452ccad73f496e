"""Assignment of queries to objects."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.golden.training import Replay, load
from vidseg.modeling.matcher import HungarianMatcher, assign


def targets_of(x, count, *, video):
    masks = [x[f"target{i}_masks"] for i in range(count)]
    return [
        SimpleNamespace(labels=x[f"target{i}_labels"], masks=m if video else m[:, None])
        for i, m in enumerate(masks)
    ]


@pytest.mark.parametrize(("case", "count"), [("matcher_image", 3), ("matcher_video", 2)])
def test_matches_the_reference(case, count):
    x, expected = load(case)
    video = case == "matcher_video"
    masks = x["pred_masks"] if video else x["pred_masks"][:, :, None]
    targets = targets_of(x, count, video=video)
    rand = Replay(x)
    matcher = HungarianMatcher(2, 5, 5, int(x["num_points"]), rand=rand)
    points = matcher.draw(masks)
    rand.assert_exhausted()

    layers = [(x["pred_logits"], masks)]
    costs = matcher.costs(layers, targets, points[None])
    pairs = matcher.match_layers(layers, targets, points[None])[0]
    for i, (src, tgt) in enumerate(pairs):
        assert src.tolist() == expected[f"src{i}"].tolist()
        assert tgt.tolist() == expected[f"tgt{i}"].tolist()
        ours = torch.from_numpy(costs[0, i][:, : len(targets[i].labels)])
        torch.testing.assert_close(ours, expected[f"cost{i}"], rtol=1e-5, atol=1e-5)


def test_clips_of_unequal_size_do_not_influence_each_other():
    x, _ = load("matcher_image")
    targets = targets_of(x, 3, video=False)
    masks = x["pred_masks"][:, :, None]
    together = HungarianMatcher(2, 5, 5, 60, rand=Replay(x))(x["pred_logits"], masks, targets)
    rand = Replay(x)
    for i, (src, tgt) in enumerate(together):
        matcher = HungarianMatcher(2, 5, 5, 60, rand=rand)
        alone = matcher(x["pred_logits"][i : i + 1], masks[i : i + 1], targets[i : i + 1])[0]
        assert torch.equal(src, alone[0])
        assert torch.equal(tgt, alone[1])


@pytest.mark.parametrize("sizes", [(0,), (0, 3), (9, 2), (0, 0)])
def test_no_object_and_more_objects_than_queries(sizes):
    targets = [
        SimpleNamespace(labels=torch.zeros(n).long(), masks=torch.rand(n, 2, 16, 16) > 0.5)
        for n in sizes
    ]
    logits, masks = torch.randn(len(sizes), 5, 4), torch.randn(len(sizes), 5, 2, 4, 4)
    pairs = HungarianMatcher(num_points=12)(logits, masks, targets)
    assert [len(src) for src, _ in pairs] == [min(n, 5) for n in sizes]


def test_assignment_is_optimal():
    cost = np.random.default_rng(0).random((5, 3))
    rows, columns = assign(cost)
    best = min(
        sum(cost[row, column] for column, row in enumerate(order))
        for order in itertools.permutations(range(5), 3)
    )
    assert cost[rows, columns].sum() == pytest.approx(best)


def test_costs_that_are_not_finite_are_reported(caplog):
    rows, columns = assign(np.array([[np.nan, 1.0], [2.0, np.inf]]))
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])
    assert "2 of 4 matching costs are not finite" in caplog.text
