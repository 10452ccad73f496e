"""Slot attention against a plain loop, and what may not change its result."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg.projects.slot_bert.slot_attention import SlotAttention

DIM, SLOT_DIM, TOKENS, SLOTS = 12, 8, 10, 4


def build(**options: Any) -> SlotAttention:
    torch.manual_seed(0)
    module = SlotAttention(DIM, SLOT_DIM, **options)
    for norm in (module.norm_inputs, module.norm_slots, module.norm_mlp):
        torch.nn.init.normal_(norm.weight, 1, 0.3)
        torch.nn.init.normal_(norm.bias, 0, 0.3)
    return module


def inputs(frames: int = 3, tokens: int = TOKENS) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(frames, tokens, DIM, generator=generator),
        torch.randn(frames, SLOTS, SLOT_DIM, generator=generator),
    )


def run(module: SlotAttention, tokens: Tensor, slots: Tensor, **options: Any) -> Any:
    return module(*module.keys_values(tokens), slots, **options)


def plain_loop(
    module: SlotAttention,
    tokens: Tensor,
    slots: Tensor,
    *,
    iters: int = 3,
    temperature: float = 1.0,
    valid: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Frame by frame, slot by slot and token by token, as the equations read."""
    all_slots, all_attn = [], []
    mlp: Any = module.mlp.layers
    for m in range(len(tokens)):
        x = [module.norm_inputs(token) for token in tokens[m]]
        pairs = [(module.to_kv.weight @ token).chunk(2) for token in x]
        state = list(slots[m])
        width = SLOT_DIM // module.heads
        for _ in range(iters):
            queries = [module.to_q.weight @ module.norm_slots(s) for s in state]
            attn = torch.zeros(module.heads, SLOTS, len(x))
            for n, (key, _) in enumerate(pairs):
                heads = key.split(width)
                logits = torch.stack(
                    [
                        torch.stack([a @ b for a, b in zip(q.split(width), heads, strict=True)])
                        for q in queries
                    ],
                    1,
                )  # (H, K)
                raised = (logits / (math.sqrt(width) * temperature)).exp()
                attn[:, :, n] = raised / raised.sum()
            for i in range(SLOTS):
                parts = []
                for h in range(module.heads):
                    weights = attn[h, i] + module.eps
                    if valid is not None:
                        weights = weights * valid[m]
                    weights = weights / weights.sum()
                    values = torch.stack([value.split(width)[h] for _, value in pairs])
                    parts.append((weights[:, None] * values).sum(0))
                new = module.gru(torch.cat(parts)[None], state[i][None])[0]
                state[i] = new + mlp[1](F.relu(mlp[0](module.norm_mlp(new))))
        all_slots.append(torch.stack(state))
        all_attn.append(attn.sum(0))
    return torch.stack(all_slots), torch.stack(all_attn)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("iters", [1, 3])
@torch.no_grad()
def test_equals_a_plain_loop(heads: int, iters: int) -> None:
    module = build(heads=heads, temperature=0.7)
    tokens, slots = inputs()
    found = run(module, tokens, slots, iters=iters)
    expected = plain_loop(module, tokens, slots, iters=iters, temperature=0.7)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


