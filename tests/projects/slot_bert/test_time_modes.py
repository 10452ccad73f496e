"""Slots over time: initial ones, modes, and linking."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vidseg.projects.slot_bert.grounding import token_looks
from vidseg.projects.slot_bert.initial_slots import INITS, InitialSlots
from vidseg.projects.slot_bert.linking import link_slots, reorder_slots
from vidseg.projects.slot_bert.slot_attention import SlotAttention
from vidseg.projects.slot_bert.time_modes import (
    SlotPredictor,
    build_predictor,
    run_independent,
    run_recurrent,
)

CLIPS, FRAMES, TOKENS, SLOTS, DIM = 2, 5, 9, 4, 8


def build(init: str = "learned", **options: Any) -> tuple[SlotAttention, InitialSlots, Tensor]:
    torch.manual_seed(0)
    start = InitialSlots(SLOTS, DIM, init=init, **options)
    return SlotAttention(DIM, DIM), start, torch.randn(CLIPS, FRAMES, TOKENS, DIM)


def test_recurrent_equals_calls_of_frame_after_frame() -> None:
    attention, init, tokens = build()
    predictor = SlotPredictor(DIM)
    slots, attn, carry = run_recurrent(attention, init, predictor, tokens, iters_next=2)
    last = None
    for frame in range(FRAMES):
        start = init(CLIPS, 1)[:, 0] if last is None else predictor(last)
        keys = attention.keys_values(tokens[:, frame])
        last, own = attention(*keys, start, iters=3 if frame == 0 else 2)
        torch.testing.assert_close(slots[:, frame], last)
        torch.testing.assert_close(attn[:, frame], own)
    torch.testing.assert_close(carry.slots, last)


@torch.no_grad()
def test_a_first_frame_is_looked_at_in_parts() -> None:
    attention, init, tokens = build()
    norm = build_predictor("norm", DIM)
    assert norm is not None
    slots, attn, _ = run_recurrent(attention, init, norm, tokens[:, :1], iters=5)
    keys = attention.keys_values(tokens[:, 0])
    first, _ = attention(*keys, init(CLIPS, 1)[:, 0], iters=3)
    second, _ = attention(*keys, norm(first), iters=1)
    third, own = attention(*keys, norm(second), iters=1)
    torch.testing.assert_close(slots[:, 0], third)
    torch.testing.assert_close(attn[:, 0], own)


@torch.no_grad()
def test_norm_bounds_slots_of_long_videos() -> None:
    attention, init, tokens = build()
    attention.gru.bias_ih[DIM : 2 * DIM] = 20.0  # keeps all, so that what the MLP adds stays
    attention.mlp.layers[1].bias.fill_(1.0)
    attention.mlp.layers[1].bias[::2] = -1.0
    video = tokens.repeat(1, 40, 1, 1)

    def lengths(name: str) -> Tensor:
        slots, _, _ = run_recurrent(attention, init, build_predictor(name, DIM), video)
        return slots.norm(dim=-1).amax((0, 2))

    free, bounded = lengths("none"), lengths("norm")
    assert free[-1] > 10 * free[0]
    assert bounded[-1] < 2 * bounded[0]


@pytest.mark.parametrize("cut", [1, 3])
@torch.no_grad()
def test_recurrent_goes_on_where_it_stopped(cut: int) -> None:
    attention, init, tokens = build()
    whole = run_recurrent(attention, init, None, tokens)
    first = run_recurrent(attention, init, None, tokens[:, :cut])
    then = run_recurrent(attention, init, None, tokens[:, cut:], carry=first[2])
    for index in range(2):
        torch.testing.assert_close(torch.cat([first[index], then[index]], 1), whole[index])


@pytest.mark.parametrize("grounded", [False, True])
@torch.no_grad()
def test_recurrent_passes_over_frames_that_are_not_seen(grounded: bool) -> None:
    attention, init, tokens = build()
    looks = None
    if grounded:
        attention = SlotAttention(DIM, DIM, position=True, colour=True)
        looks = token_looks(torch.rand(CLIPS, FRAMES, 3, 6, 6), (3, 3))
    unseen = torch.tensor([[0, 1, 1, 0, 0], [1, 1, 0, 1, 0]]).bool()
    slots, attn, carry = run_recurrent(attention, init, None, tokens, looks=looks, unseen=unseen)
    for row, hidden in enumerate(unseen):
        mine = [None if x is None else x[row : row + 1, ~hidden] for x in (tokens, looks)]
        own_slots, own_attn, own = run_recurrent(attention, init, None, mine[0], looks=mine[1])
        torch.testing.assert_close(slots[row : row + 1, ~hidden], own_slots)
        torch.testing.assert_close(attn[row : row + 1, ~hidden], own_attn)
        torch.testing.assert_close(carry.slots[row : row + 1], own.slots)
    torch.testing.assert_close(attn.sum(2), torch.ones_like(attn[:, :, 0]))
    # A frame that hands nothing on still has slots of its own.
    assert not torch.allclose(slots[0, 1], slots[0, 0], atol=1e-3)


def test_recurrent_gradients_reach_the_first_frame() -> None:
    attention, init, tokens = build()
    tokens.requires_grad_()
    slots, _, _ = run_recurrent(attention, init, None, tokens)
    (gradient,) = torch.autograd.grad(slots[:, -1].sum(), tokens)
    assert gradient.flatten(2).abs().amax(2).gt(0).all()


def test_recurrent_steps_are_float32_in_lower_precision() -> None:
    attention, init, tokens = build()
    with torch.autocast("cpu", torch.bfloat16):
        slots, attn, _ = run_recurrent(attention, init, SlotPredictor(DIM), tokens)
    assert slots.dtype is attn.dtype is torch.float32


@pytest.mark.parametrize("init", ["learned", "random"])
@torch.no_grad()
def test_independent_frames_do_not_see_each_other(init: str) -> None:
    attention, start, tokens = build(init)
    start.eval()
    slots, attn = run_independent(attention, start, tokens)
    for frame in range(FRAMES):
        own, own_attn = run_independent(
            attention, start, tokens[:1, frame : frame + 1], first_frame=frame
        )
        torch.testing.assert_close(own[0, 0], slots[0, frame], atol=1e-5, rtol=0)
        torch.testing.assert_close(own_attn[0, 0], attn[0, frame], atol=1e-5, rtol=0)


def test_masked_tokens_change_nothing_in_either_mode() -> None:
    attention, init, tokens = build()
    valid = torch.arange(TOKENS).expand(CLIPS, FRAMES, -1) < 6
    other = torch.where(valid[..., None], tokens, torch.zeros(()))
    for run in (run_independent, lambda a, i, x, **k: run_recurrent(a, i, None, x, **k)):
        a, b = (run(attention, init, x, valid=valid)[0] for x in (tokens, other))
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("init", INITS)
def test_initial_slots_learn(init: str) -> None:
    _, start, _ = build(init)
    boxes = torch.rand(CLIPS, 2, 4) if init == "boxes" else None
    slots = start(CLIPS, FRAMES, boxes=boxes)
    assert slots.shape == (CLIPS, FRAMES, SLOTS, DIM)
    slots.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in start.parameters())


def test_random_slots_differ_in_training_and_repeat_in_evaluation() -> None:
    _, start, _ = build("random")
    drawn = start(CLIPS, FRAMES)
    assert drawn.flatten(0, 2).unique(dim=0).shape[0] == CLIPS * FRAMES * SLOTS
    assert not torch.equal(drawn, start(CLIPS, FRAMES))
    start.eval()
    state = torch.get_rng_state()
    fixed = start(CLIPS, FRAMES)
    torch.testing.assert_close(fixed, start(CLIPS + 3, FRAMES)[:CLIPS], atol=0, rtol=0)
    torch.testing.assert_close(start(1, 2, first_frame=3), fixed[:1, 3:], atol=0, rtol=0)
    assert torch.equal(state, torch.get_rng_state())
    assert fixed[0].flatten(0, 1).unique(dim=0).shape[0] == FRAMES * SLOTS


def test_shared_noise_is_one_draw_of_a_clip() -> None:
    _, start, _ = build("random", shared_noise=True)
    for module in (start.train(), start.eval()):
        slots = module(CLIPS, FRAMES)
        torch.testing.assert_close(slots, slots[:, :1].expand_as(slots), atol=0, rtol=0)
    torch.testing.assert_close(start(1, 1, first_frame=7), start(1, 1), atol=0, rtol=0)


@torch.no_grad()
def test_spread_of_random_slots() -> None:
    torch.manual_seed(0)
    wide = InitialSlots(64, 64, init="random", sigma=1.0)(4, 4)
    narrow = InitialSlots(64, 64, init="gaussian")(4, 4)
    assert float(wide.std(2).mean()) == pytest.approx(1, rel=0.05)
    assert float(narrow.std(2).mean()) == pytest.approx(1 / 8, rel=0.05)


def test_boxes_stand_in_their_rows_and_others_are_background() -> None:
    _, start, _ = build("boxes")
    boxes = torch.tensor([[[0.1, 0.1, 0.4, 0.5], [float("nan")] * 4, [0.2, 0.2, 0.2, 0.2]]])
    slots = start(1, 2, boxes=boxes)[0]
    background = start.background.expand(DIM)
    for row in (1, 3):
        torch.testing.assert_close(slots[0, row], background)
    for row in (0, 2):
        assert not torch.allclose(slots[0, row], background)
    assert not torch.allclose(slots[0, 0], slots[0, 2])
    slots.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in start.parameters())


@pytest.mark.parametrize("boxes", [None, torch.rand(CLIPS, SLOTS + 1, 4), torch.rand(1, 2, 4)])
def test_boxes_have_to_fit(boxes: Tensor | None) -> None:
    _, start, _ = build("boxes")
    with pytest.raises(ValueError, match="boxes"):
        start(CLIPS, FRAMES, boxes=boxes)


def tracks() -> tuple[Tensor, Tensor]:
    """Slots that keep their content and masks that move by a token a frame."""
    generator = torch.Generator().manual_seed(3)
    content = torch.randn(CLIPS, 1, SLOTS, DIM, generator=generator)
    slots = content + 0.1 * torch.randn(CLIPS, FRAMES, SLOTS, DIM, generator=generator)
    attn = torch.zeros(CLIPS, FRAMES, SLOTS, 40)
    for frame in range(FRAMES):
        for slot in range(SLOTS):
            attn[:, frame, slot, 9 * slot + frame : 9 * slot + frame + 4] = 1
    return slots, attn


def test_linking_undoes_any_shuffling() -> None:
    slots, attn = tracks()
    generator = torch.Generator().manual_seed(4)
    shuffle = torch.stack(
        [torch.randperm(SLOTS, generator=generator) for _ in range(CLIPS * FRAMES)]
    ).view(CLIPS, FRAMES, SLOTS)
    shuffle[:, 0] = torch.arange(SLOTS)
    mixed, mixed_attn = reorder_slots(slots, shuffle), reorder_slots(attn, shuffle)
    order, _ = link_slots(mixed, mixed_attn)
    torch.testing.assert_close(reorder_slots(mixed, order), slots)
    torch.testing.assert_close(reorder_slots(mixed_attn, order), attn)
    first, state = link_slots(mixed[:, :2], mixed_attn[:, :2])
    then, _ = link_slots(mixed[:, 2:], mixed_attn[:, 2:], state)
    assert torch.equal(torch.cat([first, then], 1), order)


def test_linking_weighs_masks_above_content() -> None:
    # Contents say "swap", masks say "stay": overlap counts 1, the cosine a half.
    slots = torch.eye(2).view(1, 1, 2, 2).repeat(1, 2, 1, 1)
    slots[:, 1] = slots[:, 1].flip(1)
    attn = torch.eye(2).view(1, 1, 2, 2).repeat(1, 2, 1, 1)
    assert link_slots(slots, attn)[0][0, 1].tolist() == [0, 1]
    assert link_slots(slots, torch.full_like(attn, 0.5))[0][0, 1].tolist() == [1, 0]


def test_linking_takes_empty_masks() -> None:
    order, _ = link_slots(torch.zeros(1, 3, SLOTS, DIM), torch.zeros(1, 3, SLOTS, TOKENS))
    assert order.sort(-1).values.flatten(0, 1).tolist() == [list(range(SLOTS))] * 3
