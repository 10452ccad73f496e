"""Plain vision transformers as frozen backbones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vidseg.config import get_cfg
from vidseg.errors import ConfigError, DataError
from vidseg.modeling import build_backbone
from vidseg.projects.slot_bert.features import FrozenFeatures
from vidseg.projects.slot_bert.vit import VisionTransformer

timm = pytest.importorskip("timm")
NAME = "vit_tiny_patch16_224"


def test_patches_are_those_of_timm(tmp_path: Path) -> None:
    torch.manual_seed(0)
    full = timm.create_model(NAME, pretrained=False).eval()
    file = tmp_path / "vit.pth"
    torch.save(full.state_dict(), file)
    backbone = VisionTransformer(NAME).eval()
    assert sorted(backbone.load_pretrained(file)) == ["head.bias", "head.weight"]
    frames = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        want = full.forward_features(frames)[:, 1:].mT.view(1, 192, 14, 14)
        torch.testing.assert_close(backbone(frames)["patches"], want)


def test_any_size_and_a_finer_grid(tmp_path: Path) -> None:
    file = tmp_path / "vit.pth"
    torch.save(VisionTransformer(NAME).state_dict(), file)
    frozen = FrozenFeatures(VisionTransformer(NAME), ["patches"], scale=2.0).eval()
    frozen.load_pretrained(file)
    assert (frozen.stride, frozen.out_channels) == (8, 192)
    assert frozen(torch.rand(2, 3, 40, 56)).shape == (2, 192, 5, 7)


def test_built_by_name() -> None:
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = f"vit/{NAME}"
    assert isinstance(build_backbone(cfg), VisionTransformer)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit/vit_tiny_patch16_225", "nearest: .*vit/vit_tiny_patch16_224"),
        ("vit/resnet18", "no vision transformer"),
        ("vit/vit_medium_patch16_gap_240x", "no vision transformer"),
        ("vit", "vit/vit_small"),
    ],
)
def test_wrong_names(name: str, message: str) -> None:
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = name
    with pytest.raises(ConfigError, match=message):
        build_backbone(cfg)


def test_a_file_of_another_network(tmp_path: Path) -> None:
    file = tmp_path / "resnet.pth"
    torch.save(timm.create_model("resnet10t", pretrained=False).state_dict(), file)
    with pytest.raises(DataError, match="lacks"):
        VisionTransformer(NAME).load_pretrained(file)
