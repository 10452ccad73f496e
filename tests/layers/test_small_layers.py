"""MLP and position codes."""

from __future__ import annotations

import math

import pytest
import torch

from tests.golden_utils import load_case
from vidseg.layers import MLP, sine_position


def test_mlp() -> None:
    mlp = MLP(4, 8, 3, 3)
    assert [tuple(layer.weight.shape) for layer in mlp.layers] == [(8, 4), (8, 8), (3, 8)]
    x = torch.randn(2, 5, 4)
    want = mlp.layers[2](mlp.layers[1](mlp.layers[0](x).relu()).relu())
    torch.testing.assert_close(mlp(x), want)
    with pytest.raises(ValueError, match="at least one layer"):
        MLP(4, 8, 3, 0)


def test_position_by_its_formula() -> None:
    code = sine_position(5, 7, 8)
    assert code.shape == (8, 5, 7)
    y, x = 2 * math.pi * 3 / (5 + 1e-6), 2 * math.pi * 6 / (7 + 1e-6)
    scale = 10000 ** (2 / 4)
    want = [math.sin(y), math.cos(y), math.sin(y / scale), math.cos(y / scale)]
    want += [math.sin(x), math.cos(x), math.sin(x / scale), math.cos(x / scale)]
    torch.testing.assert_close(code[:, 2, 5], torch.tensor(want))


@pytest.mark.parametrize("run", ["a", "b"])
def test_position_of_the_published_code(run: str) -> None:
    want = load_case("dvis_daq/pixel_decoder_msdeform").outputs[f"{run}_pos_last_level"]
    code = sine_position(*want.shape[-2:], want.shape[1])
    torch.testing.assert_close(code.expand_as(want), want, atol=1e-5, rtol=0)


def test_position_type_and_error() -> None:
    assert sine_position(2, 2, 4, dtype=torch.bfloat16).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="divisible by 4"):
        sine_position(2, 2, 6)
