"""ResNets: shapes, freezing, names, and torchvision's numbers on the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision

from vidseg.errors import ConfigError
from vidseg.layers import DeformConv, FrozenBatchNorm2d
from vidseg.modeling.backbone import ResNet
from vidseg.modeling.backbone.weights import from_torchvision_resnet


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_output_shape_is_true(depth: int) -> None:
    model = ResNet(depth, stem_channels=8, res2_channels=8, bottleneck_channels=4, norm="BN").eval()
    with torch.no_grad():
        maps = model(torch.randn(1, 3, 64, 96))
    for name, shape in model.output_shape().items():
        assert maps[name].shape == (1, shape.channels, 64 // shape.stride, 96 // shape.stride)
    assert list(maps) == ["res2", "res3", "res4", "res5"]


@pytest.mark.parametrize(("depth", "res2"), [(18, 64), (50, 256)])
def test_equals_torchvision(depth: int, res2: int) -> None:
    reference = getattr(torchvision.models, f"resnet{depth}")().eval()
    for buffer in reference.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.8, 1.2)
    model = ResNet(depth, res2_channels=res2, norm="FrozenBN").eval()
    state = from_torchvision_resnet(reference.state_dict())
    report = model.load_state_dict(state, strict=False)
    assert not report.missing_keys
    assert all(
        n.endswith("num_batches_tracked") or n.startswith("fc.") for n in report.unexpected_keys
    )
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        y = reference.maxpool(reference.relu(reference.bn1(reference.conv1(x))))
        y = reference.layer4(reference.layer3(reference.layer2(reference.layer1(y))))
        torch.testing.assert_close(model(x)["res5"], y, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("freeze_at", range(6))
def test_freezing(freeze_at: int) -> None:
    model = ResNet(18, stem_channels=8, res2_channels=8, norm="BN", freeze_at=freeze_at)
    parts = ["stem", "res2", "res3", "res4", "res5"]
    for index, name in enumerate(parts):
        part = model.get_submodule(name)
        frozen = index < freeze_at
        assert all(p.requires_grad != frozen for p in part.parameters())
        assert any(isinstance(m, FrozenBatchNorm2d) for m in part.modules()) == frozen


def test_narrow_network_trains_from_nothing() -> None:
    model = ResNet(18, stem_channels=32, res2_channels=32, norm="BN")
    assert [s.channels for s in model.output_shape().values()] == [32, 64, 128, 256]
    maps = model(torch.randn(4, 3, 64, 64))
    assert all(0.1 < m.detach().std() < 10 for m in maps.values())
    sum(m.square().mean() for m in maps.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("norm", ["GN", "SyncBN", "", "FrozenBN"])
def test_other_norms(norm: str) -> None:
    model = ResNet(18, stem_channels=8, res2_channels=8, norm=norm, out_features=["res3"]).eval()
    maps = model(torch.randn(1, 3, 33, 47))
    assert list(maps) == ["res3"]
    assert not hasattr(model, "res4")


def test_stride_in_1x1() -> None:
    model = ResNet(50, stride_in_1x1=True, stem_channels=8, res2_channels=8, bottleneck_channels=4)
    block = model.get_submodule("res3")[0]
    assert block.conv1.stride == (2, 2)
    assert block.conv2.stride == (1, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 20}, "DEPTH 20"),
        ({"out_features": ["res6"]}, "res6"),
        ({"out_features": []}, "names nothing"),
        ({"freeze_at": 7}, "FREEZE_AT 7"),
    ],
)
def test_errors(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ResNet(**options)


SLIM = {"stem_channels": 8, "res2_channels": 16, "bottleneck_channels": 8, "norm": "BN"}


def test_dilation_keeps_the_stride_of_res4_and_the_weights() -> None:
    plain = ResNet(50, **SLIM).eval()
    dilated = ResNet(50, res5_dilation=2, **SLIM).eval()
    dilated.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        fine, coarse = dilated(x), plain(x)
    assert dilated.output_shape()["res5"].stride == 16
    assert fine["res5"].shape[-1] == fine["res4"].shape[-1] == 2 * coarse["res5"].shape[-1]
    assert fine["res4"].equal(coarse["res4"])


def test_dilation_equals_torchvision() -> None:
    dilations = [False, False, True]
    reference = torchvision.models.resnet50(replace_stride_with_dilation=dilations).eval()
    model = ResNet(50, res5_dilation=2, norm="BN").eval()
    model.load_state_dict(from_torchvision_resnet(reference.state_dict()), strict=False)
    # torchvision spreads the kernels from the second block on, detectron2 in all.
    model.res5[0].conv2.dilation = model.res5[0].conv2.padding = (1, 1)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        y = reference.maxpool(reference.relu(reference.bn1(reference.conv1(x))))
        for layer in (reference.layer1, reference.layer2, reference.layer3, reference.layer4):
            y = layer(y)
        assert (model(x)["res5"] - y).abs().max() < 1e-5 * y.abs().max()


@pytest.mark.parametrize("is_modulated", [False, True])
def test_deformable_stages_start_as_plain_ones(is_modulated: bool) -> None:
    plain = ResNet(50, **SLIM).eval()
    deformed = ResNet(
        50,
        deform_stages=[False, False, True, True],
        deform_modulated=is_modulated,
        deform_groups=2,
        **SLIM,
    ).eval()
    report = deformed.load_state_dict(plain.state_dict(), strict=False)
    assert {name.split(".")[2] for name in report.missing_keys} == {"conv2_offset"}
    assert {name.split(".")[0] for name in report.missing_keys} == {"res4", "res5"}
    outs = (3 if is_modulated else 2) * 9 * 2
    assert deformed.res4[0].conv2_offset.weight.shape == (outs, 16 * 2, 3, 3)
    if is_modulated:  # every sample weighs sigmoid(0) = 1/2 at first
        for stage in (deformed.res4, deformed.res5):
            for block in stage:
                block.conv2.weight.data.mul_(2)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        same, deformed_maps = plain(x), deformed(x)
        for name, y in same.items():
            assert (deformed_maps[name] - y).abs().max() < 1e-5 * y.abs().max()
        deformed.res4[0].conv2_offset.bias.data.fill_(1.0)
        assert not torch.allclose(deformed(x)["res4"], same["res4"])
    deformed.train()(x)["res5"].sum().backward()
    assert deformed.res4[0].conv2_offset.weight.grad.abs().sum() > 0


def test_offsets_of_one_pixel_move_the_kernel_by_one_pixel() -> None:
    layer = DeformConv(4, norm=None, is_modulated=False)
    x = torch.randn(1, 4, 9, 9)
    offsets = torch.zeros(1, 18, 9, 9)
    offsets[:, 0::2] = 1.0  # down, across comes second
    with torch.no_grad():
        moved, plain = layer(x, offsets), layer(x, torch.zeros_like(offsets))
    torch.testing.assert_close(moved[:, :, :-2], plain[:, :, 1:-1])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"depth": 18, "res5_dilation": 2}, "RES5_DILATION needs bottlenecks"),
        ({"depth": 18, "deform_stages": [False, False, False, True]}, "DEFORM_ON_PER_STAGE needs"),
        ({"res5_dilation": 3}, "RES5_DILATION 3 does not exist; set 1 or 2"),
        ({"deform_stages": [True]}, "needs 4 values, for res2, res3, res4, res5; got 1"),
    ],
)
def test_kernels_that_do_not_exist(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ResNet(**values)
