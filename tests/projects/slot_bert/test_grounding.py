"""Places and colours in slot attention, against a plain loop."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg.projects.slot_bert.grounding import token_looks
from vidseg.projects.slot_bert.initial_slots import InitialSlots
from vidseg.projects.slot_bert.slot_attention import SlotAttention
from vidseg.projects.slot_bert.time_modes import run_independent, run_recurrent

CLIPS, FRAMES, GRID, SLOTS, DIM = 2, 4, (3, 4), 3, 8
TERMS = pytest.mark.parametrize(
    ("position", "colour"), [(True, False), (False, True), (True, True)]
)


def build(**options: Any) -> tuple[SlotAttention, InitialSlots, Tensor, Tensor]:
    torch.manual_seed(0)
    attention = SlotAttention(DIM, DIM, **options)
    video = torch.rand(CLIPS, FRAMES, 3, 6, 8)
    tokens = torch.randn(CLIPS, FRAMES, GRID[0] * GRID[1], DIM)
    return attention, InitialSlots(SLOTS, DIM, init="learned"), tokens, video


def plain_loop(
    module: SlotAttention, start: Tensor, tokens: Tensor, video: Tensor, *, iters_next: int
) -> tuple[Tensor, Tensor]:
    """Slots and attention of one clip, recurrent, distances as they are written."""
    pixels = video.unflatten(-1, (GRID[1], -1)).unflatten(-3, (GRID[0], -1)).mean((-1, -3))
    x = torch.tensor(
        [
            [(2 * column + 1) / GRID[1] - 1, (2 * row + 1) / GRID[0] - 1]
            for row in range(GRID[0])
            for column in range(GRID[1])
        ]
    )
    grounding: Any = module.grounding
    mlp: Any = module.mlp.layers
    slots, centres, colours = start, None, None
    colour_sum, area = torch.zeros(SLOTS, 3), torch.zeros(SLOTS, 1)
    found = []
    for frame in range(len(tokens)):
        c = pixels[frame].flatten(1).mT
        inputs = module.norm_inputs(tokens[frame])
        k, v = (inputs @ half.mT for half in module.to_kv.weight.chunk(2))
        attn = k
        for _ in range(module.iters if frame == 0 else iters_next):
            normed = module.norm_slots(slots)
            logits = module.to_q(normed) @ k.mT / math.sqrt(DIM)
            if centres is not None and grounding.to_beta is not None:
                beta = 4 * F.softplus(grounding.to_beta(normed))
                logits = logits - beta * (x[None] - centres[:, None]).square().sum(-1)
            if colours is not None and grounding.to_gamma is not None:
                gamma = 30 * F.softplus(grounding.to_gamma(normed))
                logits = logits - gamma * (c[None] - colours[:, None]).square().sum(-1)
            attn = logits.softmax(0)
            weights = (attn + module.eps) / (attn + module.eps).sum(1, keepdim=True)
            centres = weights @ x
            colours = (colour_sum + attn @ c) / (area + attn.sum(1, keepdim=True) + 1e-6)
            slots = module.gru(weights @ v, slots)
            slots = slots + mlp[1](F.relu(mlp[0](module.norm_mlp(slots))))
        colour_sum, area = colour_sum + attn @ c, area + attn.sum(1, keepdim=True)
        found.append((slots, attn))
    all_slots, all_attn = zip(*found, strict=True)
    return torch.stack(all_slots), torch.stack(all_attn)


@TERMS
@pytest.mark.parametrize("iters_next", [1, 2])
@torch.no_grad()
def test_equals_a_plain_loop(position: bool, colour: bool, iters_next: int) -> None:
    module, init, tokens, video = build(position=position, colour=colour)
    found = run_recurrent(
        module, init, None, tokens, iters_next=iters_next, looks=token_looks(video, GRID)
    )
    for clip in range(CLIPS):
        expected = plain_loop(
            module, init(1, 1)[0, 0], tokens[clip], video[clip], iters_next=iters_next
        )
        for a, b in zip(found[:2], expected, strict=True):
            torch.testing.assert_close(a[clip], b, atol=1e-5, rtol=0)


@torch.no_grad()
def test_independent_frames_know_themselves_alone() -> None:
    module, init, tokens, video = build(position=True, colour=True)
    looks = token_looks(video, GRID)
    slots, attn = run_independent(module, init, tokens, looks=looks)
    for frame in range(FRAMES):
        cut = slice(frame, frame + 1)
        own = run_recurrent(module, init, None, tokens[:, cut], looks=looks[:, cut])
        torch.testing.assert_close(slots[:, cut], own[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(attn[:, cut], own[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("cut", [1, 3])
@torch.no_grad()
def test_what_slots_hold_goes_on_in_the_next_part_of_a_video(cut: int) -> None:
    module, init, tokens, video = build(position=True, colour=True)
    looks = token_looks(video, GRID)
    whole = run_recurrent(module, init, None, tokens, looks=looks)
    first = run_recurrent(module, init, None, tokens[:, :cut], looks=looks[:, :cut])
    then = run_recurrent(module, init, None, tokens[:, cut:], carry=first[2], looks=looks[:, cut:])
    for index in range(2):
        torch.testing.assert_close(torch.cat([first[index], then[index]], 1), whole[index])


def test_gradients_agree_with_finite_differences() -> None:
    module, init, tokens, video = build(position=True, colour=True, iters=2)
    module, init = module.double(), init.double()
    looks = token_looks(video, GRID)[:1, :2].double()
    names, parameters = zip(*module.grounding.named_parameters(), strict=True)  # type: ignore

    def call(tokens: Tensor, *values: Tensor) -> Tensor:
        for name, value in zip(names, values, strict=True):
            layer, kind = name.split(".")
            own = getattr(module.grounding, layer)
            own._parameters.pop(kind, None)
            setattr(own, kind, value)
        attn: Tensor = run_recurrent(module, init, None, tokens, looks=looks)[1]
        return attn

    leaves = [x.detach().clone().requires_grad_() for x in (tokens[:1, :2].double(), *parameters)]
    assert torch.autograd.gradcheck(call, leaves, fast_mode=True, atol=1e-4)


@pytest.mark.parametrize("implicit", [False, True])
def test_implicit_gradients_do_not_reach_earlier_frames_through_what_slots_hold(
    implicit: bool,
) -> None:
    module, init, tokens, video = build(position=True, colour=True, implicit=implicit)
    looks = token_looks(video, GRID)
    _, _, carry = run_recurrent(module, init, None, tokens[:, :1], looks=looks[:, :1])
    assert carry.held is not None
    before = carry.held.detach()
    leaves = [before.latest.requires_grad_(), before.earlier.requires_grad_()]
    k, v = module.keys_values(tokens[:, 1])
    slots, _, _ = module.refine(k, v, carry.slots.detach(), held=before, iters=1, looks=looks[:, 1])
    found = torch.autograd.grad(slots.sum(), leaves, allow_unused=True)
    assert [gradient is None for gradient in found] == [implicit] * 2


def test_masked_tokens_move_neither_centre_nor_colour() -> None:
    module, init, tokens, video = build(position=True, colour=True)
    looks = token_looks(video, GRID)
    valid = torch.arange(tokens.shape[2]).expand(tokens.shape[:3]) < 8
    changed = torch.where(valid[..., None], looks, torch.rand(looks.shape))
    a, b = (
        run_recurrent(module, init, None, tokens, valid=valid, looks=x)[0] for x in (looks, changed)
    )
    torch.testing.assert_close(a, b)


def test_lower_precision_keeps_distances_in_float32() -> None:
    module, init, tokens, video = build(position=True, colour=True)
    looks = token_looks(video, GRID)
    with torch.autocast("cpu", torch.bfloat16):
        slots, attn = run_independent(module, init, tokens, looks=looks)
    assert slots.dtype is attn.dtype is torch.float32
    torch.testing.assert_close(
        attn, run_independent(module, init, tokens, looks=looks)[1], atol=0.05, rtol=0
    )


@torch.no_grad()
def test_colours_draw_tokens_of_one_colour_to_one_slot() -> None:
    module, init, tokens, _ = build(colour=True)
    video = torch.zeros(CLIPS, FRAMES, 3, *GRID)
    video[..., :2] = 1  # white on the left, black on the right
    _, attn, _ = run_recurrent(
        module, init, None, tokens, iters_next=3, looks=token_looks(video, GRID)
    )
    left, right = attn[:, -1].unflatten(-1, GRID).split(2, -1)
    # Tokens are noise: only colours make neighbours agree.
    apart = (left.mean((-1, -2)) - right.mean((-1, -2))).abs().sum(1) / 2
    module.grounding = None
    _, plain, _ = run_recurrent(module, init, None, tokens, iters_next=3)
    left, right = plain[:, -1].unflatten(-1, GRID).split(2, -1)
    assert (apart > 2 * (left.mean((-1, -2)) - right.mean((-1, -2))).abs().sum(1) / 2).all()


def test_looks_weigh_brightness() -> None:
    video = torch.rand(1, 1, 3, *GRID)
    looks = token_looks(video, GRID, luma=0.5)[0, 0]
    colours = video[0, 0].flatten(1).mT
    mean = colours.mean(1, keepdim=True)
    torch.testing.assert_close(looks[:, 3:6], colours - mean + 0.5 * mean)
    torch.testing.assert_close(looks[:, 6], looks[:, 3:6].square().sum(1))


def test_looks_are_needed_and_heads_refused() -> None:
    module, init, tokens, _ = build(position=True)
    with pytest.raises(ValueError, match="looks"):
        run_independent(module, init, tokens)
    with pytest.raises(ValueError, match="1 head"):
        build(colour=True, heads=2)
