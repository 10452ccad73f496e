"""Deformable sampling against a loop over corners, and what the module starts with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from vidseg.layers import MSDeformAttn, cell_centres, deformable
from vidseg.layers.deformable import sample_levels

SIZES = [(2, 3), (4, 5)]
TOTAL = sum(h * w for h, w in SIZES)


def slow(
    value: Tensor, sizes: list[tuple[int, int]], x: Tensor, y: Tensor, weights: Tensor
) -> Tensor:
    batch, num, heads, levels, points = x.shape
    out = torch.zeros(batch, num, heads, value.shape[-1], dtype=value.dtype)
    starts = [0, *torch.tensor([h * w for h, w in sizes]).cumsum(0).tolist()]
    for b, n, m, level, p in torch.cartesian_prod(
        *(torch.arange(k) for k in (batch, num, heads, levels, points))
    ).tolist():
        height, width = sizes[level]
        right, down = x[b, n, m, level, p].item(), y[b, n, m, level, p].item()
        for row in (math.floor(down), math.floor(down) + 1):
            for column in (math.floor(right), math.floor(right) + 1):
                if 0 <= row < height and 0 <= column < width:
                    share = (1 - abs(down - row)) * (1 - abs(right - column))
                    token = value[b, starts[level] + row * width + column, m]
                    out[b, n, m] += share * weights[b, n, m, level, p] * token
    return out.flatten(2)


def inputs(
    batch: int, num: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Values, columns and rows (a third of them outside) and weights; heads 2, points 3."""
    shape = (batch, num, 2, len(SIZES), 3)
    x = torch.rand(shape, dtype=dtype) * 10 - 2.5
    y = torch.rand(shape, dtype=dtype) * 9 - 2.5
    return torch.randn(batch, TOTAL, 2, 4, dtype=dtype), x, y, torch.rand(shape, dtype=dtype)


def gradients(sampled: Callable[..., Tensor], *given: Tensor) -> tuple[Tensor, ...]:
    value, *others = (tensor.detach().requires_grad_() for tensor in given)
    out = sampled(value, SIZES, *others)
    weighting = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    return out, *torch.autograd.grad(out, [value, *others], weighting)


