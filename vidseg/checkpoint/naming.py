"""Names of weights in files of other frameworks, and what such weights expect of their images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["CAFFE2", "EXPECTATIONS", "TORCHVISION", "Expectation", "from_caffe2", "naming_of"]

CAFFE2 = "Caffe2"
TORCHVISION = "torchvision"


@dataclass(frozen=True)
class Expectation:
    """What ImageNet weights of a naming were made for.

    Attributes:
        image_format: order of the channels.
        pixel_std: that the values 0 to 255 are divided by.
        stride_in_1x1: whether plain bottlenecks step in their 1x1 convolutions; those with groups
            or group norm step in the 3x3 ones everywhere.
    """

    image_format: str
    pixel_std: tuple[float, float, float]
    stride_in_1x1: bool


EXPECTATIONS = {
    CAFFE2: Expectation("BGR", (1.0, 1.0, 1.0), stride_in_1x1=True),
    TORCHVISION: Expectation("RGB", (58.395, 57.12, 57.375), stride_in_1x1=False),
}

_CAFFE2_NAME = re.compile(r"(res\d_\d+_branch\d[abc]?|conv1|res_conv1)_(\w+)")
_CAFFE2_CONVS = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}
_CAFFE2_PARAMETERS = {
    "w": "weight",
    "b": "bias",
    **{f"{norm}_{short}": f"norm.{long}" for norm in ("bn", "gn") for short, long in (
        ("s", "weight"), ("gamma", "weight"), ("b", "bias"), ("beta", "bias"),
        ("rm", "running_mean"), ("running_mean", "running_mean"),
        ("riv", "running_var"), ("running_var", "running_var"),
    )},
}  # fmt: skip
# With it, the epsilon of a norm leaves a scale of one.
_UNIT_VARIANCE = 1.0 - 1e-5


def naming_of(names: Iterable[str]) -> str:
    """Tells whose ResNet names these are: ``CAFFE2``, ``TORCHVISION`` or ``""`` for others."""
    for name in names:
        bare = name.rpartition("layer1.0.")
        if bare[1] and bare[2] == "conv1.weight":
            return TORCHVISION
        if name.startswith("res2_0_branch2a"):
            return CAFFE2
    return ""


def from_caffe2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames an ImageNet ResNet of Detectron (``res2_0_branch2a_w``) to detectron2's names.

    These files keep batch norms as scale and shift alone; running statistics that change nothing
    are added. Other names stay.
    """
    renamed = {}
    for name, value in state.items():
        new = _caffe2_name(name)
        renamed[new] = value
        if new.endswith(".norm.weight") and "_bn_" in name:
            prefix = new.removesuffix("weight")
            renamed.setdefault(f"{prefix}running_mean", torch.zeros_like(value))
            renamed.setdefault(f"{prefix}running_var", torch.full_like(value, _UNIT_VARIANCE))
    return renamed


def _caffe2_name(name: str) -> str:
    match = _CAFFE2_NAME.fullmatch(name)
    if match is None or match.group(2) not in _CAFFE2_PARAMETERS:
        return name
    layer, parameter = match.group(1), _CAFFE2_PARAMETERS[match.group(2)]
    if layer.endswith("conv1"):
        return f"stem.conv1.{parameter}"
    stage, block, branch = layer.split("_")
    return f"{stage}.{block}.{_CAFFE2_CONVS[branch.removeprefix('branch')]}.{parameter}"
