"""Set loss against recorded values, and its corner cases."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tests.golden.training import Replay, load
from vidseg.modeling.criterion import SetCriterion, class_loss
from vidseg.modeling.matcher import HungarianMatcher

ONES = {"loss_ce": 1.0, "loss_mask": 1.0, "loss_dice": 1.0}


def build(num_classes, num_points, *, rand=torch.rand, weights=ONES, **options):
    matcher = HungarianMatcher(2, 5, 5, num_points, rand=rand)
    return SetCriterion(num_classes, matcher, weights=weights, num_points=num_points, **options)


def layers_of(x, prefix, num_aux, *, video):
    names = [f"{prefix}aux{i}_" for i in range(num_aux)] + [prefix]
    pairs = [(x[f"{name}pred_logits"], x[f"{name}pred_masks"]) for name in names]
    return [(logits, masks if video else masks[:, :, None]) for logits, masks in pairs]


def targets_of(x, prefix, count, *, video):
    masks = [x[f"{prefix}target{i}_masks"] for i in range(count)]
    return [
        SimpleNamespace(labels=x[f"{prefix}target{i}_labels"], masks=m if video else m[:, None])
        for i, m in enumerate(masks)
    ]


@pytest.mark.parametrize(
    ("case", "prefix", "num_aux", "count"),
    [
        ("set_criterion_image", "", 2, 2),
        ("set_criterion_video", "per_frame/", 1, 3),
        ("set_criterion_video", "clip/", 1, 1),
        ("set_criterion_video", "guided/", 1, 1),
    ],
)
def test_matches_the_reference(case, prefix, num_aux, count):
    x, expected = load(case)
    video = case == "set_criterion_video"
    rand = Replay(x, prefix)
    criterion = build(int(x["num_classes"]), int(x["num_points"]), rand=rand)
    targets = targets_of(x, prefix, count, video=video)
    indices = None
    if prefix == "guided/":
        guide = x["guided/guide_logits"], x["guided/guide_masks"]
        indices = criterion.matcher(*guide, targets)
        assert indices[0][0].tolist() == expected["guided/src0"].tolist()
        assert indices[0][1].tolist() == expected["guided/tgt0"].tolist()
    losses = criterion(layers_of(x, prefix, num_aux, video=video), targets, indices=indices)
    rand.assert_exhausted()
    names = {key for key in expected if key.startswith(f"{prefix}loss")}
    assert {prefix + name for name in losses} == names
    for name in names:
        ours = losses[name.removeprefix(prefix)]
        torch.testing.assert_close(ours, expected[name], rtol=1e-5, atol=1e-6)


def random_batch(sizes, *, frames=2, num_layers=2):
    batch = len(sizes)
    layers = [
        (torch.randn(batch, 6, 4), torch.randn(batch, 6, frames, 4, 4)) for _ in range(num_layers)
    ]
    layers = [tuple(x.requires_grad_() for x in layer) for layer in layers]
    targets = [
        SimpleNamespace(labels=torch.randint(3, (n,)), masks=torch.rand(n, frames, 16, 16) > 0.5)
        for n in sizes
    ]
    return layers, targets


@pytest.mark.parametrize("sizes", [(0,), (0, 0), (3, 0, 1), (9, 2)])
@pytest.mark.parametrize("frames", [1, 3])
def test_any_number_of_objects_gives_gradients(sizes, frames):
    layers, targets = random_batch(sizes, frames=frames)
    losses = build(3, 10)(layers, targets)
    sum(losses.values()).backward()
    assert set(losses) == {n + s for n in ONES for s in ("", "_0")}
    for layer in layers:
        for tensor in layer:
            assert tensor.grad is not None
            assert tensor.grad.isfinite().all()


def test_weights_scale_and_drop_losses():
    layers, targets = random_batch((2, 3))
    torch.manual_seed(1)
    plain = build(3, 10)(layers, targets)
    torch.manual_seed(1)
    weighted = build(3, 10, weights={"loss_ce": 2.0, "loss_dice": 5.0})(layers, targets)
    assert set(weighted) == {"loss_ce", "loss_dice", "loss_ce_0", "loss_dice_0"}
    torch.testing.assert_close(weighted["loss_dice_0"], 5 * plain["loss_dice_0"])


def test_without_deep_supervision_only_the_last_prediction_counts():
    layers, targets = random_batch((2,))
    assert set(build(3, 10, deep_supervision=False)(layers, targets)) == set(ONES)


def test_order_of_objects_does_not_matter():
    layers, targets = random_batch((4,))
    order = torch.randperm(4)
    shuffled = SimpleNamespace(labels=targets[0].labels[order], masks=targets[0].masks[order])
    torch.manual_seed(3)
    first = build(3, 10)(layers, targets)
    torch.manual_seed(3)
    second = build(3, 10)(layers, [shuffled])
    for name, value in first.items():
        torch.testing.assert_close(value, second[name])


def test_half_precision_predictions_are_scored_in_float32():
    layers, targets = random_batch((2,))
    half = [tuple(x.detach().bfloat16() for x in layer) for layer in layers]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = build(3, 10)(half, targets)
    assert all(value.dtype == torch.float32 for value in losses.values())


def test_class_loss_of_nothing_is_zero():
    logits = torch.zeros(0, 4, requires_grad=True)
    loss = class_loss(logits, torch.zeros(0).long(), torch.ones(4))
    loss.backward()
    assert loss.item() == 0


def test_bad_ratios_are_refused():
    with pytest.raises(ValueError, match="oversample_ratio"):
        build(3, 10, oversample_ratio=0.5)
