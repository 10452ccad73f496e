"""Weights of either world into models of either world.

Names are changed by tables: whose ResNet, Swin or ViT a file holds, and where a model keeps its
backbone. Nothing in a file is executed; see ``vidseg.checkpoint``.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from vidseg.checkpoint import EXPECTATIONS, LoadReport
from vidseg.checkpoint import load_weights as load_into
from vidseg.checkpoint.naming import from_caffe2
from vidseg.modeling.backbone.weights import from_dinov2, from_swin, from_torchvision_resnet

from .samples import AdaptedModel

__all__ = ["load_weights"]

logger = logging.getLogger(__name__)

State = dict[str, Tensor]

# Where models of both worlds keep the network that looks at images: alone, in a model, below a
# feature pyramid of ResNet or Swin, below the pyramid of a plain ViT; and each of these alone.
_HOMES = ("", "backbone.", "backbone.bottom_up.", "backbone.net.", "bottom_up.", "net.")
_CONVENTIONS = (from_torchvision_resnet, from_caffe2, from_swin, from_dinov2)


def load_weights(model: nn.Module, path: str | Path) -> LoadReport:
    """Copies every tensor that fits from a file into a model.

    Args:
        model: of vidseg (adapted or not) or of detectron2, or a backbone of either; changed in
            place.
        path: ``.pkl`` of a model zoo, ``.pth``, ``.pt`` or ``.safetensors`` of a run of either
            world, or an address (``detectron2://...``) that stands for a file in the folder
            ``weights``; nothing is downloaded.

    Returns:
        What was missing, unexpected and of another shape; ``summary()`` groups it. The same is
        logged.

    Raises:
        DataError: if the file is missing, damaged, holds more than numbers and plain containers, or
            not one name fits the model.

    Note:
        What images the weights expect goes with them. For ImageNet weights whose kind the names
        tell, a warning names the settings that the model contradicts.
    """
    if isinstance(model, DataParallel | DistributedDataParallel):
        model = model.module
    if isinstance(model, AdaptedModel):
        model = model.wrapped
    report = load_into(model, path, place=_placed)
    _check_conventions(model, report.naming, path)
    return report


def _placed(state: State, target: Mapping[str, Tensor]) -> State:
    """Renames weights of which no name is in the model, in the way that makes most of them fit."""
    shapes = {name: tuple(value.shape) for name, value in target.items()}

    def num_fitting(renamed: State) -> int:
        return sum(shapes.get(name) == tuple(value.shape) for name, value in renamed.items())

    return max(_candidates(state, target), key=num_fitting)


def _candidates(state: State, target: Mapping[str, Tensor]) -> Iterator[State]:
    yield state
    for renamed in (state, *(convention(state) for convention in _CONVENTIONS)):
        for old, new in itertools.product(_HOMES, _HOMES):
            moved = {}
            for name, value in renamed.items():
                place = f"{new}{name.removeprefix(old)}" if name.startswith(old) else name
                # What finds no place keeps its name, which the report tells.
                moved[place if place in target else name] = value
            yield moved


def _check_conventions(model: nn.Module, naming: str, path: str | Path) -> None:
    """Warns of a model that gives ImageNet weights other images than they were made for."""
    if not naming:
        return
    expected, wrong = EXPECTATIONS[naming], []
    order = getattr(model, "channel_order", None) or getattr(model, "input_format", None)
    if order in ("RGB", "BGR") and order != expected.image_format:
        wrong.append(f"INPUT.FORMAT {expected.image_format}")
    std = getattr(model, "pixel_std", None)
    if isinstance(std, Tensor) and (float(std.max()) <= 1.0) != (max(expected.pixel_std) <= 1.0):
        wrong.append(f"MODEL.PIXEL_STD {list(expected.pixel_std)}")
    steps = _steps_in_1x1(model)
    if steps is not None and steps != expected.stride_in_1x1:
        wrong.append(f"MODEL.RESNETS.STRIDE_IN_1X1 {expected.stride_in_1x1}")
    if wrong:
        logger.warning("%s has ImageNet weights of %s: set %s", path, naming, ", ".join(wrong))


def _steps_in_1x1(model: nn.Module) -> bool | None:
    """Tells whether a plain ResNet steps in its 1x1 convolutions; None for other networks."""
    for name, module in model.named_modules():
        inner: list[Any] = [getattr(module, part, None) for part in ("conv1", "conv2", "conv3")]
        if not f".{name}".endswith(".res3.0") or not all(hasattr(c, "stride") for c in inner):
            continue
        first, middle, _ = inner
        if middle.groups == 1 and not isinstance(getattr(middle, "norm", None), nn.GroupNorm):
            return max(first.stride) > 1
    return None
