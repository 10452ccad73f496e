"""Loss of the tracker."""

from __future__ import annotations

import torch

from tests.golden.training import Replay, load
from vidseg.modeling.matcher import HungarianMatcher
from vidseg.projects.dvis_daq.criterion import DAQCriterion, FramePrediction, foreground_pairs
from vidseg.projects.dvis_daq.targets import ClipTargets

ONES = {"loss_ce": 1.0, "loss_mask": 1.0, "loss_dice": 1.0}


def test_matches_the_reference():
    x, expected = load("daq_criterion")
    targets = ClipTargets(x["masks"].transpose(0, 1), x["labels"], x["valid_inst"].T)
    frames = []
    for t in range(3):
        names = [f"frame{t}_aux0_", f"frame{t}_aux1_", f"frame{t}_"]
        logits = torch.cat([x[f"{name}pred_logits"] for name in names])
        masks = torch.cat([x[f"{name}pred_masks"] for name in names])
        pairs = x[f"frame{t}_src"], x[f"frame{t}_tgt"]
        foreground = foreground_pairs(pairs, targets, t, gone=x[f"frame{t}_gone"].tolist())
        prediction = FramePrediction(t, logits, masks[:, foreground[0]], foreground, len(pairs[0]))
        frames.append(prediction)
    num_points, rand = int(x["num_points"]), Replay(x)
    criterion = DAQCriterion(
        int(x["num_classes"]),
        HungarianMatcher(num_points=num_points, rand=rand),
        weights=ONES,
        num_points=num_points,
    )
    losses = criterion(frames, targets)
    rand.assert_exhausted()
    assert set(losses) == set(expected)
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)


def test_no_object_and_no_query_keep_the_graph():
    logits = [torch.randn(2, n, 4, requires_grad=True) for n in (3, 0)]
    none = torch.zeros(0).long()
    targets = ClipTargets(torch.zeros(0, 2, 8, 8), none, torch.zeros(0, 2).bool())
    criterion = DAQCriterion(3, HungarianMatcher(num_points=8), weights=ONES, num_points=8)
    frames = [
        FramePrediction(t, x, torch.zeros(2, 0, 2, 2), (none, none), 0)
        for t, x in enumerate(logits)
    ]
    losses = criterion(frames, targets)
    sum(losses.values()).backward()
    assert logits[0].grad.abs().sum() > 0
    assert losses["loss_mask"].item() == losses["loss_dice_0"].item() == 0
    nothing = criterion(frames[1:], targets)
    assert nothing["loss_ce"].item() == 0
