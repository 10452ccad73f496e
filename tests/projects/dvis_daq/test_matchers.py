"""Matching in the training of the tracker."""

from __future__ import annotations

import pytest
import torch

from tests.golden.training import Replay, load
from vidseg.modeling.matcher import HungarianMatcher
from vidseg.projects.dvis_daq.matchers import match_frames, match_new_instances
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
