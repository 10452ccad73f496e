"""Matching in the training of the tracker."""

from __future__ import annotations

import pytest
import torch

from tests.golden.training import Replay, load
from vidseg.modeling.matcher import HungarianMatcher
from vidseg.projects.dvis_daq.matchers import (
    match_first_appearances,
    match_frames,
    match_new_instances,
)
from vidseg.projects.dvis_daq.targets import ClipTargets


def test_frames_match_the_reference():
    x, expected = load("daq_frame_matcher")
    masks = torch.stack([x[f"target{t}_masks"] for t in range(3)], dim=1)
    visible = torch.stack([x[f"target{t}_valid_inst"] for t in range(3)], dim=1)
    targets = ClipTargets(masks, x["target0_labels"], visible)
    rand = Replay(x)
    matches = match_frames(
        HungarianMatcher(2, 5, 5, int(x["num_points"]), rand=rand),
        x["pred_logits"],
        x["pred_masks"],
        targets,
        valid_threshold=float(x["select_thr"]),
    )
    rand.assert_exhausted()
    for t, match in enumerate(matches):
        assert torch.equal(match.pairs[0], expected[f"src{t}"])
        assert torch.equal(match.pairs[1], expected[f"tgt{t}"])
        assert torch.equal(match.nearest, expected[f"aux_tgt{t}"])
        assert torch.equal(match.valid, expected[f"valid{t}"])


@pytest.mark.parametrize("scene", ["none_new", "two_new", "all_new", "more_targets_than_queries"])
def test_new_instances_match_the_reference(scene):
    x, expected = load("daq_new_instance_matcher")
    rand = Replay(x, f"{scene}/")
    targets = ClipTargets(
        x[f"{scene}/masks"][:, None], x[f"{scene}/labels"], x[f"{scene}/valid_inst"][:, None]
    )
    src, tgt = match_new_instances(
        HungarianMatcher(2, 5, 5, int(x["num_points"]), rand=rand),
        x[f"{scene}/pred_logits"][0],
        x[f"{scene}/pred_masks"][0, -int(x["num_new_ins"]) :],
        targets,
        0,
        tracked=(x[f"{scene}/prev_src"], x[f"{scene}/prev_tgt"]),
    )
    rand.assert_exhausted()
    assert src.tolist() == expected[f"{scene}/src"].tolist()
    assert tgt.tolist() == expected[f"{scene}/tgt"].tolist()


@pytest.mark.parametrize("num_objects", [0, 2])
def test_frames_that_show_nothing(num_objects):
    targets = ClipTargets(
        torch.zeros(num_objects, 2, 16, 16),
        torch.zeros(num_objects).long(),
        torch.zeros(num_objects, 2).bool(),
    )
    matches = match_frames(
        HungarianMatcher(num_points=8),
        torch.randn(2, 4, 3),
        torch.randn(2, 4, 4, 4),
        targets,
        valid_threshold=0.0,
    )
    for match in matches:
        assert len(match.pairs[0]) == 0
        assert match.nearest.tolist() == [-1] * 4
        assert match.valid.all()


def test_first_appearances_match_the_reference():
    x, expected = load("matcher_first_appearance")
    frames = range(int(x["frames"]))
    masks = torch.cat([x[f"target{t}_masks"] for t in frames], dim=1)
    visible = torch.cat([x[f"target{t}_ids"] for t in frames], dim=1) >= 0
    targets = ClipTargets(masks, x["target0_labels"], visible)
    rand = Replay(x)
    matcher = HungarianMatcher(2, 5, 5, int(x["num_points"]), rand=rand)
    src, tgt = match_first_appearances(matcher, x["pred_logits"], x["pred_masks"][:, :, 0], targets)
    rand.assert_exhausted()
    for t in frames:
        assert torch.equal(src, expected[f"src{t}"])
        assert torch.equal(tgt, expected[f"tgt{t}"])


def test_costs_of_first_appearances_match_the_reference():
    x, expected = load("matcher_first_appearance")
    matcher = HungarianMatcher(2, 5, 5, int(x["num_points"]), rand=Replay(x))
    for t, new in enumerate([[0, 2], [1], [3]]):
        frame = [0, 1, 3][t]
        layer = x["pred_logits"][frame : frame + 1], x["pred_masks"][frame : frame + 1]
        target = ClipTargets(x[f"target{frame}_masks"], x["target0_labels"], torch.ones(4, 1) > 0)
        points = matcher.draw(layer[0])
        cost = matcher.costs([layer], [target.rows(torch.tensor(new)).frame(0)], points[None])
        want = expected[f"cost{t}"]
        allowed = want < 1e6
        found = torch.from_numpy(cost[0, 0])
        torch.testing.assert_close(found[allowed], want[allowed], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_objects", [0, 3])
def test_first_appearances_without_a_query_left(num_objects):
    visible = torch.tensor([[True, True], [True, False], [False, True]])[:num_objects]
    masks = torch.zeros(num_objects, 2, 16, 16)
    targets = ClipTargets(masks, torch.zeros(num_objects).long(), visible)
    src, tgt = match_first_appearances(
        HungarianMatcher(num_points=8), torch.randn(2, 2, 3), torch.randn(2, 2, 4, 4), targets
    )
    assert sorted(src.tolist()) == list(range(min(num_objects, 2)))
    assert sorted(tgt.tolist()) == list(range(min(num_objects, 2)))
