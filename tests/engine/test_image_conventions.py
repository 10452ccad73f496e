"""ImageNet weights say which images they were made for; a config that differs is told."""

from __future__ import annotations

import pytest
import torch

from vidseg.config import CfgNode, get_cfg
from vidseg.engine.build import build_initial_model
from vidseg.engine.image_conventions import check_image_conventions


def torchvision_cfg() -> CfgNode:
    cfg = get_cfg()
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.PIXEL_STD = [58.395, 57.12, 57.375]
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    return cfg


@pytest.mark.parametrize(
    ("cfg", "naming", "expected"),
    [
        (get_cfg(), "Caffe2", ""),
        (get_cfg(), "", ""),
        (torchvision_cfg(), "torchvision", ""),
        (
            torchvision_cfg(),
            "Caffe2",
            "r.pkl has ImageNet weights of Caffe2: set INPUT.FORMAT BGR, MODEL.PIXEL_STD "
            "[1.0, 1.0, 1.0], MODEL.RESNETS.STRIDE_IN_1X1 True",
        ),
        (
            get_cfg(),
            "torchvision",
            "r.pkl has ImageNet weights of torchvision: set INPUT.FORMAT RGB, MODEL.PIXEL_STD "
            "[58.395, 57.12, 57.375], MODEL.RESNETS.STRIDE_IN_1X1 False",
        ),
    ],
)
def test_one_sentence(
    cfg: CfgNode, naming: str, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    check_image_conventions(cfg, naming, "r.pkl")
    assert [record.getMessage() for record in caplog.records] == ([expected] if expected else [])


def test_only_plain_resnets_step_in_the_1x1(caplog: pytest.LogCaptureFixture) -> None:
    cfg = get_cfg()
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    for key, value in (("NORM", "GN"), ("NUM_GROUPS", 32)):
        other = cfg.clone()
        other.MODEL.RESNETS[key] = value
        check_image_conventions(other, "Caffe2", "r.pkl")
    assert caplog.text == ""
    check_image_conventions(cfg, "Caffe2", "r.pkl")
    assert "set MODEL.RESNETS.STRIDE_IN_1X1 True" in caplog.text


@pytest.mark.parametrize("key", ["MODEL.WEIGHTS", "MODEL.BACKBONE.WEIGHTS"])
def test_models_are_checked_when_they_are_built(
    tmp_path, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    from vidseg.config import load_config
    from vidseg.modeling import build_model

    overrides = ["MODEL.DEVICE", "cpu", "MODEL.PIXEL_STD", "[1.0, 1.0, 1.0]"]
    cfg = load_config("projects/dvis_daq/segmenter.yaml", overrides)
    state = build_model(cfg).state_dict()
    # A ResNet-18 under torchvision's names, which lack nothing of ours.
    resnet = pytest.importorskip("torchvision.models").resnet18(weights=None, width_per_group=64)
    wide = ["MODEL.RESNETS.STEM_OUT_CHANNELS", "64", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64"]
    torch.save(resnet.state_dict(), tmp_path / "resnet18.pth")
    cfg = load_config(
        "projects/dvis_daq/segmenter.yaml",
        [*overrides, *wide, key, str(tmp_path / "resnet18.pth")],
    )
    model = build_initial_model(cfg)
    assert "ImageNet weights of torchvision: set MODEL.PIXEL_STD [58.395" in caplog.text
    loaded = model.state_dict()["backbone.res5.1.conv2.weight"]
    assert torch.equal(loaded, resnet.layer4[1].conv2.weight)
    assert loaded.shape != state["backbone.res5.1.conv2.weight"].shape
