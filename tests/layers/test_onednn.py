"""oneDNN's kernels against torch's own, and what they promise beyond them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vidseg.layers import ConvNorm, FrozenBatchNorm2d, Linear, onednn
from vidseg.layers.onednn import available, conv2d, linear

needs_onednn = pytest.mark.skipif(not available(), reason="oneDNN is not used on this processor")


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(128,), (5, 128), (2, 3, 128), (0, 128)])
def test_linear_in_inference(shape: tuple[int, ...], relu: bool) -> None:
    x, weight, bias = draw(*shape), draw(160, 128), draw(160)
    expected = F.linear(x, weight, bias)
    with torch.no_grad():
        out = linear(x, weight, bias, relu=relu)
    torch.testing.assert_close(out, expected.relu() if relu else expected)


def test_rows_that_are_not_contiguous() -> None:
    x, weight = draw(5, 6, 128).transpose(0, 1)[:, ::2], draw(400, 128)[4:164]
    with torch.no_grad():
        torch.testing.assert_close(linear(x, weight), F.linear(x, weight))


@needs_onednn
@pytest.mark.parametrize("columns", [slice(0, 128), slice(0, 256, 2)])
def test_the_kernels_never_get_part_of_a_wider_matrix(columns: slice, monkeypatch) -> None:
    kernel, seen = torch.ops.mkldnn._linear_pointwise, []

    def note(x: torch.Tensor, weight: torch.Tensor, *rest: object) -> torch.Tensor:
        seen.append(weight.is_contiguous() or weight.t().is_contiguous())
        return kernel(x, weight, *rest)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", note)
    x, weight = draw(5, 128), draw(160, 256)[:, columns]
    with torch.no_grad():
        torch.testing.assert_close(linear(x, weight), F.linear(x, weight))
        torch.testing.assert_close(linear(weight, x.repeat(40, 1)), weight @ x.t().repeat(1, 40))
        torch.testing.assert_close(
            linear(weight.t(), draw(160, 200).t()), weight.t() @ draw(160, 200)
        )
    assert len(seen) >= 3
    assert all(seen)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("wanted", [(True, True, True), (False, True, True), (True, False, False)])
def test_gradients_of_a_linear_layer(wanted: tuple[bool, ...], relu: bool) -> None:
    grads = []
    for function in (
        linear,
        lambda x, w, b, relu: F.linear(x, w, b).relu() if relu else F.linear(x, w, b),
    ):
        tensors = [
            t.requires_grad_(w)
            for t, w in zip((draw(4, 128, 128), draw(160, 128), draw(160)), wanted, strict=True)
        ]
        function(*tensors, relu=relu).square().mean().backward()
        grads.append([t.grad for t in tensors])
    for ours, torchs in zip(*grads, strict=True):
        assert (ours is None) == (torchs is None)
        if ours is not None:
            torch.testing.assert_close(ours, torchs, rtol=1e-4, atol=1e-5)


def test_layer_has_the_names_and_draws_of_torch() -> None:
    torch.manual_seed(3)
    ours = Linear(4, 5)
    torch.manual_seed(3)
    for (name, own), (other, expected) in zip(
        ours.state_dict().items(), nn.Linear(4, 5).state_dict().items(), strict=True
    ):
        assert name == other
        assert own.equal(expected)


@pytest.mark.parametrize(
    ("kernel", "stride", "groups"), [(1, 1, 1), (1, 2, 1), (3, 2, 1), (3, 1, 4)]
)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("with_residual", [False, True])
def test_convolution(
    kernel: int, stride: int, groups: int, relu: bool, with_residual: bool
) -> None:
    x, weight, bias = draw(2, 8, 9, 7), draw(16, 8 // groups, kernel, kernel), draw(16)
    expected = F.conv2d(x, weight, bias, stride, kernel // 2, 1, groups)
    residual = draw(*expected.shape) if with_residual else None
    expected = expected if residual is None else expected + residual
    kept = None if residual is None else residual.clone()
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            out = conv2d(
                x,
                weight,
                bias,
                stride=(stride, stride),
                padding=(kernel // 2, kernel // 2),
                dilation=(1, 1),
                groups=groups,
                residual=residual,
                relu=relu,
            )
        torch.testing.assert_close(out, expected.relu() if relu else expected)
    if residual is not None:
        assert residual.equal(kept)


@needs_onednn
@pytest.mark.parametrize("num_rows", [1, 31, 32, 129, 300, 512, 700, 1024, 5000])
def test_any_number_of_rows_has_the_bits_of_all(num_rows: int) -> None:
    rows, weight, bias = draw(5000, 256), draw(64, 256), draw(64)
    with torch.no_grad():
        part = linear(rows[:num_rows], weight, bias, relu=True)
        assert part.equal(linear(rows, weight, bias, relu=True)[:num_rows])
    expected = F.linear(rows[:num_rows], weight, bias).relu()
    torch.testing.assert_close(part, expected, atol=1e-4, rtol=1e-4)


@needs_onednn
@pytest.mark.parametrize("size", [(2, 3), (15, 20)])
def test_a_frame_has_the_same_bits_in_every_batch(size: tuple[int, int]) -> None:
    layers = nn.Sequential(
        ConvNorm(32, 64, 1, norm=FrozenBatchNorm2d(64), relu=True),
        ConvNorm(64, 64, 3, stride=2, norm=FrozenBatchNorm2d(64), relu=True),
        ConvNorm(64, 32, 1, norm=FrozenBatchNorm2d(32)),
    ).eval()
    frames = draw(8, 32, *size)
    with torch.no_grad():
        together = layers(frames)
        for window in (1, 3):
            assert torch.cat([layers(part) for part in frames.split(window)]).equal(together)
        rows, weight = draw(800, 256), draw(64, 256)
        parts = [linear(part, weight) for part in rows.split(100)]
        assert torch.cat(parts).equal(linear(rows, weight))


def test_switch_of_torch_turns_it_off() -> None:
    with torch.backends.mkldnn.flags(enabled=False), torch.no_grad():
        assert not available()
        x, weight = draw(5, 7), draw(3, 7)
        assert linear(x, weight).equal(F.linear(x, weight))


def test_autocast_stays_with_torch() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert linear(draw(5, 8), draw(3, 8)).dtype == torch.bfloat16


def test_gradients_of_a_single_row() -> None:
    x, weight = draw(4096).requires_grad_(), draw(2048, 4096).requires_grad_()
    linear(x, weight).sum().backward()
    torch.testing.assert_close(x.grad, weight.detach().sum(0), rtol=1e-4, atol=1e-3)
    assert weight.grad is not None
    assert weight.grad.equal(x.detach().expand(2048, -1))


@needs_onednn
def test_second_derivatives_are_refused() -> None:
    x, weight = draw(512, 128), draw(160, 128).requires_grad_()
    out = linear(x, weight)
    with pytest.raises(RuntimeError, match="once only: leave out create_graph"):
        torch.autograd.grad(out.sum(), weight, create_graph=True)


@needs_onednn
@pytest.mark.parametrize(("channels", "released"), [(64, 0), (512, 1)])
def test_the_copy_of_a_large_kernel_is_given_back(channels, released, monkeypatch) -> None:
    calls: list[None] = []
    monkeypatch.setattr(onednn, "release_freed_memory", lambda: calls.append(None))
    x, weight = torch.randn(1, channels, 2, 3), torch.randn(channels, channels, 3, 3)
    options = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
    with torch.no_grad():
        found = conv2d(x, weight, None, **options)
    assert len(calls) == released
    torch.testing.assert_close(found, F.conv2d(x, weight, padding=1), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("outputs", [16, 512])
def test_a_product_at_once_has_the_bits_of_its_parts(outputs: int) -> None:
    x, weight, bias = torch.randn(384, 64), torch.randn(outputs, 64), torch.randn(outputs)
    with torch.no_grad():
        found = onednn.linear_at_once(x, weight, bias)
        torch.testing.assert_close(found, x @ weight.T + bias, atol=1e-4, rtol=1e-4)
        if onednn.keeps_rows(weight):
            assert torch.equal(found, onednn.linear(x, weight, bias))
