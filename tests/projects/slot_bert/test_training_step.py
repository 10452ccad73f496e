"""A training step of SlotBERT: which losses there are, and whom they teach."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.projects.slot_bert.tiny_models import (
    ALL,
    MLP,
    PHASE2,
    VIDEO,
    build,
    clip,
    config_of,
    samples,
    trained,
)
from vidseg.modeling import build_model
from vidseg.projects.slot_bert.staging import at_rest
from vidseg.projects.slot_bert.temporal_transformer import TemporalSlotTransformer
from vidseg.solver import parameter_settings


@ALL
def test_losses_and_gradients(settings: dict[str, Any]) -> None:
    model = build(settings).train()
    outputs = model(samples(clip(4), clip(4, seed=1)))
    losses = {name: value for name, value in outputs.items() if "/" not in name}
    assert {name for name in outputs if name.startswith("slots/")} == {
        "slots/used_slots",
        "slots/max_mask",
        "slots/largest_share",
        "slots/mask_entropy",
        "slots/slot_cosine",
    }
    assert not any(x.requires_grad for name, x in outputs.items() if name not in losses)
    torch.stack(list(losses.values())).sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == {
        name
        for name, _ in model.named_parameters()
        if name.startswith("transformer") and not model.use_transformer
    }


def test_a_detached_decoder_teaches_itself_alone() -> None:
    model = build({**MLP, "DETACH_DECODER": True}).train()
    model(samples(clip(4)))["loss_reconstruction"].backward()
    taught = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert taught == {"decoder"}
    looking = {"ATTENTION.POSITION_TERM": True, "ATTENTION.COLOR_TERM": True}
    model = build({**MLP, **looking, "DETACH_DECODER": True}).train()
    model(samples(clip(4)))["loss_reconstruction"].backward()
    taught = {name for name, p in model.named_parameters() if p.grad is not None}
    assert {name for name in taught if not name.startswith("decoder.")} == {
        "perception.describe.weight",
        "perception.describe.bias",
    }, "what slots say of their looks is for the decoder"
    model = build(MLP).train()
    model(samples(clip(4)))["loss_reconstruction"].backward()
    attention = model.perception.attention
    assert all(p.grad.abs().sum() > 0 for p in (attention.to_q.weight, attention.to_kv.weight))


@pytest.mark.parametrize("unit", ["frame", "span", "last"])
def test_hidden_frames_tell_training_nothing(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**PHASE2, "ENCODER.NORM": "GN", "ENCODER.INPUT_DIFF": True}
    model = trained(build({**settings, "TRANSFORMER.MASK_UNIT": unit})).train()
    seen: list[tuple[Tensor, Tensor]] = []

    def watch(slots: Tensor, hidden: Tensor) -> Tensor:
        guessed = TemporalSlotTransformer.forward(model.transformer, slots, hidden)
        seen.append((guessed, hidden))
        return guessed

    monkeypatch.setattr(model.transformer, "forward", watch)
    frames = clip(6)
    for _ in range(2):
        torch.manual_seed(4)
        model(samples(frames))
        dropped = seen[0][1][0].all(-1)
        frames = torch.where(dropped.view(-1, 1, 1, 1), 255 - frames, frames)
    assert 0 < dropped.sum() < len(dropped)
    torch.testing.assert_close(seen[0][0], seen[1][0])


def test_mixed_sizes_count_by_their_frames() -> None:
    settings = {**VIDEO, "ENCODER.NORM": "GN", "LOSS.APPEARANCE": 1.0}
    model = build(settings).train()
    short, long, other = clip(2), clip(6, 16, 32), clip(2, seed=4)
    mixed = model(samples(short, long, other))
    few, many = model(samples(short, other)), model(samples(long))
    for name in ("loss_reconstruction", "loss_appearance"):
        torch.testing.assert_close(mixed[name], (4 * few[name] + 6 * many[name]) / 10)


def test_the_transformer_trains_alone_at_first() -> None:
    model = build({**PHASE2, "TRANSFORMER.WARMUP": 0.25}).train()
    statistics = {name: x.clone() for name, x in model.named_buffers()}

    def step(iteration: int) -> set[str]:
        model.zero_grad()
        batch = [{**s, "iteration": iteration, "max_iter": 100} for s in samples(clip(4))]
        outputs = model(batch)
        sum(x for name, x in outputs.items() if "/" not in name).backward()
        assert all(p.requires_grad for p in model.parameters())
        assert all(module.training for module in model.modules())
        return {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}

    assert step(0) == step(24) == {"transformer"}
    assert all(torch.equal(x, statistics[name]) for name, x in model.named_buffers())
    assert step(25) == {"transformer", "perception", "decoder"}
    assert not all(torch.equal(x, statistics[name]) for name, x in model.named_buffers())


def test_the_transformer_joins_late() -> None:
    settings = {**PHASE2, "TRANSFORMER.START": 0.5, "TRANSFORMER.WARMUP": 0.25}
    model = build(settings).train()

    def taught(iteration: int) -> set[str]:
        model.zero_grad()
        outputs = model([{**samples(clip(4))[0], "iteration": iteration, "max_iter": 100}])
        sum(x for name, x in outputs.items() if "/" not in name).backward()
        return {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}

    assert taught(49) == {"perception", "decoder"}
    assert taught(50) == taught(74) == {"transformer"}
    assert taught(75) == {"perception", "decoder", "transformer"}


def test_a_transformer_alone_waits_for_what_teaches_it() -> None:
    late = {"LOSS.MASKED_SLOTS": 0.0, "LOSS.SCHEDULE": [["MASKED_SLOTS", 0.1, 0.1, 0.0, 1.0]]}
    model = build({**PHASE2, **late, "DETACH_DECODER": True}).train()
    for iteration, is_idle in ((0, True), (15, False)):
        outputs = model([{**samples(clip(4))[0], "iteration": iteration, "max_iter": 100}])
        assert ("loss_idle" in outputs) == is_idle
        sum(x for name, x in outputs.items() if "/" not in name).backward()


@pytest.mark.parametrize("init", ["random", "learned", "boxes"])
def test_tables_and_initial_slots_do_not_decay(init: str) -> None:
    settings = {"ATTENTION.INIT": init, "ENCODER.POSITION": "learned", "TRANSFORMER.ENABLED": True}
    cfg = config_of({**settings, "TRANSFORMER.SLOT_IDENTITY": True})
    cfg.SOLVER.WEIGHT_DECAY = 0.1
    settings_of = parameter_settings(cfg, build_model(cfg))
    spared = {item.name for item in settings_of if not item.weight_decay}
    tables = {
        "perception.token_head.position.table",
        "decoder.position",
        "transformer.mask_token.weight",
        "transformer.identity.weight",
        "perception.attention.norm_slots.weight",
    }
    starts = {item.name for item in settings_of if "initial_slots." in item.name}
    assert tables <= spared
    assert {name for name in starts if "box_mlp" not in name} <= spared
    assert "perception.attention.to_q.weight" not in spared


def test_rest_ends_with_an_error() -> None:
    layer = torch.nn.BatchNorm1d(2)
    layer.bias.requires_grad_(False)

    def fail() -> None:
        with at_rest([layer], [layer]):
            assert not layer.training
            assert not any(p.requires_grad for p in layer.parameters())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert layer.training
    assert (layer.weight.requires_grad, layer.bias.requires_grad) == (True, False)


def test_losses_follow_the_run() -> None:
    model = build({"LOSS.SCHEDULE": [["APPEARANCE", 0.5, 1.0, 0.0, 1.0]]}).train()

    def names(iteration: int) -> set[str]:
        one = {**samples(clip(1))[0], "iteration": iteration, "max_iter": 100}
        return {name for name in model([one]) if name.startswith("loss_")}

    assert names(40) == {"loss_reconstruction"}
    assert names(60) == {"loss_reconstruction", "loss_appearance"}
