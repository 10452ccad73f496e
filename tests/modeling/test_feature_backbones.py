"""Backbones of timm and torchvision, and files of weights for any backbone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision

from vidseg.config import get_cfg
from vidseg.errors import ConfigError, DataError
from vidseg.modeling import build_backbone
from vidseg.modeling.backbone import (
    Backbone,
    ResNet,
    TimmBackbone,
    TorchvisionBackbone,
    load_backbone_weights,
)

timm = pytest.importorskip("timm")


@pytest.mark.parametrize(
    "name",
    [
        "timm/resnet10t",
        "timm/convnext_atto",
        "timm/mobilenetv3_small_050",
        "timm/swin_tiny_patch4_window7_224",
        "torchvision/resnet18",
        "torchvision/mobilenet_v3_small",
        "torchvision/regnet_y_400mf",
        "torchvision/swin_t",
    ],
)
def test_output_shape_is_true(name: str) -> None:
    family, _, model_name = name.partition("/")
    kind: type[Backbone] = TimmBackbone if family == "timm" else TorchvisionBackbone
    backbone = kind(model_name).eval()
    size = 224 if "swin" in name else 64
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, size, size))
    assert list(maps) == ["res2", "res3", "res4", "res5"]
    for key, shape in backbone.output_shape().items():
        assert maps[key].shape == (1, shape.channels, size // shape.stride, size // shape.stride)


def test_built_by_name() -> None:
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "torchvision/resnet18"
    assert isinstance(build_backbone(cfg), TorchvisionBackbone)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/resnett18", "nearest: .*timm/resnet18"),
        ("timm/vit_tiny_patch16_224", "stride 4, 8, 16 and 32"),
        ("torchvision/resnett18", "nearest: .*torchvision/resnet18"),
        ("torchvision/vit_b_16", "stride 4, 8, 16 and 32"),
        ("torchvision", "torchvision/resnet18"),
    ],
)
def test_wrong_names(name: str, message: str) -> None:
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = name
    with pytest.raises(ConfigError, match=message):
        build_backbone(cfg)


def as_file(state: dict[str, torch.Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({name: value.contiguous() for name, value in state.items()}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto"])
def test_timm_file_fits_timm_backbone(name: str, suffix: str, tmp_path: Path) -> None:
    full = timm.create_model(name, pretrained=False).eval()
    file = as_file(full.state_dict(), tmp_path / f"weights{suffix}")
    backbone = TimmBackbone(name).eval()
    unused = load_backbone_weights(backbone, file)
    assert unused
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        want = timm.create_model(name, features_only=True, pretrained=False).eval()
        want.load_state_dict(backbone.body.state_dict(), strict=False)
        torch.testing.assert_close(backbone(x)["res5"], want(x)[-1])


def test_torchvision_file_fits_both_resnets(tmp_path: Path) -> None:
    full = torchvision.models.resnet18()
    file = as_file({"model": full.state_dict()}, tmp_path / "weights.pth")
    ours = ResNet(18, res2_channels=64, norm="BN").eval()
    theirs = TorchvisionBackbone("resnet18").eval()
    for backbone in (ours, theirs):
        assert sorted(backbone.load_pretrained(file)) == ["fc.bias", "fc.weight"]
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x)["res5"], theirs(x)["res5"], atol=1e-4, rtol=1e-4)


def test_a_file_of_another_network(tmp_path: Path) -> None:
    file = as_file(torchvision.models.resnet18().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(DataError, match=r"weights\.pth lacks .* of this backbone"):
        load_backbone_weights(ResNet(34, res2_channels=64), file)
    with pytest.raises(DataError, match="other shapes"):
        load_backbone_weights(ResNet(18, stem_channels=32, res2_channels=32), file)
