"""Ground truth of tracker training."""

from __future__ import annotations

import torch

from tests.golden.training import load
from vidseg.projects.dvis_daq.targets import clip_targets, tall_target
from vidseg.structures import ClipInstances


def test_matches_the_reference():
    x, expected = load("targets")
    masks = x["gt_masks"].bool()
    if masks.shape[0] != len(x["gt_ids"]):
        masks = masks.transpose(0, 1)
    ids, classes = x["gt_ids"], x["gt_classes"]
    instances = ClipInstances(masks, classes.amax(1), ids >= 0)
    targets = clip_targets(instances, size=tuple(x["padded_size"].tolist()), device="cpu")
    assert torch.equal(targets.labels, expected["daq/labels"])
    assert torch.equal(targets.masks, expected["daq/masks"])
    assert torch.equal(targets.visible, expected["daq/ids"] >= 0)
    for t in range(targets.num_frames):
        assert torch.equal(targets.visible[:, t], expected[f"frame{t}/valid_inst"])


def test_clip_without_objects():
    instances = ClipInstances(
        torch.zeros(2, 3, 4, 6).bool(), torch.zeros(2).long(), torch.ones(2, 3).bool()
    )
    targets = clip_targets(instances, size=(8, 8), device="cpu")
    assert len(targets) == 0
    assert targets.masks.shape == (0, 3, 8, 8)


def test_tall_target_lays_frames_under_each_other():
    masks = torch.rand(2, 3, 4, 8) > 0.5
    instances = ClipInstances(masks, torch.tensor([1, 0]), torch.ones(2, 3).bool())
    tall = tall_target(clip_targets(instances, size=(4, 8), device="cpu"))
    assert tall.masks.shape == (2, 1, 12, 8)
    assert torch.equal(tall.masks[1, 0, 4:8], masks[1, 1].float())
