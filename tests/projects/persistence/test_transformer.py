"""The transformer over tokens: what a decision may and may not depend on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.projects.persistence.token_samples import (
    FULL,
    NUM_FRAMES,
    PATCH,
    build,
    detections,
    sample,
)
from vidseg.projects.persistence import ObjectPersistence
from vidseg.projects.persistence.transformer import TransformerOutput, received

ALL = pytest.mark.parametrize("settings", [{}, FULL], ids=["baseline", "full"])
RELATIVE = {**FULL, "TIME": "none"}


def run(
    model: ObjectPersistence, samples: list[dict[str, Any]], **options: Any
) -> TransformerOutput:
    tokens = model.tokenizer([s["detections"] for s in samples], [s["patches"] for s in samples])
    tracks = torch.full(tokens.padding_mask.shape, -1)
    for row, one in zip(tracks, samples, strict=True):
        row[: len(one["detections"])] = one["object_ids"]
    with torch.no_grad():
        output: TransformerOutput = model.transformer(tokens, tracks, **options)
    return output


def named_tensors(output: TransformerOutput) -> dict[str, Tensor]:
    found = {"logits": output.logits, "summary": output.summary, "durations": output.durations}
    found |= {"contrast": output.contrast}
    if output.queries is not None:
        found |= {f"queries.{name}": value for name, value in vars(output.queries).items()}
    return {name: value for name, value in found.items() if value is not None}


@ALL
def test_a_clip_does_not_see_the_others_of_its_batch(settings: dict[str, Any]) -> None:
    model = build(**settings)
    alone = named_tensors(run(model, [sample(2)]))
    for name, value in named_tensors(run(model, [sample(2), sample(6, 1), sample(0, 2)])).items():
        own = alone[name][0]
        cut = value[0] if name.startswith("queries") else value[0, : len(own)]
        torch.testing.assert_close(cut, own, atol=1e-5, rtol=0, msg=name)


@ALL
def test_fused_attention_equals_the_one_written_out(settings: dict[str, Any]) -> None:
    model, samples = build(**settings), [sample(4), sample(3, 1), sample(0, 2)]
    fused, explicit = run(model, samples), run(model, samples, return_attention=True)
    assert fused.weights == []
    assert len(explicit.weights) == 2
    for weights in explicit.weights:
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    for name, value in named_tensors(explicit).items():
        torch.testing.assert_close(named_tensors(fused)[name], value, atol=1e-5, rtol=0, msg=name)


def test_attention_received_is_a_mean_over_queries_and_heads() -> None:
    weights = torch.tensor([[[0.6, 0.2, 0.0, 0.2], [0.2, 0.2, 0.0, 0.6], [9.0, 9.0, 9.0, 9.0]]])
    padding_mask = torch.tensor([[False, False, True]])
    share = received(weights[None], padding_mask)  # one head, a null key, the third is padding
    torch.testing.assert_close(share, torch.tensor([[2 / 3, 1 / 3, 0.0]]))
    assert not received(weights[None], torch.ones_like(padding_mask)).any()


def test_shift_in_time_changes_nothing_where_time_is_relative() -> None:
    model, one = build(**RELATIVE), sample(4)
    late = {**one, "detections": shifted(one["detections"], 5)}
    for name, value in named_tensors(run(model, [one])).items():
        moved = named_tensors(run(model, [late]))[name]
        moved = moved[..., 5:] if name == "queries.presence" else moved
        torch.testing.assert_close(moved, value, atol=1e-5, rtol=0, msg=name)
    absolute = build(**FULL)
    difference = run(absolute, [one]).logits - run(absolute, [late]).logits
    assert difference.abs().max() > 1e-4


def test_played_backwards_a_clip_keeps_its_decisions() -> None:
    model, one = build(**RELATIVE), sample(4)
    found = one["detections"]
    back = {**one, "detections": replace(found, frame=NUM_FRAMES - 1 - found.frame)}
    torch.testing.assert_close(
        run(model, [back]).logits, run(model, [one]).logits, atol=1e-5, rtol=0
    )


def test_a_bias_is_the_same_at_every_size_of_the_frames() -> None:
    model = build(RELATIVE_BIAS="motion", POSITION="none", TIME="none")
    one, _ = detections(4)
    large = replace(one, y=2 * one.y, x=2 * one.x, sigma=2 * one.sigma, size=(128, 128))
    patches = torch.zeros(len(one), 3, PATCH, PATCH, dtype=torch.uint8)
    biases = [model.transformer.pair_bias(model.tokenizer([d], [patches])) for d in (one, large)]
    for small, scaled in zip(*biases, strict=True):
        torch.testing.assert_close(small, scaled)


@pytest.mark.parametrize(
    "option",
    [
        {"NUM_LAYERS": 3},
        {"TIME": "none"},
        {"TIME": "learned"},
        {"POSITION": "none"},
        {"RELATIVE_BIAS": "plain"},
        {"RELATIVE_BIAS": "motion"},
        {"TRACK_BIAS": True},
        {"NULL_KEY": True},
        {"PATCH_GREY": True},
    ],
    ids=str,
)
def test_every_option_changes_the_decisions(option: dict[str, Any]) -> None:
    changed, base = build(**option), build()
    shared = {
        name: value
        for name, value in base.state_dict().items()
        if name in (own := changed.state_dict()) and own[name].shape == value.shape
    }
    changed.load_state_dict(shared, strict=False)
    difference = run(changed, [sample(4)]).logits - run(base, [sample(4)]).logits
    assert difference.abs().max() > 1e-4


def test_the_summary_query_looks_on() -> None:
    looking, base = build(SUMMARY_QUERY=True, ATTENTION_WEIGHT=0.1), build()
    looking.load_state_dict(base.state_dict(), strict=False)
    output = run(looking, [sample(4)])
    assert output.summary is not None
    assert torch.equal(output.logits, run(base, [sample(4)]).logits)


def test_grey_tokens_do_not_know_colour() -> None:
    model, one = build(PATCH_GREY=True), sample(3)
    red = {
        **one,
        "patches": one["patches"].amax(1, keepdim=True)
        * torch.tensor([1, 0, 0]).byte().view(1, 3, 1, 1),
    }
    white = {**one, "patches": one["patches"].amax(1, keepdim=True).expand(-1, 3, -1, -1)}
    assert torch.equal(run(model, [red]).logits, run(model, [white]).logits)


def test_the_gate_decides_what_moves() -> None:
    near, far = build(RELATIVE_BIAS="motion"), build(RELATIVE_BIAS="motion", MOTION_GATE=0.1)
    difference = run(near, [sample(4)]).logits - run(far, [sample(4)]).logits
    assert difference.abs().max() > 1e-4


def test_the_null_key_takes_attention_from_tokens() -> None:
    model = build(NULL_KEY=True)
    weight = model.transformer.pair_bias.weight
    assert weight is not None
    torch.nn.init.constant_(weight[..., -1], 20.0)
    weights = run(model, [sample(3)], return_attention=True).weights
    assert all(float(w[..., :-1].sum(-1).max()) < 1e-3 for w in weights)


def shifted(found: Any, frames: int) -> Any:
    return replace(found, frame=found.frame + frames, num_frames=found.num_frames + frames)
