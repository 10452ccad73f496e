"""Feature backbones of timm and torchvision, as ``timm/NAME`` and ``torchvision/NAME``.

Networks are built with random weights; a file of ``MODEL.BACKBONE.WEIGHTS`` fills them.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vidseg.config import CfgNode
from vidseg.errors import ConfigError, UserError, nearest
from vidseg.modeling.build import BACKBONE_REGISTRY
from vidseg.structures import ShapeSpec

from .base import Backbone

__all__ = ["TimmBackbone", "TorchvisionBackbone", "build_timm", "build_torchvision"]

_NAMES = {4: "res2", 8: "res3", 16: "res4", 32: "res5"}
_PROBE_SIZE = 128


class TimmBackbone(Backbone):
    """A feature extractor of timm.

    Args:
        name: as ``timm.create_model`` takes it.

    Raises:
        ConfigError: if there is no such model, or it has no maps of stride 4, 8, 16 and 32.
        UserError: if timm is not installed.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise UserError(
                f"MODEL.BACKBONE.NAME timm/{name} needs timm; run `pip install vidseg[timm]`"
            ) from error
        if not timm.is_model(name):
            near = ", ".join(f"timm/{n}" for n in nearest(name, timm.list_models()))
            raise ConfigError(
                f"MODEL.BACKBONE.NAME timm/{name} does not exist in timm {timm.__version__}; "
                f"nearest: {near or 'none'}"
            )
        try:
            probe = timm.create_model(name, features_only=True, pretrained=False)
        except (RuntimeError, AttributeError, AssertionError) as error:
            raise _no_pyramid(f"timm/{name}", ()) from error
        strides: list[int] = probe.feature_info.reduction()  # type: ignore
        _require_pyramid(f"timm/{name}", strides)
        # The last map of each stride: it has passed through the most layers.
        wanted = [len(strides) - 1 - strides[::-1].index(stride) for stride in _NAMES]
        self.body = timm.create_model(
            name, features_only=True, pretrained=False, out_indices=tuple(wanted)
        )
        # Some models hand their maps on with channels last.
        self.channels_last = getattr(self.body, "output_fmt", "NCHW") == "NHWC"
        channels: list[int] = self.body.feature_info.channels()  # type: ignore
        self._shapes = {
            _NAMES[stride]: ShapeSpec(channels=c, stride=stride)
            for stride, c in zip(_NAMES, channels, strict=True)
        }

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """Maps normalised frames ``(B, 3, H, W)`` to res2 to res5."""
        maps = self.body(frames)
        if self.channels_last:
            maps = [m.permute(0, 3, 1, 2) for m in maps]
        return dict(zip(self._shapes, maps, strict=True))


class TorchvisionBackbone(Backbone):
    """A classification network of torchvision without its classifier.

    Args:
        name: as ``torchvision.models.get_model`` takes it; networks whose parts run one after
            the other (ResNet, ConvNeXt, EfficientNet, MobileNet, RegNet, Swin, ...).

    Raises:
        ConfigError: if there is no such model, or it has no maps of stride 4, 8, 16 and 32.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        from torchvision import models

        known = models.list_models(module=models)
        if name not in known:
            near = ", ".join(f"torchvision/{n}" for n in nearest(name, known))
            raise ConfigError(
                f"MODEL.BACKBONE.NAME torchvision/{name} does not exist; nearest: {near or 'none'}"
            )
        model = models.get_model(name, weights=None)
        parts = _trunk(model)
        self.channels_last = isinstance(model, models.SwinTransformer)
        ends = _last_of_stride(parts, self.channels_last) if parts else {}
        _require_pyramid(f"torchvision/{name}", list(ends))
        last = max(ends[stride][0] for stride in _NAMES)
        self.body = nn.Module()  # keeps torchvision's names, whatever is nested
        self._paths = list(parts)[: last + 1]
        for path in self._paths:
            _attach(self.body, path, parts[path])
        self._taken = {ends[stride][0]: _NAMES[stride] for stride in _NAMES}
        self._shapes = {
            _NAMES[stride]: ShapeSpec(channels=ends[stride][1], stride=stride) for stride in _NAMES
        }

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """Maps normalised frames ``(B, 3, H, W)`` to res2 to res5."""
        x, maps = frames, {}
        for index, path in enumerate(self._paths):
            x = self.body.get_submodule(path)(x)
            if index in self._taken:
                maps[self._taken[index]] = x.permute(0, 3, 1, 2) if self.channels_last else x
        return maps


@BACKBONE_REGISTRY.register(name="timm")
def build_timm(cfg: CfgNode) -> TimmBackbone:
    """Builds ``timm/NAME``."""
    return TimmBackbone(_model_name(cfg))


@BACKBONE_REGISTRY.register(name="torchvision")
def build_torchvision(cfg: CfgNode) -> TorchvisionBackbone:
    """Builds ``torchvision/NAME``."""
    return TorchvisionBackbone(_model_name(cfg))


def _model_name(cfg: CfgNode) -> str:
    family, _, name = cfg.MODEL.BACKBONE.NAME.partition("/")
    if not name:
        raise ConfigError(
            f"MODEL.BACKBONE.NAME {family} names no model; write {family}/NAME, "
            f"such as {family}/resnet18"
        )
    return name


def _trunk(model: nn.Module) -> dict[str, nn.Module]:
    """Parts that map frames to features when run in order, by their path in the model."""
    children = dict(model.named_children())
    if isinstance(children.get("features"), nn.Sequential):
        return {f"features.{n}": part for n, part in children["features"].named_children()}
    if isinstance(children.get("trunk_output"), nn.Sequential):  # RegNet
        blocks = children["trunk_output"].named_children()
        return {"stem": children["stem"], **{f"trunk_output.{n}": part for n, part in blocks}}
    if "layer4" in children:  # ResNet
        names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
        return {name: children[name] for name in names}
    return {}


def _last_of_stride(parts: dict[str, nn.Module], channels_last: bool) -> dict[int, tuple[int, int]]:
    """Stride -> (index of the last part with it, its channels), from shapes without data."""
    ends: dict[int, tuple[int, int]] = {}
    modes = {part: part.training for part in parts.values()}
    with torch.no_grad():
        x = torch.zeros(1, 3, _PROBE_SIZE, _PROBE_SIZE)
        for index, part in enumerate(parts.values()):
            x = part.eval()(x)
            height = x.shape[1] if channels_last else x.shape[2]
            channels = x.shape[3] if channels_last else x.shape[1]
            ends[_PROBE_SIZE // height] = (index, channels)
    for part, mode in modes.items():
        part.train(mode)
    return ends


def _attach(root: nn.Module, path: str, part: nn.Module) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        if parent not in dict(root.named_children()):
            root.add_module(parent, nn.Module())
        root = root.get_submodule(parent)
    root.add_module(name, part)


def _require_pyramid(name: str, strides: Iterable[int]) -> None:
    if not set(_NAMES) <= set(strides):
        raise _no_pyramid(name, strides)


def _no_pyramid(name: str, strides: Iterable[int]) -> ConfigError:
    given = ", ".join(str(stride) for stride in strides) or "none that could be found"
    return ConfigError(
        f"MODEL.BACKBONE.NAME {name} gives no feature maps of stride 4, 8, 16 and 32 "
        f"(strides: {given}); choose a hierarchical network such as a ResNet or ConvNeXt"
    )
