"""Training step of the refiner."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.golden.training import Replay, load
from vidseg.modeling.criterion import SetCriterion
from vidseg.modeling.matcher import HungarianMatcher
from vidseg.modeling.transformer_decoder.masked import DecoderOutput
from vidseg.projects.dvis_daq.memory import TrackRules
from vidseg.projects.dvis_daq.offline_training import is_guided, offline_losses, refiner_losses
from vidseg.projects.dvis_daq.refiner import TemporalRefiner
from vidseg.projects.dvis_daq.sequences import clip_instances
from vidseg.projects.dvis_daq.settings import RefinerInput, TrainingSettings
from vidseg.projects.dvis_daq.targets import ClipTargets, tall_target
from vidseg.projects.dvis_daq.tracker import VideoInstanceCutter
from vidseg.structures import ClipInstances

WEIGHTS = {"loss_ce": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}
SIZES = {"hidden_dim": 16, "feedforward_dim": 32, "num_heads": 4, "num_layers": 2, "num_classes": 5}
RULES = TrackRules(0.35, 0.2, slot_rule="mean", min_length=1)


def build_networks():
    tracker = VideoInstanceCutter(**SIZES, num_new_instances=8, num_slots=3)
    return tracker, TemporalRefiner(**SIZES, mask_dim=16, use_local_attention=True)


def build_criterion(num_points, rand=torch.rand):
    matcher = HungarianMatcher(2, 5, 5, num_points, rand=rand)
    return SetCriterion(5, matcher, weights=WEIGHTS, num_points=num_points)


@pytest.mark.parametrize(
    ("case", "max_tracks", "guided"),
    [("daq_offline_step_guided", 5, True), ("daq_offline_step_self_matched", 12, False)],
)
def test_step_matches_the_reference(case, max_tracks, guided):
    x, expected = load(case)
    embeds = x["seg_embeds"][0].permute(1, 2, 0)
    clip = DecoderOutput(
        logits=x["seg_logits"][0],
        masks=x["seg_masks"][0].transpose(0, 1),
        embeds=embeds,
        embeds_without_norm=embeds,
        mask_features=x["mask_features"],
    )
    tracker, refiner = build_networks()
    for network, name in ((tracker, "tracker/"), (refiner, "refiner/")):
        keys = [key for key in x if key.startswith(name)]
        network.load_state_dict({key.removeprefix(name): x[key] for key in keys})

    wanted = RefinerInput(max_tracks, num_instances=8)
    instances = clip_instances(tracker, clip, RULES, x["seg_query_feat"], wanted)
    theirs = expected["instance_embeds"][0].permute(2, 1, 0)  # (N, T, C), in any order
    distance = torch.cdist(instances.embeds.flatten(1), theirs.flatten(1))
    order = distance.argmin(dim=1)
    assert sorted(order.tolist()) == list(range(len(theirs)))
    assert distance.amin(dim=1).max() < 1e-3
    # The order decides which random points a mask gets, so the recorded one is taken.
    instances = instances.rows(order.argsort())
    online = expected["online_logits"][0]
    torch.testing.assert_close(instances.logits, online, rtol=1e-4, atol=1e-4)

    targets = ClipTargets(x["gt_masks"], x["gt_labels"], x["gt_ids"] >= 0)
    rand = Replay(x)
    criterion = build_criterion(200, rand)
    losses = refiner_losses(
        refiner, criterion, clip, instances, tall_target(targets), guided=guided
    )
    rand.assert_exhausted()
    assert {f"loss/{name}" for name in losses} == {k for k in expected if k.startswith("loss/")}
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[f"loss/{name}"], rtol=1e-4, atol=1e-5)
    sum(losses.values()).backward()
    for name, parameter in refiner.named_parameters():
        torch.testing.assert_close(
            parameter.grad.norm(),
            expected[f"gradnorm/{name}"],
            rtol=2e-4,
            atol=2e-5,
            msg=lambda m, n=name: f"{n}: {m}",
        )


class TinyModel:
    """Stands in for the model: a frozen segmenter of random outputs."""

    device = torch.device("cpu")

    def __init__(self, settings):
        self.tracker, self.refiner = build_networks()
        self.daq_criterion, self.training_settings = build_criterion(40), settings
        query_feat = torch.nn.Embedding(8, 16)
        self.sem_seg_head = SimpleNamespace(predictor=SimpleNamespace(query_feat=query_feat))

    def segment(self, frames):
        assert not torch.is_grad_enabled()
        num = len(frames)
        embeds, features = torch.randn(num, 8, 16), torch.randn(num, 16, 8, 8)
        logits, masks = torch.randn(num, 8, 6), torch.randn(num, 8, 8, 8)
        return DecoderOutput(logits, masks, embeds, embeds, features)


def sample(num_frames, num_objects, iteration):
    masks = torch.rand(num_objects, num_frames, 30, 28) > 0.7
    labels = torch.randint(5, (num_objects,))
    return {
        "frames": torch.zeros(num_frames, 3, 30, 28, dtype=torch.uint8),
        "instances": ClipInstances(masks, labels, masks.flatten(2).any(2)),
        "iteration": iteration,
        "max_iter": 20,
    }


@pytest.mark.parametrize("iteration", [0, 15])
@pytest.mark.parametrize("shapes", [[(7, 4)], [(3, 0)], [(4, 3), (1, 12)]])
@pytest.mark.parametrize("fill", [True, False])
def test_every_clip_gives_finite_losses_and_gradients(iteration, shapes, fill):
    torch.manual_seed(0)
    rules = RULES if fill else replace(RULES, first_threshold=1.0, select_threshold=1.0)
    settings = TrainingSettings(rules=rules, refiner_input=RefinerInput(5, 8, fill))
    model = TinyModel(settings)
    losses = offline_losses(model, [sample(t, n, iteration) for t, n in shapes])
    assert set(losses) == {name + suffix for name in WEIGHTS for suffix in ("", "_0")}
    assert all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.refiner.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_the_first_half_of_the_run_is_guided():
    assert is_guided(0, 100)
    assert is_guided(49, 100)
    assert not is_guided(50, 100)
