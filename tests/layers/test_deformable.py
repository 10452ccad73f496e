"""Deformable sampling against a loop over corners, and what the module starts with."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vidseg.layers import MSDeformAttn, cell_centres
from vidseg.layers.deformable import sample_levels

SIZES = [(2, 3), (4, 5)]


def slow(value: Tensor, sizes: list[tuple[int, int]], grid: Tensor, weights: Tensor) -> Tensor:
    batch, num, heads, levels, points, _ = grid.shape
    out = torch.zeros(batch, num, heads, value.shape[-1], dtype=value.dtype)
    starts = [0, *torch.tensor([h * w for h, w in sizes]).cumsum(0).tolist()]
    for b, n, m, level, p in torch.cartesian_prod(
        *(torch.arange(k) for k in (batch, num, heads, levels, points))
    ).tolist():
        height, width = sizes[level]
        x = (grid[b, n, m, level, p, 0].item() + 1) / 2 * width - 0.5
        y = (grid[b, n, m, level, p, 1].item() + 1) / 2 * height - 0.5
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < height and 0 <= column < width:
                    share = (1 - abs(y - row)) * (1 - abs(x - column))
                    token = value[b, starts[level] + row * width + column, m]
                    out[b, n, m] += share * weights[b, n, m, level, p] * token
    return out.flatten(2)


@pytest.mark.parametrize("graph", [False, True])
def test_sampling_equals_a_loop(graph: bool) -> None:
    total = sum(h * w for h, w in SIZES)
    value = torch.randn(2, total, 2, 3, dtype=torch.float64)
    grid = torch.rand(2, 4, 2, 2, 3, 2, dtype=torch.float64) * 3 - 1.5  # partly outside
    weights = torch.rand(2, 4, 2, 2, 3, dtype=torch.float64)
    found = sample_levels(value.requires_grad_(graph), SIZES, grid, weights)
    assert found.requires_grad == graph
    torch.testing.assert_close(found.detach(), slow(value.detach(), SIZES, grid, weights))


def test_both_ways_of_sampling_agree_at_and_beyond_the_border() -> None:
    total = sum(h * w for h, w in SIZES)
    value, weights = torch.randn(3, total, 2, 4), torch.rand(3, 300, 2, 2, 3)
    grid = torch.randn(3, 300, 2, 2, 3, 2) * 1.5
    grid[:, :50] = torch.randint(-4, 5, grid[:, :50].shape) / 2  # exactly on borders and centres
    grid[:, 50:60] *= 1e6
    plain = sample_levels(value, SIZES, grid, weights)
    graph = sample_levels(value.requires_grad_(), SIZES, grid, weights)
    torch.testing.assert_close(plain, graph.detach())


def test_diverged_places_do_not_crash() -> None:
    total = sum(h * w for h, w in SIZES)
    grid = torch.full((1, 2, 2, 2, 3, 2), float("nan"))
    grid[0, 1] = float("inf")
    out = sample_levels(torch.randn(1, total, 2, 4), SIZES, grid, torch.rand(1, 2, 2, 2, 3))
    assert out.shape == (1, 2, 8)


def test_autocast() -> None:
    attention = MSDeformAttn(16, 2, num_heads=4)
    total = sum(h * w for h, w in SIZES)
    args = (torch.randn(2, 5, 16), torch.rand(5, 2), torch.randn(2, total, 16), SIZES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = attention(*args)
    torch.testing.assert_close(found.float(), attention(*args), atol=0.05, rtol=0.05)


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


@pytest.mark.parametrize("value_ratio", [1.0, 0.5])
def test_reference_per_batch_or_shared(value_ratio: float) -> None:
    attention = MSDeformAttn(16, 2, num_heads=4, value_ratio=value_ratio)
    total = sum(h * w for h, w in SIZES)
    query, memory, centres = torch.randn(2, 5, 16), torch.randn(2, total, 16), torch.rand(5, 2)
    shared = attention(query, centres, memory, SIZES)
    assert shared.shape == (2, 5, 16)
    torch.testing.assert_close(attention(query, centres.expand(2, 5, 2), memory, SIZES), shared)
    shared.square().sum().backward()
    assert [n for n, p in attention.named_parameters() if p.grad is None] == []


def test_heads_must_divide() -> None:
    with pytest.raises(ValueError, match="3 heads"):
        MSDeformAttn(16, 2, num_heads=3)
