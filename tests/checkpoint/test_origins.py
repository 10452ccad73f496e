"""Weights of other frameworks give the features that they give there."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vidseg.checkpoint import find_weights, load_weights
from vidseg.errors import DataError
from vidseg.modeling.backbone import ResNet


class Segmenter(nn.Module):
    """A model with a backbone and something else."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.backbone = ResNet(50, **options)
        self.head = nn.Linear(2, 2)


def randomised(model: nn.Module) -> nn.Module:
    """Gives every norm statistics and scales of its own, so that a mixed-up one shows."""
    generator = torch.Generator().manual_seed(3)
    for name, value in model.state_dict().items():
        if value.dim() == 1 and value.is_floating_point() and "fc" not in name:
            value.copy_(torch.rand(value.shape, generator=generator) * 0.5 + 0.75)
    return model.eval()


def torchvision_resnet() -> nn.Module:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    return randomised(models.resnet50(weights=None))


def timm_resnet() -> nn.Module:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    return randomised(timm.create_model("resnet50", pretrained=False))


def last_features(resnet: nn.Module, images: Tensor) -> Tensor:
    pool = getattr(resnet, "act1", None) or resnet.relu
    x = resnet.maxpool(pool(resnet.bn1(resnet.conv1(images))))
    return resnet.layer4(resnet.layer3(resnet.layer2(resnet.layer1(x))))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(1, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def detectron2_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As detectron2's own converter spells torchvision's names."""
    renamed = {}
    for name, value in state.items():
        if "layer" not in name:
            name = f"stem.{name}"
        for stage in "1234":
            name = name.replace(f"layer{stage}", f"res{int(stage) + 1}")
        name = re.sub(r"bn([123])", r"conv\1.norm", name)
        name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        renamed[name] = value
    return renamed


def caffe2_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As Detectron's ImageNet files have them: running statistics fused into scale and shift."""
    renamed = {"fc1000_w": state["fc.weight"], "fc1000_b": state["fc.bias"]}
    for name, value in detectron2_names(state).items():
        if "norm.running" in name or "num_batches" in name or "fc" in name:
            continue
        name = name.removeprefix("stem.").replace("conv1.norm", "conv1_bn", name.startswith("stem"))
        branch = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
        if name.startswith("res"):
            stage, block, conv, *rest = name.split(".")
            name = ".".join([stage, block, {**branch, "shortcut": "branch1"}[conv], *rest])
            name = name.replace("norm", "bn")
            short = "s" if ".bn." in name and name.endswith("weight") else name.split(".")[-1][0]
            name = "_".join([*name.split(".")[:-1], short])
        elif "bn" in name:
            name = f"res_conv1_bn_{'s' if name.endswith('weight') else 'b'}"
        else:
            name = "conv1_w"
        renamed[name] = value
    return renamed


def identity_statistics(resnet: nn.Module) -> nn.Module:
    for name, value in resnet.state_dict().items():
        if name.endswith("running_mean"):
            value.zero_()
        if name.endswith("running_var"):
            value.fill_(1 - 1e-5)
    return resnet


def zoo_pickle(path: Path, state: dict[str, Tensor], wrapper: str = "model") -> Path:
    arrays = {name: value.numpy() for name, value in state.items()}
    content = {wrapper: arrays, "__author__": "torchvision", "matching_heuristics": True}
    path.write_bytes(pickle.dumps(content, protocol=2))
    return path


def as_torchvision(folder: Path) -> tuple[nn.Module, Path]:
    resnet = torchvision_resnet()
    torch.save(resnet.state_dict(), folder / "resnet50.pth")
    return resnet, folder / "resnet50.pth"


def as_timm(folder: Path) -> tuple[nn.Module, Path]:
    from safetensors.torch import save_file

    resnet = timm_resnet()
    save_file(resnet.state_dict(), folder / "model.safetensors")
    return resnet, folder / "model.safetensors"


def as_detectron2(folder: Path) -> tuple[nn.Module, Path]:
    resnet = torchvision_resnet()
    return resnet, zoo_pickle(folder / "R-50.pkl", detectron2_names(resnet.state_dict()))


def as_caffe2(folder: Path) -> tuple[nn.Module, Path]:
    resnet = identity_statistics(torchvision_resnet())
    return resnet, zoo_pickle(folder / "R-50.pkl", caffe2_names(resnet.state_dict()), "blobs")


@pytest.mark.parametrize(
    ("kind", "norm"),
    [
        (as_torchvision, "BN"),
        (as_timm, "FrozenBN"),
        (as_detectron2, "FrozenBN"),
        (as_caffe2, "FrozenBN"),
        pytest.param(as_caffe2, "BN", marks=pytest.mark.slow),
    ],
)
def test_features_are_those_of_the_origin(
    tmp_path: Path,
    images: Tensor,
    kind: Callable[[Path], tuple[nn.Module, Path]],
    norm: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    theirs, path = kind(tmp_path)
    model = Segmenter(norm=norm).eval()
    with caplog.at_level("INFO"):
        report = load_weights(model, path)
    with torch.no_grad():
        ours = model.double().backbone(images)["res5"]
        difference = (ours - last_features(theirs.double(), images)).abs().max()
    assert difference < 1e-9 * ours.abs().max()
    missing = [name for name in report.missing if not name.endswith("num_batches_tracked")]
    assert missing == ["head.weight", "head.bias"]
    assert report.naming == {as_caffe2: "Caffe2", as_detectron2: ""}.get(kind, "torchvision")
    assert "(2)  classifier of an ImageNet file" in re.sub(" +", lambda m: m[0][:2], caplog.text)
    assert "a file of backbone weights: expected" in caplog.text


@pytest.mark.parametrize("kind", [pytest.param(as_detectron2, marks=pytest.mark.slow), as_caffe2])
def test_backbone_alone_takes_the_same_files(
    tmp_path: Path, kind: Callable[[Path], tuple[nn.Module, Path]]
) -> None:
    theirs, path = kind(tmp_path)
    backbone = ResNet(50, norm="FrozenBN")
    unused = backbone.load_pretrained(path)
    assert [name for name in unused if "fc" not in name and "num_batches" not in name] == []
    state = backbone.state_dict()
    expected = theirs.state_dict()
    assert torch.equal(state["stem.conv1.weight"], expected["conv1.weight"])
    for name in ("weight", "bias", "running_mean", "running_var"):
        ours = state[f"res3.0.shortcut.norm.{name}"]
        assert torch.equal(ours, expected[f"layer2.0.downsample.1.{name}"]), name


def test_only_bare_backbones_tell_of_their_images() -> None:
    resnet = pytest.importorskip("torchvision.models").resnet18(weights=None)
    model = nn.ModuleDict({"backbone": resnet, "head": nn.Linear(2, 2)})
    assert load_weights(model, resnet.state_dict()).naming == "torchvision"
    assert load_weights(model, model.state_dict()).naming == ""


# ---- addresses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "address", "place"),
    [
        (
            "detectron2://ImageNetPretrained/torchvision/R-50.pkl",
            "https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/torchvision/R-50.pkl",
            "weights/ImageNetPretrained/torchvision/R-50.pkl",
        ),
        (
            "catalog://ImageNetPretrained/FAIR/R-50-GN",
            "https://dl.fbaipublicfiles.com/detectron/ImageNetPretrained/47261647/R-50-GN.pkl",
            "weights/ImageNetPretrained/47261647/R-50-GN.pkl",
        ),
        (
            "https://example.org/a/model.pth?download=true",
            "https://example.org/a/model.pth?download=true",
            "weights/model.pth",
        ),
    ],
)
def test_addresses_are_found_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, address: str, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        find_weights(source)
    message = f"{source}: weights are not downloaded; fetch {address} and put it at {place}"
    assert str(caught.value) == message
    (tmp_path / place).parent.mkdir(parents=True)
    torch.save({"w": torch.ones(1)}, tmp_path / place)
    assert find_weights(source) == Path(place)


def test_known_file_names_say_where_they_come_from(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"does not exist; fetch https://.*/model_final_3c8ec9\.pkl"
    ):
        find_weights(tmp_path / "model_final_3c8ec9.pkl")
    assert find_weights(__file__) == Path(__file__)