def by_grid(*args: Any) -> Tensor:
    """The way without bags."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deformable, "_runs_on_the_spot", lambda *_: False)
        return sample_levels(*args)


@pytest.mark.parametrize("sampled", [sample_levels, by_grid])
def test_sampling_equals_a_loop(sampled: Callable[..., Tensor]) -> None:
    value, *others = inputs(2, 4)
    torch.testing.assert_close(sampled(value, SIZES, *others), slow(value, SIZES, *others))


@pytest.mark.parametrize(("batch", "num"), [(1, 5), (2, 3), (2, 0)])
def test_gradients_equal_finite_differences(batch: int, num: int) -> None:
    leaves = [tensor.requires_grad_() for tensor in inputs(batch, num)]
    assert torch.autograd.gradcheck(lambda v, *others: sample_levels(v, SIZES, *others), leaves)


def test_both_ways_agree_at_and_beyond_the_border() -> None:
    value, x, y, weights = inputs(3, 300, torch.float32)
    x[:, :60] = torch.randint(-6, 14, x[:, :60].shape) / 2  # exactly on borders and centres
    y[:, 30:90] = torch.randint(-6, 12, y[:, 30:90].shape) / 2
    x[:, 90:100] *= 1e6
    bags, grid = (gradients(way, value, x, y, weights) for way in (sample_levels, by_grid))
    for name, ours, theirs in zip(("out", "value", "x", "y", "weights"), bags, grid, strict=True):
        inside = slice(90, None) if name in "xy" else slice(None)  # on a cell there is a kink
        torch.testing.assert_close(ours[:, inside], theirs[:, inside], atol=2e-5, rtol=1e-4)


def test_gradients_are_equal_to_the_bit_from_run_to_run() -> None:
    given = inputs(2, 200, torch.float32)
    runs = [gradients(sample_levels, *given) for _ in range(2)]
    for first, second in zip(*runs, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("wanted", [[0], [1], [3], [2, 3]])
def test_only_the_wanted_gradients_are_made(wanted: list[int]) -> None:
    given = inputs(1, 6)
    every = gradients(sample_levels, *given)[1:]
    leaves = [tensor.requires_grad_(i in wanted) for i, tensor in enumerate(given)]
    out = sample_levels(leaves[0], SIZES, *leaves[1:])
    weighting = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    found = torch.autograd.grad(out, [leaves[i] for i in wanted], weighting)
    for i, gradient in zip(wanted, found, strict=True):
        torch.testing.assert_close(gradient, every[i])


def test_a_second_derivative_is_refused() -> None:
    leaves = [tensor.requires_grad_() for tensor in inputs(1, 3)]
    out = sample_levels(leaves[0], SIZES, *leaves[1:])
    with pytest.raises(RuntimeError, match="differentiated once only"):
        torch.autograd.grad(out.sum(), leaves[3], create_graph=True)


def test_diverged_places_do_not_crash_and_get_no_gradient() -> None:
    value, x, y, weights = inputs(1, 4, torch.float32)
    x[0, 0], y[0, 1], x[0, 2] = float("nan"), float("inf"), -float("inf")
    out, *found = gradients(sample_levels, value, x, y, weights)
    assert not out[0, :3].any()
    for gradient in found:
        assert gradient.isfinite().all()
    assert not found[1][0, :3].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_goes_without_bags(dtype: torch.dtype) -> None:
    given = [tensor.to(dtype) for tensor in inputs(1, 6, torch.float32)]
    out, *found = gradients(sample_levels, *given)
    assert {tensor.dtype for tensor in (out, *found)} == {dtype}
    assert torch.equal(sample_levels(given[0], SIZES, *given[1:]), out)


def test_tracing_records_no_bags() -> None:
    attention = MSDeformAttn(16, 2, num_heads=4)
    given = (torch.randn(1, 5, 16), torch.rand(5, 2), torch.randn(1, TOTAL, 16))
    program = torch.export.export(_Exported(attention), given)
    names = {str(node.target) for node in program.graph.nodes}
    assert any("grid_sampler" in name for name in names)
    torch.testing.assert_close(program.module()(*given), attention(*given, SIZES))


class _Exported(torch.nn.Module):
    def __init__(self, attention: MSDeformAttn) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, query: Tensor, reference: Tensor, memory: Tensor) -> Tensor:
        return self.attention(query, reference, memory, SIZES)


def test_autocast() -> None:
    attention = MSDeformAttn(16, 2, num_heads=4)
    args = (torch.randn(2, 5, 16), torch.rand(5, 2), torch.randn(2, TOTAL, 16), SIZES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = attention(*args)
        found.float().sum().backward()
    torch.testing.assert_close(found.float(), attention(*args), atol=0.05, rtol=0.05)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in attention.parameters())


def test_centres_are_cell_centres() -> None:
    centres = cell_centres([(1, 2), (2, 1)])
    want = [[0.25, 0.5], [0.75, 0.5], [0.5, 0.25], [0.5, 0.75]]
    torch.testing.assert_close(centres, torch.tensor(want))


def test_starts_on_rays_with_equal_weights() -> None:
    attention = MSDeformAttn(32, 2, num_heads=4, num_points=3)
    offsets = attention.sampling_offsets.bias.detach().view(4, 2, 3, 2)
    torch.testing.assert_close(offsets[0, 1, 2], torch.tensor([3.0, 0.0]))
    torch.testing.assert_close(offsets[1, 0, 1], torch.tensor([0.0, 2.0]), atol=1e-6, rtol=0)
    assert not attention.attention_weights.weight.any()


def test_reference_per_batch_or_shared() -> None:
    attention = MSDeformAttn(16, 2, num_heads=4)
    query, memory, centres = torch.randn(2, 5, 16), torch.randn(2, TOTAL, 16), torch.rand(5, 2)
    shared = attention(query, centres, memory, SIZES)
    assert shared.shape == (2, 5, 16)
    torch.testing.assert_close(attention(query, centres.expand(2, 5, 2), memory, SIZES), shared)
    shared.square().sum().backward()
    assert [n for n, p in attention.named_parameters() if p.grad is None] == []


def test_heads_must_divide() -> None:
    with pytest.raises(ValueError, match="3 heads"):
        MSDeformAttn(16, 2, num_heads=3)
