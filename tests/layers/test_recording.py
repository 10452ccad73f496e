"""Kernels of our own give way where the operations themselves are wanted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from vidseg.layers import Conv2d, ConvNorm, Linear, MSDeformAttn, cell_centres
from vidseg.layers.recording import is_recorded


def deformable() -> tuple[torch.nn.Module, Callable[[Tensor], tuple[object, ...]]]:
    sizes = [(8, 8), (4, 4)]
    centres = cell_centres(sizes)
    return MSDeformAttn(128, 2), lambda x: (x, centres, x, sizes)


def test_nothing_is_recorded_in_plain_calls() -> None:
    assert not is_recorded()
    with torch.no_grad():
        assert not is_recorded()


@pytest.mark.parametrize("grad", [False, True])
def test_flops_are_counted(grad: bool) -> None:
    x = torch.randn(1, 1024, 128)
    with torch.set_grad_enabled(grad), FlopCounterMode(display=False) as counter:
        Linear(128, 256)(x)
        Conv2d(128, 256, 1)(torch.randn(1, 128, 8, 8))
        ConvNorm(128, 256, 1)(torch.randn(1, 128, 8, 8))
    assert counter.get_total_flops() == 2 * 128 * 256 * (1024 + 64 + 64)


def test_gradients_as_functions() -> None:
    layer, x = Linear(512, 512), torch.randn(128, 512)

    def loss(weight: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight}, x).square().sum()

    found = torch.func.grad(loss)(layer.weight.detach())
    loss(layer.weight).backward()
    torch.testing.assert_close(found, layer.weight.grad, rtol=1e-4, atol=1e-2)


def test_gradients_of_deformable_attention_as_functions() -> None:
    layer, given = deformable()
    x = torch.randn(1, 80, 128)
    found = torch.func.grad(lambda x: layer(*given(x)).square().sum())(x)
    x.requires_grad_()
    layer(*given(x)).square().sum().backward()
    torch.testing.assert_close(found, x.grad, rtol=1e-4, atol=1e-4)


def test_shapes_without_numbers() -> None:
    layer, given = deformable()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        out = layer(*given(mode.from_tensor(torch.randn(1, 80, 128))))
    assert out.shape == (1, 80, 128)