@torch.no_grad()
def test_equals_a_plain_loop_where_frames_are_many() -> None:
    # Beside few rows there are kernels for many.
    module = SlotAttention(96, 64)
    tokens, slots = torch.randn(48, 64, 96), torch.randn(48, 7, 64)
    found = run(module, tokens, slots)
    for frame in (0, 47):
        own = run(module, tokens[frame : frame + 1], slots[frame : frame + 1])
        for a, b in zip(found, own, strict=True):
            torch.testing.assert_close(a[frame], b[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_sums_to_one_over_slots(heads: int) -> None:
    _, attn = run(build(heads=heads), *inputs())
    assert attn.dtype is torch.float32
    torch.testing.assert_close(attn.sum(1), torch.ones(3, TOKENS))


def test_permuted_slots_give_permuted_results() -> None:
    module, order = build(), torch.tensor([2, 0, 3, 1])
    tokens, slots = inputs()
    for a, b in zip(run(module, tokens, slots), run(module, tokens, slots[:, order]), strict=True):
        torch.testing.assert_close(a[:, order], b)


def test_slots_read_nothing_from_tokens_that_are_not_valid() -> None:
    module = build()
    tokens, slots = inputs()
    valid = torch.rand(3, TOKENS, generator=torch.Generator().manual_seed(2)) < 0.6
    found, attn = run(module, tokens, slots, valid=valid)
    with torch.no_grad():
        expected = plain_loop(module, tokens, slots, valid=valid)
    torch.testing.assert_close(found, expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(attn, expected[1], atol=1e-5, rtol=0)
    other = torch.where(valid[..., None], tokens, torch.randn(tokens.shape))
    torch.testing.assert_close(run(module, other, slots, valid=valid)[0], found)


@pytest.mark.parametrize("heads", [1, 2])
def test_gradients_agree_with_finite_differences(heads: int) -> None:
    module = build(heads=heads, iters=2).double()
    tokens, slots = (x[:1].double().requires_grad_() for x in inputs(1, 5))
    names = [name for name, _ in module.named_parameters()]

    def call(tokens: Tensor, slots: Tensor, *parameters: Tensor) -> Tensor:
        state = dict(zip(names, parameters, strict=True))
        k, v = torch.func.functional_call(_KeysValues(module), _prefixed(state), (tokens,))
        result: Tensor = torch.func.functional_call(module, state, (k, v, slots))[0]
        return result

    leaves = (tokens, slots, *module.parameters())
    assert torch.autograd.gradcheck(call, leaves, fast_mode=True, atol=1e-4)


def test_queries_and_keys_learn_from_the_attention() -> None:
    module = build()
    _, attn = run(module, *inputs())
    attn[:, 0].square().sum().backward()
    assert module.to_q.weight.grad is not None
    assert module.to_kv.weight.grad is not None
    assert module.to_q.weight.grad.any()
    assert module.to_kv.weight.grad[:SLOT_DIM].any()


def test_implicit_gradients_are_those_of_the_last_iteration() -> None:
    module = build(implicit=True)
    tokens, slots = inputs()
    with torch.no_grad():
        before, _ = run(module, tokens, slots, iters=2)
    k, v = module.keys_values(tokens)
    module.implicit = False
    last, _ = module(k, v, before.requires_grad_(), iters=1)
    module.implicit = True
    expected = torch.autograd.grad(last.sum(), [before, *module.parameters()])
    slots.requires_grad_()
    found, _ = run(module, tokens, slots)
    torch.testing.assert_close(found, last)
    # The slots at the start stand in for those before the last iteration.
    for a, b in zip(
        torch.autograd.grad(found.sum(), [slots, *module.parameters()]), expected, strict=True
    ):
        torch.testing.assert_close(a, b)


def test_implicit_changes_no_value() -> None:
    tokens, slots = inputs()
    for a, b in zip(
        run(build(implicit=True), tokens, slots), run(build(), tokens, slots), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("tokens", [1, 3])
def test_there_may_be_fewer_tokens_than_slots(tokens: int) -> None:
    slots, attn = run(build(), *inputs(tokens=tokens))
    assert slots.isfinite().all()
    assert attn.shape == (3, SLOTS, tokens)


def test_lower_precision_keeps_the_softmax_in_float32() -> None:
    module = build()
    tokens, slots = inputs()
    expected = run(module, tokens, slots)
    with torch.autocast("cpu", torch.bfloat16):
        found = run(module, tokens, slots)
    assert [x.dtype for x in found] == [torch.float32] * 2
    torch.testing.assert_close(found[1].sum(1), torch.ones(3, TOKENS))
    torch.testing.assert_close(found[1], expected[1], atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("options", "said"), [({"iters": 0}, "iteration"), ({"heads": 3}, "heads")]
)
def test_refuses_what_cannot_be(options: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build(**options)


class _KeysValues(torch.nn.Module):
    def __init__(self, attention: SlotAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.attention.keys_values(tokens)


def _prefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"attention.{name}": value for name, value in state.items()}
