"""Training step of the tracker."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from tests.golden.training import FOLDER, Replay, load
from vidseg.modeling.matcher import HungarianMatcher
from vidseg.modeling.transformer_decoder.masked import DecoderOutput
from vidseg.projects.dvis_daq.criterion import DAQCriterion
from vidseg.projects.dvis_daq.online_training import (
    Phase,
    _used_frames,
    mean_losses,
    online_losses,
    tracker_losses,
)
from vidseg.projects.dvis_daq.settings import TrainingSettings
from vidseg.projects.dvis_daq.targets import ClipTargets
from vidseg.projects.dvis_daq.tracker import VideoInstanceCutter
from vidseg.structures import ClipInstances

SETTINGS = TrainingSettings((3, 5), (10,), select_threshold=0.46, first_threshold=0.2)
WEIGHTS = {"loss_ce": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}


def build_tracker():
    return VideoInstanceCutter(
        hidden_dim=16,
        feedforward_dim=32,
        num_heads=4,
        num_layers=2,
        num_classes=5,
        num_new_instances=8,
        num_slots=3,
    )


def build_criterion(rand=torch.rand):
    matcher = HungarianMatcher(2, 5, 5, 40, rand=rand)
    return DAQCriterion(5, matcher, weights=WEIGHTS, num_points=40)


@pytest.mark.parametrize("case", ["daq_online_step_early", "daq_online_step_late"])
def test_step_matches_the_reference(case):
    x, expected = load(case)
    meta = json.loads((FOLDER / case / "meta.json").read_text())
    phase = Phase.at(meta["iteration"], SETTINGS)
    assert phase.is_late == (meta["stage"] == 3)
    assert phase.num_frames == meta["frames_used"]
    starts = iter([pick for _, _, pick in meta["clip_start"]])
    start, stop = _used_frames(5, phase.num_frames, lambda num: next(starts))
    clip = DecoderOutput(
        logits=x["seg_logits"][0, start:stop],
        masks=x["seg_masks"][0, :, start:stop].transpose(0, 1),
        embeds=x["seg_embeds"][0].permute(1, 2, 0)[start:stop],
        embeds_without_norm=x["seg_embeds"][0].permute(1, 2, 0)[start:stop],
        mask_features=x["mask_features"][start:stop],
    )
    targets = ClipTargets(
        x["gt_masks"][:, start:stop], x["gt_labels"], x["gt_ids"][:, start:stop] >= 0
    )
    tracker = build_tracker()
    weights = {k.removeprefix("w/"): v for k, v in x.items() if k.startswith("w/")}
    tracker.load_state_dict(weights)
    rand = Replay(x)
    hidden = iter(meta["hidden_target"])

    def pick(num):
        low, high, chosen = next(hidden)
        assert (low, high) == (0, num)
        return chosen

    losses = tracker_losses(
        tracker,
        build_criterion(rand),
        clip,
        targets,
        x["seg_query_feat"],
        settings=SETTINGS,
        phase=phase,
        pick=pick,
    )
    rand.assert_exhausted()
    assert {f"loss/{name}" for name in losses} == {k for k in expected if k.startswith("loss/")}
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[f"loss/{name}"], rtol=1e-4, atol=1e-5)
    sum(losses.values()).backward()
    for name, parameter in tracker.named_parameters():
        norm = expected[f"gradnorm/{name}"]
        assert (parameter.grad is None) == (norm < 0), name
        if parameter.grad is not None:
            torch.testing.assert_close(
                parameter.grad.norm(), norm, rtol=2e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}"
            )


class TinySegmenter:
    """Stands in for the model: a frozen segmenter of random outputs."""

    device = torch.device("cpu")

    def __init__(self, settings):
        self.tracker, self.daq_criterion = build_tracker(), build_criterion()
        self.training_settings = settings
        query_feat = torch.nn.Embedding(8, 16)
        self.sem_seg_head = SimpleNamespace(predictor=SimpleNamespace(query_feat=query_feat))

    def segment(self, frames):
        assert not torch.is_grad_enabled()
        num = len(frames)
        embeds = torch.randn(num, 8, 16)
        features = torch.randn(num, 16, 8, 8)
        logits, masks = torch.randn(num, 8, 6), torch.randn(num, 8, 8, 8)
        return DecoderOutput(logits, masks, embeds, embeds, features)


def sample(num_frames, num_objects, iteration):
    masks = torch.rand(num_objects, num_frames, 30, 28) > 0.7
    present = masks.flatten(2).any(2)
    labels = torch.randint(5, (num_objects,))
    return {
        "frames": torch.zeros(num_frames, 3, 30, 28, dtype=torch.uint8),
        "instances": ClipInstances(masks, labels, present),
        "iteration": iteration,
        "max_iter": 20,
    }


@pytest.mark.parametrize("iteration", [0, 15])
@pytest.mark.parametrize("shapes", [[(5, 4)], [(5, 0)], [(4, 3), (2, 9)], [(3, 6), (1, 2)]])
def test_every_clip_gives_finite_losses_and_gradients(iteration, shapes):
    torch.manual_seed(0)
    model = TinySegmenter(TrainingSettings((3, 5), (10,), select_threshold=0.2))
    losses = online_losses(model, [sample(t, n, iteration) for t, n in shapes])
    assert all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    grads = [p.grad for p in model.tracker.parameters() if p.grad is not None]
    assert grads
    assert all(grad.isfinite().all() for grad in grads)


def test_nothing_carried_is_found_again_by_the_anchors():
    torch.manual_seed(0)
    model = TinySegmenter(TrainingSettings(select_threshold=1.0))
    losses = online_losses(model, [sample(3, 4, 0)])
    assert losses["loss_mask"] > 0
    assert losses["slot_loss_mask"] == 0
    assert losses["slot_loss_ce"] > 0


def test_phases_follow_the_iteration():
    assert Phase.at(9, SETTINGS) == Phase(is_late=False, num_frames=3)
    assert Phase.at(10, SETTINGS) == Phase(is_late=True, num_frames=5)
    assert Phase.at(0, TrainingSettings()) == Phase(is_late=True, num_frames=0)


@pytest.mark.parametrize(
    ("length", "wanted", "chosen", "expected"),
    [(5, 2, 1, (1, 3)), (5, 4, 3, (1, 5)), (3, 5, 0, (0, 3)), (5, 0, 0, (0, 5))],
)
def test_part_of_the_clip(length, wanted, chosen, expected):
    assert _used_frames(length, wanted, lambda num: chosen) == expected


def test_videos_count_equally():
    one, two = {"a": torch.tensor(1.0), "b": torch.tensor(4.0)}, {"a": torch.tensor(3.0)}
    assert mean_losses([one, two]) == {"a": torch.tensor(2.0), "b": torch.tensor(2.0)}
