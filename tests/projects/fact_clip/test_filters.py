"""Filters over time against convolutions of torch, values and gradients."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.projects.fact_clip import filters
from vidseg.projects.fact_clip.filters import filter_frames
from vidseg.projects.fact_clip.frame_branch import MSTCN, MSTCN2
from vidseg.projects.fact_clip.taps import (
    DilatedTaps,
    FoldedTaps,
    PointwiseTaps,
    folding_pays,
)


def convolution(in_dim: int, out_dim: int, dilation: int | None = None) -> nn.Conv1d:
    if dilation is None:
        return nn.Conv1d(in_dim, out_dim, 1).double()
    return nn.Conv1d(in_dim, out_dim, 3, padding=dilation, dilation=dilation).double()


def convolve(conv: nn.Conv1d, x: Tensor) -> Tensor:
    return conv(x.t()[None])[0].t()


def gradients(out: Tensor, of: list[Tensor], direction: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad((out * direction).sum(), of)


@pytest.mark.parametrize("num_frames", [1, 2, 3, 40, 1100])
@pytest.mark.parametrize("dilation", [1, 2, 33])
def test_a_dilated_filter_is_the_convolution(num_frames: int, dilation: int) -> None:
    x = torch.randn(num_frames, 5, dtype=torch.float64, requires_grad=True)
    conv = convolution(5, 4, dilation)
    weights = list(conv.parameters())

    ours = filter_frames(x, DilatedTaps(dilation, num_frames), weights, relu=True)
    theirs = F.relu(convolve(conv, x))

    torch.testing.assert_close(ours, theirs)
    direction = torch.randn_like(ours)
    for own, their in zip(
        gradients(ours, [x, *weights], direction),
        gradients(theirs, [x, *weights], direction),
        strict=True,
    ):
        torch.testing.assert_close(own, their)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("num_frames", [1, 2, 9, 40, 1100])
@pytest.mark.parametrize("dilations", [(1, 8), (8, 1), (4, 4), (64, 2), (64, 64)])
def test_the_folded_filter_is_the_layer_as_published(
    num_frames: int, dilations: tuple[int, int], keep: bool
) -> None:
    x = torch.randn(num_frames, 6, dtype=torch.float64, requires_grad=True)
    first, second = (convolution(6, 6, dilation) for dilation in dilations)
    fusion = convolution(12, 6)
    weights = [w for conv in (first, second, fusion) for w in conv.parameters()]

    taps = FoldedTaps(dilations, num_frames, keep=keep)
    ours = filter_frames(x, taps, weights, relu=True, residual=x)
    theirs = x + F.relu(convolve(fusion, torch.cat([convolve(first, x), convolve(second, x)], 1)))

    torch.testing.assert_close(ours, theirs)
    direction = torch.randn_like(ours)
    for own, their in zip(
        gradients(ours, [x, *weights], direction),
        gradients(theirs, [x, *weights], direction),
        strict=True,
    ):
        torch.testing.assert_close(own, their)


def test_taps_beyond_the_ends_are_left_out() -> None:
    assert FoldedTaps((64, 2), 40).offsets == (0, -2, 2)
    assert FoldedTaps((2, 64), 40).offsets == (-2, 0, 2)
    assert FoldedTaps((64, 64), 40).offsets == (0,)
    assert DilatedTaps(40, 40).offsets == (0,)
    assert DilatedTaps(39, 40).offsets == (-39, 0, 39)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("with_residual", [False, True])
def test_dropout_scales_what_it_keeps_and_stops_gradients_of_the_rest(
    relu: bool, with_residual: bool
) -> None:
    x = torch.randn(300, 6, dtype=torch.float64, requires_grad=True)
    residual = torch.randn(300, 5, dtype=torch.float64, requires_grad=True)
    conv = convolution(6, 5)
    weights = list(conv.parameters())
    plain = filter_frames(x, PointwiseTaps(), weights, relu=relu)

    out = filter_frames(
        x,
        PointwiseTaps(),
        weights,
        relu=relu,
        dropout=0.25,
        residual=residual if with_residual else None,
    )

    added = out - residual if with_residual else out
    is_kept = (added - plain / 0.75).abs() < 1e-9
    assert torch.all(is_kept | (added.abs() < 1e-9))
    share = float((is_kept & (plain != 0)).sum() / (plain != 0).sum())
    assert 0.65 < share < 0.85
    direction = torch.randn_like(out)
    keep = torch.where(is_kept, 1 / 0.75, 0.0)
    expected = gradients(plain * keep, [x, *weights], direction)
    for own, their in zip(gradients(out, [x, *weights], direction), expected, strict=True):
        torch.testing.assert_close(own, their)


def test_a_second_derivative_is_refused() -> None:
    x = torch.randn(4, 3, requires_grad=True)
    out = filter_frames(x, PointwiseTaps(), list(nn.Conv1d(3, 3, 1).parameters()))
    with pytest.raises(RuntimeError, match="once only"):
        torch.autograd.grad(out.sum(), x, create_graph=True)


@pytest.mark.parametrize("num_frames", [1, 7, 90])
def test_folding_changes_nothing_but_the_cost(
    num_frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    branch = MSTCN2(7, 8, 9, num_layers=5)
    x = torch.randn(num_frames, 7, requires_grad=True)
    parameters = [x, *branch.parameters()]
    direction = torch.randn(num_frames, 9)
    found = []
    for pays in (True, False):
        monkeypatch.setattr(
            "vidseg.projects.fact_clip.frame_branch.folding_pays", lambda *_, pays=pays, **__: pays
        )
        out = branch(x)
        found.append([out, *gradients(out, parameters, direction)])
    for folded, plain in zip(*found, strict=True):
        torch.testing.assert_close(folded, plain, atol=1e-5, rtol=1e-5)


def test_folding_pays_for_long_videos_only() -> None:
    lengths = [100, 1000, 3000, 20000]
    for with_gradients in (False, True):
        pays = [folding_pays(n, 512, (512, 1), with_gradients=with_gradients) for n in lengths]
        assert pays[0] is False
        assert pays[-1] is True
        assert all(before <= after for before, after in pairwise(pays))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("norm", [False, True])
def test_all_blocks_of_rows_join_without_a_seam(
    groups: int, norm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    branches = (
        MSTCN(6, 6, 5, num_layers=4, norm=norm, groups=groups),
        MSTCN2(6, 6, 5, num_layers=4, groups=groups, in_map=False),
    )
    x = torch.randn(83, 6)
    with torch.no_grad():
        whole = [branch(x) for branch in branches]
        monkeypatch.setattr(filters, "_BLOCK", 16)
        for branch, expected in zip(branches, whole, strict=True):
            torch.testing.assert_close(branch(x), expected)


@pytest.mark.parametrize("branch", [MSTCN, MSTCN2])
def test_autocast_runs_the_filters_in_its_dtype(branch: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module = branch(6, 8, 5, num_layers=3, in_map=True)
    x = torch.randn(50, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), module(x), atol=0.1, rtol=0.1)
    out.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in module.parameters())


def test_widths_that_do_not_fit_are_refused() -> None:
    for branch in (MSTCN, MSTCN2):
        with pytest.raises(ValueError, match="8 wide, not 6"):
            branch(6, 8, 5, num_layers=1, in_map=False)
