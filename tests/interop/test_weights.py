"""Names of one world find the parts of the other; needs nothing of detectron2."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.interop.real import msra_names, small_cfg
from vidseg.errors import DataError
from vidseg.interop.detectron2.samples import adapt_model
from vidseg.interop.detectron2.weights import load_weights
from vidseg.modeling import build_model
from vidseg.modeling.backbone import ResNet

SMALL = {"stem_channels": 8, "res2_channels": 16, "bottleneck_channels": 8}


class Pyramid(nn.Module):
    """Laid out as a feature pyramid of detectron2's."""

    def __init__(self, network: nn.Module, home: str = "bottom_up") -> None:
        super().__init__()
        self.add_module(home, network)
        self.fpn_lateral2 = nn.Conv2d(16, 4, 1)


class Detector(nn.Module):
    """Laid out as a meta-architecture of detectron2's, with what it knows of its images."""

    def __init__(self, backbone: nn.Module, image_format: str = "BGR", std: float = 1.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(2, 2)
        self.input_format = image_format
        self.register_buffer("pixel_std", torch.full((3, 1, 1), std), persistent=False)


def resnet(**options: Any) -> ResNet:
    return ResNet(50, **SMALL, **options)


def save(path: Path, state: dict[str, Tensor]) -> Path:
    if path.suffix == ".pkl":
        arrays = {name: value.numpy() for name, value in state.items()}
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "a test"}))
    else:
        torch.save({"model": state}, path)
    return path


def torchvision_names(network: nn.Module) -> dict[str, Tensor]:
    named = {"fc.weight": torch.zeros(10, 2), "fc.bias": torch.zeros(10)}
    for name, value in network.state_dict().items():
        first, *rest = name.replace("shortcut.norm", "downsample.1").split(".")
        first = "" if first == "stem" else f"layer{int(first[3:]) - 1}."
        inner = ".".join(rest).replace("shortcut.", "downsample.0.")
        for number in "123":
            inner = inner.replace(f"conv{number}.norm", f"bn{number}")
        named[first + inner] = value
    return named


HOMES = {
    "bare": lambda network: network,
    "pyramid": Pyramid,
    "detector": lambda network: Detector(network),
    "detector with a pyramid": lambda network: Detector(Pyramid(network)),
    "detector with a plain ViT's pyramid": lambda network: Detector(Pyramid(network, "net")),
}


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
@pytest.mark.parametrize("origin", HOMES)
@pytest.mark.parametrize("target", HOMES)
def test_a_network_is_found_wherever_it_lives(
    tmp_path: Path, origin: str, target: str, suffix: str
) -> None:
    source, wanted = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 3, 1)
    state = HOMES[origin](source).state_dict()
    state = {n: v for n, v in state.items() if "fpn" not in n and "head" not in n}
    report = load_weights(HOMES[target](wanted), save(tmp_path / f"w{suffix}", state))
    assert report.num_loaded == 2
    assert wanted.weight.equal(source.weight)


@pytest.mark.parametrize("names", [torchvision_names, msra_names])
@pytest.mark.parametrize("target", HOMES)
def test_imagenet_files_in_their_models(tmp_path: Path, names: Any, target: str) -> None:
    source, wanted = resnet(), resnet()
    path = save(tmp_path / "R-50.pkl", names(source))
    report = load_weights(HOMES[target](wanted), path)
    assert report.backbone_only
    assert report.naming in ("torchvision", "Caffe2")
    assert not report.mismatched
    for name, value in wanted.state_dict().items():
        # Files of Caffe2 have no statistics; with a variance of 1 - 1e-5 a norm does not scale.
        torch.testing.assert_close(value, source.state_dict()[name], rtol=0, atol=1.1e-5)
    assert "classifier of an ImageNet file" in report.summary()


def test_a_detector_gives_our_segmenter_its_backbone(tmp_path: Path) -> None:
    ours = adapt_model(build_model(small_cfg()))
    network = build_model(small_cfg()).backbone
    state = {n: v.detach() for n, v in Detector(Pyramid(network)).state_dict().items()}
    report = load_weights(ours, save(tmp_path / "zoo.pkl", state))
    for name, value in network.state_dict().items():
        assert ours.backbone.state_dict()[name].equal(value), name
    assert report.num_loaded == len(network.state_dict())
    assert set(report.unexpected) == {n for n in state if "fpn" in n or n.startswith("head")}
    assert "a file of backbone weights: expected" in report.summary()


def test_our_own_runs_load_as_ever(tmp_path: Path) -> None:
    source, wanted = build_model(small_cfg()), build_model(small_cfg())
    path = save(tmp_path / "model_final.pth", source.state_dict())
    report = load_weights(nn.DataParallel(adapt_model(wanted)), path)
    assert (report.missing, report.unexpected, report.mismatched) == ([], [], {})
    assert all(v.equal(source.state_dict()[n]) for n, v in wanted.state_dict().items())


@pytest.mark.parametrize(
    ("names", "model", "wrong"),
    [
        (msra_names, Detector(resnet(stride_in_1x1=True)), None),
        (torchvision_names, Detector(resnet(), "RGB", 58.0), None),
        (
            msra_names,
            Detector(resnet(), "RGB", 58.0),
            "Caffe2: set INPUT.FORMAT BGR, MODEL.PIXEL_STD [1.0, 1.0, 1.0], "
            "MODEL.RESNETS.STRIDE_IN_1X1 True",
        ),
        (
            torchvision_names,
            Detector(Pyramid(resnet(stride_in_1x1=True))),
            "torchvision: set INPUT.FORMAT RGB, MODEL.PIXEL_STD [58.395, 57.12, 57.375], "
            "MODEL.RESNETS.STRIDE_IN_1X1 False",
        ),
        # Grouped ones step in the 3x3 convolution in both kinds of files.
        (msra_names, resnet(num_groups=2), None),
        (torchvision_names, resnet(num_groups=2), None),
        # A bare backbone does not tell of its images, but of its steps.
        (msra_names, resnet(), "Caffe2: set MODEL.RESNETS.STRIDE_IN_1X1 True"),
    ],
)
def test_preprocessing_goes_with_the_weights(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    names: Any,
    model: nn.Module,
    wrong: str | None,
) -> None:
    state = next(m for m in model.modules() if isinstance(m, ResNet))
    path = save(tmp_path / "w.pkl", names(state))
    with caplog.at_level(logging.WARNING):
        load_weights(model, path)
    told = [record.getMessage() for record in caplog.records]
    assert told == ([f"{path} has ImageNet weights of {wrong}"] if wrong else [])


def test_files_that_do_not_belong(tmp_path: Path) -> None:
    path = save(tmp_path / "w.pth", {"layers.0.weight": torch.zeros(1)})
    with pytest.raises(DataError, match=r"w\.pth does not fit the model: no name and shape in"):
        load_weights(Detector(resnet()), path)
    with pytest.raises(DataError, match=r"fetch https://.*ImageNetPretrained/MSRA/R-50\.pkl and"):
        load_weights(resnet(), "detectron2://ImageNetPretrained/MSRA/R-50.pkl")
    (tmp_path / "code.pkl").write_bytes(pickle.dumps({"model": {"w": print}}))
    with pytest.raises(DataError, match=r"code\.pkl asks for builtins\.print, which is not loaded"):
        load_weights(resnet(), tmp_path / "code.pkl")
