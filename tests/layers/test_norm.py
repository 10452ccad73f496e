"""Norms by name and the folding of fixed norms into convolutions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.layers import sync_norm_worker
from vidseg.engine.distributed import launch
from vidseg.errors import ConfigError
from vidseg.layers import ConvNorm, FrozenBatchNorm2d, SyncBatchNorm, build_norm


def randomised(norm: nn.Module) -> nn.Module:
    for value in norm.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5)
    return norm


@pytest.mark.parametrize("name", ["FrozenBN", "BN"])
@pytest.mark.parametrize("bias", [False, True])
def test_folding_changes_nothing(name: str, bias: bool) -> None:
    norm = randomised(build_norm(name, 6)).eval()
    conv = ConvNorm(4, 6, 3, stride=2, bias=bias, norm=norm, relu=True).eval()
    x = torch.randn(2, 4, 9, 7)
    plain = F.relu(norm(F.conv2d(x, conv.weight, conv.bias, stride=2, padding=1)))
    torch.testing.assert_close(conv(x), plain, atol=1e-5, rtol=1e-5)


def test_frozen_equals_evaluated_batch_norm() -> None:
    norm = randomised(nn.BatchNorm2d(5)).eval()
    frozen = FrozenBatchNorm2d.from_batch_norm(norm)
    x = torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(frozen(x), norm(x))
    assert not list(frozen.parameters())


def test_batch_norm_still_learns_its_statistics() -> None:
    conv = ConvNorm(3, 4, 3, norm=build_norm("BN", 4)).train()
    conv(torch.randn(2, 3, 8, 8) + 5)
    assert conv.norm.num_batches_tracked == 1
    assert conv.norm.running_mean.abs().sum() > 0


@pytest.mark.parametrize("training", [True, False])
def test_synchronised_norm_of_one_process_is_batch_norm(training: bool) -> None:
    plain = randomised(nn.BatchNorm2d(4))
    synchronised = SyncBatchNorm(4)
    synchronised.load_state_dict(plain.state_dict())
    x = torch.randn(2, 4, 5, 3)
    found = synchronised.train(training)(x)
    torch.testing.assert_close(found, plain.train(training)(x))
    for name, value in synchronised.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name])


@pytest.mark.slow
def test_synchronised_norm_of_two_processes_equals_one_on_the_whole_batch(tmp_path: Path) -> None:
    assert launch(sync_norm_worker.__file__, [str(tmp_path)], 2) == 0
    ranks = [torch.load(tmp_path / f"{rank}.pth") for rank in range(2)]
    norm, x = sync_norm_worker.start(nn.BatchNorm2d(3))
    norm(x).pow(3).sum().backward()
    torch.testing.assert_close(torch.cat([r["x"] for r in ranks]), x.grad)
    for name, parameter in norm.named_parameters():
        torch.testing.assert_close(ranks[0][name] + ranks[1][name], parameter.grad)
    for name, buffer in norm.named_buffers():
        for rank in ranks:
            torch.testing.assert_close(rank[name], buffer)


@pytest.mark.parametrize(
    ("channels", "groups"), [(64, 32), (32, 32), (48, 24), (20, 10), (7, 1), (66, 22), (1, 1)]
)
def test_group_norm_takes_the_largest_divisor(channels: int, groups: int) -> None:
    assert build_norm("GN", channels).num_groups == groups


def test_unknown_norm() -> None:
    with pytest.raises(ConfigError, match=r"'XN'.*FrozenBN"):
        build_norm("XN", 4)
