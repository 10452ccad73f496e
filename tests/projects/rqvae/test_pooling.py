"""Pooling of windows against a loop over them, and what it promises beyond."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from vidseg.projects.rqvae.pooling import AttentiveStatisticsPooling, SlidingWindowStatsPooling
from vidseg.projects.rqvae.windows import cut_frames, first_start, num_windows, window_validity

WIDTH = 24


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def pool_plainly(module, x: Tensor, mask: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    """The formulas as they stand, of one window or document."""
    logits = module.attention(x).mT + bias  # (B, H, T)
    weights = logits.masked_fill(~mask[:, None], -1e30).softmax(-1)
    mean = weights @ x
    variance = (weights[..., None] * (x[:, None] - mean[:, :, None]) ** 2).sum(2)
    deviation = variance.clamp_min(1e-6).sqrt()
    pooled = module.output(torch.cat([mean.flatten(1), deviation.flatten(1)], 1))
    return pooled * mask.any(1, keepdim=True)


def pool_in_a_loop(module: SlidingWindowStatsPooling, x: Tensor, mask: Tensor) -> Tensor:
    size, stride, mode = module.window_size, module.stride, module.mode
    bias = 0.0 if module.position_bias is None else module.position_bias
    pooled = []
    for n in range(num_windows(x.shape[1], size, stride, mode)):
        start = first_start(size, stride, mode) + n * stride
        window, valid = (cut_frames(t, start, start + size) for t in (x, mask))
        pooled.append(pool_plainly(module, window, valid, bias))
    window_mask = window_validity(mask, size, stride, mode, module.min_valid_frames)[1]
    return torch.stack(pooled, 1) * window_mask[..., None]


def assert_same_with_gradients(module, ours, expected, x: Tensor) -> None:
    results = []
    for function in (ours, expected):
        leaf = x.clone().requires_grad_()
        out = function(leaf)
        gradient = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)) / out.numel()
        grads = torch.autograd.grad(out, [leaf, *module.parameters()], gradient)
        results.append([out, *grads])
    for own, wanted in zip(*results, strict=True):
        torch.testing.assert_close(own, wanted, rtol=1e-5, atol=1e-5)


def masks(batch: int, num_frames: int) -> dict[str, Tensor]:
    lengths = torch.tensor([num_frames, num_frames // 2 + 1, 1])[:batch, None]
    holes = torch.rand(batch, num_frames, generator=torch.Generator().manual_seed(2)) > 0.4
    return {
        "all": torch.ones(batch, num_frames, dtype=torch.bool),
        "padded": torch.arange(num_frames) < lengths,
        "holes": holes & (torch.arange(batch) != 1)[:, None],  # one document without any
    }


@pytest.mark.parametrize("mask", ["all", "padded", "holes"])
@pytest.mark.parametrize("mode", ["same", "tail", "drop"])
@pytest.mark.parametrize(
    ("size", "stride", "heads"), [(25, 12, 1), (25, 12, 3), (10, 5, 2), (4, 4, 1), (1, 1, 2)]
)
def test_equals_the_loop(size: int, stride: int, heads: int, mode: str, mask: str) -> None:
    torch.manual_seed(0)
    module = SlidingWindowStatsPooling(
        WIDTH, size, stride, 16, mode=mode, heads=heads, position_bias=heads > 1, output_dim=20
    )
    for num_frames in (size, 131):
        valid, x = masks(3, num_frames)[mask], draw(3, num_frames, WIDTH)
        given = None if mask == "all" else valid
        assert_same_with_gradients(
            module,
            lambda leaf, given=given: module(leaf, given)[0],
            lambda leaf, valid=valid: pool_in_a_loop(module, leaf, valid),
            x,
        )


def test_gaps_and_fewest_valid_frames() -> None:
    torch.manual_seed(0)
    module = SlidingWindowStatsPooling(WIDTH, 5, 9, 16, allow_gaps=True, min_valid_frames=4)
    valid = masks(3, 60)["holes"]
    x = draw(3, 60, WIDTH)
    pooled, window_mask = module(x, valid)
    counts = valid[0, 2:].unfold(0, 5, 9).sum(-1)
    assert window_mask[0, : len(counts)].tolist() == (counts >= 4).tolist()
    assert 0 < window_mask[0].sum() < len(counts)
    assert (pooled == 0).all(-1).equal(~window_mask)


@pytest.mark.parametrize("mask", ["all", "padded", "holes"])
@pytest.mark.parametrize("heads", [1, 2])
def test_whole_document(heads: int, mask: str) -> None:
    torch.manual_seed(0)
    module = AttentiveStatisticsPooling(WIDTH, 16, heads=heads)
    for num_frames in (1, 64, 150):
        valid, x = masks(3, num_frames)[mask], draw(3, num_frames, WIDTH)
        assert_same_with_gradients(
            module,
            lambda leaf, valid=valid: module(leaf, valid),
            lambda leaf, valid=valid: pool_plainly(module, leaf, valid),
            x,
        )


def test_both_have_the_same_parameters() -> None:
    whole = AttentiveStatisticsPooling(WIDTH, heads=2)
    sliding = SlidingWindowStatsPooling(WIDTH, heads=2)
    sliding.load_state_dict(whole.state_dict())


def test_bumps_lie_side_by_side() -> None:
    bias = SlidingWindowStatsPooling(WIDTH, 24, 12, heads=4, position_bias=True).position_bias
    assert bias is not None
    assert bias.shape == (4, 24)
    middles = (bias.softmax(-1) * torch.arange(24)).sum(-1)
    assert (middles.diff() > 4).all()
    torch.testing.assert_close(bias, bias.flip(0, 1))


def test_order_of_frames_matters_with_position_bias_only() -> None:
    x = draw(1, 10, WIDTH)
    for position_bias in (False, True):
        module = SlidingWindowStatsPooling(WIDTH, 10, 10, heads=2, position_bias=position_bias)
        change = (module(x)[0] - module(x.flip(1))[0]).abs().max()
        assert (change > 1e-3) == position_bias


@pytest.mark.parametrize("kind", ["sliding", "whole"])
@pytest.mark.parametrize("width", [WIDTH, 160])
@pytest.mark.parametrize("with_gradients", [False, True])
def test_padding_changes_no_bit(kind: str, width: int, with_gradients: bool) -> None:
    torch.manual_seed(0)
    if kind == "whole":
        whole = AttentiveStatisticsPooling(width, heads=2)

        def pool(x: Tensor, mask: Tensor | None) -> Tensor:
            return whole(x, mask)[:, None]
    else:
        sliding = SlidingWindowStatsPooling(width, 10, 5, heads=2, position_bias=True)

        def pool(x: Tensor, mask: Tensor | None) -> Tensor:
            pooled, window_mask = sliding(x, mask)
            return pooled[:, : int(window_mask.sum(1).max())]

    with torch.set_grad_enabled(with_gradients):
        for length, padded in [(1, 9), (3, 64), (9, 65), (41, 41), (77, 310), (130, 131)]:
            x = draw(5, padded, width) + 3
            mask = torch.arange(padded) < torch.tensor([padded, length, 2, 0, padded])[:, None]
            alone = pool(x[1:2, :length], None)
            together = pool(x, mask)[1:2, : alone.shape[1]]
            assert torch.equal(alone, together), (length, padded)


@pytest.mark.parametrize("kind", [SlidingWindowStatsPooling, AttentiveStatisticsPooling])
def test_masked_documents_give_zeros_and_no_nan(kind: type) -> None:
    module = kind(WIDTH)
    x = draw(3, 60, WIDTH)
    mask = masks(3, 60)["padded"]
    mask[1] = False
    with torch.no_grad():
        x[~mask] = float("nan")  # what stands in the padding is nobody's business
    x.requires_grad_()
    with torch.autograd.detect_anomaly(check_nan=True):
        out = module(x, mask)
        pooled = out[0] if isinstance(out, tuple) else out
        pooled.square().sum().backward()
    assert not pooled[1].any()
    assert pooled[0].any()
    for leaf in (x, *module.parameters()):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
    assert not x.grad[~mask].any()


@pytest.mark.parametrize("frames", ["one", "equal"])
def test_no_spread_gives_the_smallest_sigma(frames: str) -> None:
    module = SlidingWindowStatsPooling(WIDTH, 4, 4, output_dim=WIDTH)
    with torch.no_grad():
        module.output.weight.zero_()[:, WIDTH:] = torch.eye(WIDTH)
        module.output.bias.zero_()
    x = draw(1, 1, WIDTH) * 30 if frames == "one" else draw(1, 1, WIDTH).repeat(1, 4, 1)
    x = torch.cat([x, draw(1, 4 - x.shape[1], WIDTH)], 1)
    mask = torch.arange(4)[None] < (1 if frames == "one" else 4)
    sigma = module(x.requires_grad_(), mask)[0]
    torch.testing.assert_close(sigma, torch.full_like(sigma, 1e-3), rtol=1e-4, atol=0.0)
    assert torch.autograd.grad(sigma.sum(), x)[0].isfinite().all()


@pytest.mark.parametrize("kind", [SlidingWindowStatsPooling, AttentiveStatisticsPooling])
def test_large_offsets_keep_sigma(kind: type) -> None:
    module = kind(WIDTH)
    with torch.no_grad():
        module.attention[0].weight.zero_()  # logits that the offset does not change
        module.output.weight.zero_()[:, WIDTH:] = torch.eye(WIDTH)
        module.output.bias.zero_()
        x = draw(2, 90, WIDTH) * 0.1
        plain, moved = (module(x + offset) for offset in (0.0, 1000.0))
        plain, moved = (out[0] if isinstance(out, tuple) else out for out in (plain, moved))
    torch.testing.assert_close(moved, plain, rtol=1e-2, atol=0.0)


def test_statistics_are_float32_under_autocast() -> None:
    torch.manual_seed(0)
    module = SlidingWindowStatsPooling(WIDTH)
    x = draw(2, 90, WIDTH).requires_grad_()
    expected = module(x)[0]
    seen = []
    module.output.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.autocast("cpu", torch.bfloat16):
        pooled, _ = module(x)
        pooled.float().sum().backward()
    assert seen[0].dtype == torch.float32
    assert pooled.dtype == torch.bfloat16
    torch.testing.assert_close(pooled.float(), expected, rtol=0.03, atol=0.03)
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_gradients_in_double_precision() -> None:
    torch.manual_seed(0)
    module = SlidingWindowStatsPooling(3, 4, 2, 5, heads=2, chunk_windows=2).double()
    x = draw(2, 9, 3).double().requires_grad_()
    mask = torch.arange(9) < torch.tensor([9, 6])[:, None]
    assert torch.autograd.gradcheck(lambda leaf: module(leaf, mask)[0], x)


def test_second_derivatives_are_refused() -> None:
    x = draw(1, 30, WIDTH).requires_grad_()
    with pytest.raises(RuntimeError, match="differentiated once only"):
        torch.autograd.grad(SlidingWindowStatsPooling(WIDTH)(x)[0].sum(), x, create_graph=True)


@pytest.mark.parametrize(
    ("shape", "mask", "said"),
    [
        ((2, 0, WIDTH), None, "needs 1 frame or more"),
        ((2, 5, WIDTH + 1), None, rf"wants \(B, T, {WIDTH}\) features, got \(2, 5, 25\)"),
        ((2, 5, WIDTH), torch.ones(2, 4) > 0, r"bool \(2, 5\), got torch.bool \(2, 4\)"),
        ((2, 5, WIDTH), torch.ones(2, 5), "got torch.float32"),
    ],
)
@pytest.mark.parametrize("kind", [SlidingWindowStatsPooling, AttentiveStatisticsPooling])
def test_inputs_that_do_not_fit(
    kind: type, shape: tuple[int, ...], mask: Tensor | None, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        kind(WIDTH)(torch.zeros(shape), mask)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"stride": 26}, "stride 26 is larger"),
        ({"heads": 0}, "heads of a pooling must be 1"),
        ({"min_valid_frames": 26}, "1 to the window's 25"),
        ({"chunk_windows": 0}, "chunk_windows must be 1"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SlidingWindowStatsPooling(WIDTH, **settings)


MEASURE = """
import sys, torch
from benchmarks.measure import own_peak
from vidseg.projects.rqvae.pooling import SlidingWindowStatsPooling
module = SlidingWindowStatsPooling(64, hidden_dim=32)
module(torch.randn(1, 500, 64)).__getitem__(0).sum().backward()
x = torch.randn(1, int(sys.argv[1]), 64, requires_grad=True)
before = own_peak()
module(x)[0].sum().backward()
print(own_peak() - before)
"""


@pytest.mark.slow
def test_memory_grows_with_the_number_of_frames_alone() -> None:
    peaks = [
        float(
            subprocess.run(
                [sys.executable, "-c", MEASURE, str(num_frames)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for num_frames in (25_000, 100_000)
    ]
    features = 100_000 * 64 * 4 / 2**20
    assert peaks[1] < 6 * peaks[0]  # 16 times if it grew with the square
    assert peaks[1] < 12 * features
