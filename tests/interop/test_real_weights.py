"""Weights go from detectron2's networks into ours and back, and give the same features."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.interop import real
from vidseg.errors import DataError
from vidseg.interop.detectron2.samples import adapt_model
from vidseg.interop.detectron2.weights import load_weights
from vidseg.modeling import build_model
from vidseg.modeling.backbone import ResNet

pytestmark = real.MARKS

STAGES = ["res2", "res3", "res4", "res5"]


def their_cfg(*, stride_in_1x1: bool = False, depth: int = 50) -> Any:
    from detectron2.config import get_cfg

    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = stride_in_1x1
    cfg.MODEL.RESNETS.OUT_FEATURES = STAGES
    cfg.MODEL.FPN.IN_FEATURES = STAGES
    return cfg


def their_backbone(cfg: Any, name: str = "build_resnet_backbone") -> nn.Module:
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.backbone import build

    backbone = build.BACKBONE_REGISTRY.get(name)(cfg, ShapeSpec(channels=3))
    return shaken(backbone).eval()


def shaken(model: nn.Module) -> nn.Module:
    """Gives norms statistics of their own, without which a lost one would not show."""
    for name, value in model.state_dict().items():
        if "norm" in name and value.is_floating_point():
            spread = torch.rand_like(value) * 0.5
            value.copy_(spread + (0.75 if name.endswith(("weight", "var")) else -0.25))
    return model


def same_features(one: nn.Module, other: nn.Module, tolerance: float = 2e-5) -> None:
    frames = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        found, expected = one(frames), other(frames)
    assert list(found) == STAGES
    for name in STAGES:
        scale = float(expected[name].abs().max())
        assert scale > 0
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=tolerance * scale)


def arrays(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in model.state_dict().items()}


def write_zoo(path: Path, content: Any) -> Path:
    path.write_bytes(pickle.dumps(content))
    return path


@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_their_resnet_50_in_ours(tmp_path: Path, stride_in_1x1: bool) -> None:
    theirs = their_backbone(their_cfg(stride_in_1x1=stride_in_1x1))
    content = {"model": arrays(theirs), "__author__": "a test"}
    path = write_zoo(tmp_path / "zoo.pkl", content)
    ours = ResNet(50, stride_in_1x1=stride_in_1x1).eval()
    report = load_weights(ours, path)
    assert not report.missing
    assert not report.unexpected
    assert not report.mismatched
    same_features(ours, theirs)


def test_our_resnet_50_in_theirs_below_a_pyramid(tmp_path: Path) -> None:
    ours = shaken(ResNet(50)).eval()
    names = {f"backbone.{name}": value for name, value in ours.state_dict().items()}
    torch.save({"model": names}, tmp_path / "ours.pth")
    theirs = their_backbone(their_cfg(), "build_resnet_fpn_backbone")
    report = load_weights(theirs, tmp_path / "ours.pth")
    assert report.num_loaded == len(names)
    assert {name.partition(".")[0] for name in report.missing} == {
        f"fpn_{kind}{level}" for kind in ("lateral", "output") for level in (2, 3, 4, 5)
    }
    same_features(theirs.bottom_up, ours)  # type: ignore[arg-type]


def test_a_detector_of_their_zoo_gives_our_segmenter_its_backbone(tmp_path: Path) -> None:
    theirs = their_backbone(their_cfg(), "build_resnet_fpn_backbone")
    detector = {f"backbone.{name}": value for name, value in arrays(theirs).items()}
    detector["roi_heads.box_predictor.cls_score.weight"] = np.zeros((81, 1024), np.float32)
    path = write_zoo(tmp_path / "m.pkl", {"model": detector, "__author__": "a test"})
    cfg = real.small_cfg(
        MODEL__RESNETS__DEPTH=50,
        MODEL__RESNETS__STEM_OUT_CHANNELS=64,
        MODEL__RESNETS__RES2_OUT_CHANNELS=256,
        MODEL__RESNETS__STRIDE_IN_1X1=False,
    )
    ours = adapt_model(build_model(cfg).eval())
    report = load_weights(ours, path)
    assert report.backbone_only
    assert not [name for name in report.missing if name.startswith("backbone.")]
    same_features(ours.backbone, theirs.bottom_up)  # type: ignore[arg-type]


def msra_arrays(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in real.msra_names(model).items()}


def test_an_msra_file_in_both(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = shaken(ResNet(50, stride_in_1x1=True))
    path = write_zoo(tmp_path / "R-50.pkl", msra_arrays(source))
    ours = ResNet(50, stride_in_1x1=True).eval()
    theirs = their_backbone(their_cfg(stride_in_1x1=True), "build_resnet_fpn_backbone")
    with caplog.at_level(logging.WARNING):
        reports = [load_weights(ours, path), load_weights(theirs, path)]
    assert [report.naming for report in reports] == ["Caffe2", "Caffe2"]
    assert "set " not in caplog.text  # a bare backbone of the right stride contradicts nothing
    assert not reports[0].missing
    same_features(ours, theirs.bottom_up)  # type: ignore[arg-type]

    # As detectron2 itself reads the file, but for the epsilon of 53 norms: it takes a variance of
    # one where the file has none, and so scales each by 1 - 5e-6.
    from detectron2.checkpoint import DetectionCheckpointer

    again = their_backbone(their_cfg(stride_in_1x1=True))
    DetectionCheckpointer(again).load(str(path))
    same_features(ours, again, tolerance=1e-3)


def test_an_msra_file_where_it_does_not_belong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = ResNet(50)
    path = write_zoo(tmp_path / "R-50.pkl", msra_arrays(source))
    theirs = their_backbone(their_cfg())
    with caplog.at_level(logging.WARNING):
        load_weights(theirs, path)
    assert f"{path} has ImageNet weights of Caffe2: set MODEL.RESNETS.STRIDE_IN_1X1 True" in (
        caplog.text
    )


def test_a_zoo_detector_in_their_own_model(tmp_path: Path) -> None:
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.modeling import build_model as build_theirs

    cfg = their_cfg()
    cfg.MODEL.META_ARCHITECTURE = "ProposalNetwork"
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.RPN.IN_FEATURES = cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256]]
    one, two, three = (shaken(build_theirs(cfg)) for _ in range(3))
    content = {"model": arrays(one), "__author__": "a test"}
    path = write_zoo(tmp_path / "zoo.pkl", content)
    report = load_weights(two, path)
    assert not report.missing
    DetectionCheckpointer(three).load(str(path))
    for name, value in three.state_dict().items():
        assert torch.equal(two.state_dict()[name], value), name


def test_a_run_with_numbers_of_numpy_and_its_config(tmp_path: Path) -> None:
    from detectron2.checkpoint import DetectionCheckpointer

    cfg = their_cfg(depth=18)
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    theirs = their_backbone(cfg)
    saver = DetectionCheckpointer(theirs, str(tmp_path))
    saver.save("model_0001", iteration=np.int64(7), best=np.float32(0.5), cfg=cfg)
    path = tmp_path / "model_0001.pth"
    with pytest.raises(pickle.UnpicklingError):
        DetectionCheckpointer(their_backbone(cfg)).load(str(path))
    ours = ResNet(18, res2_channels=64).eval()
    assert not load_weights(ours, path).missing
    same_features(ours, theirs)


def test_code_in_a_run_is_refused(tmp_path: Path) -> None:
    from detectron2.checkpoint import DetectionCheckpointer

    theirs = their_backbone(their_cfg())
    DetectionCheckpointer(theirs, str(tmp_path)).save("m", hook=Path("x"))
    with pytest.raises(DataError, match="holds Python objects besides tensors"):
        load_weights(ResNet(50), tmp_path / "m.pth")


def test_our_run_in_their_checkpointer(tmp_path: Path) -> None:
    from detectron2.checkpoint import DetectionCheckpointer

    source = build_model(real.small_cfg())
    torch.save({"model": source.state_dict()}, tmp_path / "model_final.pth")
    adapted = adapt_model(build_model(real.small_cfg()))
    rest = DetectionCheckpointer(adapted, str(tmp_path)).load(str(tmp_path / "model_final.pth"))
    assert not rest
    states = adapted.state_dict(), source.state_dict()
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(*pair) for pair in zip(*(s.values() for s in states), strict=True))

    DetectionCheckpointer(adapted, str(tmp_path)).save("theirs")
    back = build_model(real.small_cfg())
    report = load_weights(back, tmp_path / "theirs.pth")
    assert (report.missing, report.unexpected) == ([], [])
