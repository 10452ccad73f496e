"""detectron2's backbones as vidseg's.

Those in detectron2's registry read their usual keys. Swin, ViT and MViT have no yaml keys there:
``MODEL.SWIN``, ``MODEL.VIT`` and ``MODEL.MVIT`` are read for them, and ``MODEL.FPN.IN_FEATURES``
puts detectron2's feature pyramid on Swin or MViT. A part that a published file does not hold, such
as a pyramid, stays as initialised when ``MODEL.BACKBONE.WEIGHTS`` is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vidseg.checkpoint.upstream import read_state_dict
from vidseg.config import CfgNode
from vidseg.errors import ConfigError, UserError
from vidseg.modeling.backbone import Backbone
from vidseg.modeling.backbone.weights import fill_backbone
from vidseg.structures import ShapeSpec

from .available import require
from .config import to_d2_config
from .wrapping import Wrapping

__all__ = ["LAZY_BACKBONES", "ForeignBackbone", "build_foreign"]

_SWIN_PATCH = 4
_PYRAMID_SCALES = (4.0, 2.0, 1.0, 0.5)
_STAGES = ("res2", "res3", "res4", "res5")
# What is learnt only with the detector: pyramids, norms of the maps of Swin and MViT, and relative
# positions, by the beginnings of their names and by parts of these.
_PYRAMID = ("fpn_", "simfp_", "top_block.")
_NORMS = tuple(f"norm{index}." for index in range(4)) + tuple(
    f"scale{i}_norm." for i in range(2, 6)
)
_POSITIONS = "rel_pos"


class ForeignBackbone(Wrapping, Backbone):
    """A backbone of detectron2; its weights keep their names.

    Args:
        theirs: a ``detectron2.modeling.Backbone``.
        names: vidseg's names of its maps, by theirs; those without stay as they are.
    """

    def __init__(self, theirs: nn.Module, names: Mapping[str, str] | None = None) -> None:
        super().__init__(theirs)
        shapes: Mapping[str, Any] = theirs.output_shape()  # type: ignore
        renamed = {(names or {}).get(name, name): name for name in shapes}
        self._theirs = dict(sorted(renamed.items(), key=lambda item: shapes[item[1]].stride))
        self._shapes = {
            name: ShapeSpec(channels=int(shapes[key].channels), stride=int(shapes[key].stride))
            for name, key in self._theirs.items()
        }

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """Maps normalised frames ``(B, 3, H, W)`` to named maps, finest first."""
        maps = self.wrapped(frames)
        return {name: maps[key] for name, key in self._theirs.items()}

    @property
    def size_divisibility(self) -> int:
        """What height and width must be divisible by; 0 for any size."""
        # Their Swin misspells what this property returns, their plain pyramid the constraint.
        given = getattr(self.wrapped, "size_divisibility", 0)
        constraints = self.padding_constraints
        keys = ("size_divisibility", "size_divisiblity")
        return int(given or max(constraints.get(key, 0) for key in keys))

    @property
    def padding_constraints(self) -> dict[str, int]:
        """What detectron2's models read besides."""
        return dict(getattr(self.wrapped, "padding_constraints", {}))

    @property
    def unpublished(self) -> tuple[str, ...]:
        """Names, or their beginnings, that files of the network below do not hold."""
        return (*_PYRAMID, *_NORMS, *(name for name in self.state_dict() if _POSITIONS in name))

    def load_pretrained(self, path: str | Path) -> list[str]:
        """Loads the weights of ``MODEL.BACKBONE.WEIGHTS``: of all of it, or of the network below.

        Returns:
            Names in the file that the backbone does not have.

        Raises:
            DataError: if the file is unusable or belongs to another network.
        """
        state = read_state_dict(path)
        keys = "MODEL.BACKBONE.NAME and the widths"
        below = getattr(self.wrapped, "bottom_up", getattr(self.wrapped, "net", None))
        if below is None or any(f".{part}" in f".{name}" for name in state for part in _PYRAMID):
            return fill_backbone(self, state, path, keys=keys)
        return fill_backbone(ForeignBackbone(below), state, path, keys=keys)


def build_foreign(name: str, builder: Callable[..., nn.Module], cfg: CfgNode) -> ForeignBackbone:
    """Builds a backbone of detectron2's registry.

    Args:
        name: there.
        builder: what is registered under it; called with detectron2's config and the input shape.
        cfg: of vidseg.

    Raises:
        ConfigError: if detectron2 refuses the values of the config.
        UserError: if it needs what is not installed.
    """
    if "fpn" in name:
        _check_pyramid(name, cfg)
    theirs = to_d2_config(cfg)
    shape = require("layers").ShapeSpec(channels=len(theirs.MODEL.PIXEL_MEAN))
    return ForeignBackbone(_built(name, lambda: builder(theirs, shape)))


def build_swin(cfg: CfgNode) -> ForeignBackbone:
    """Builds ``SwinTransformer``; reads ``MODEL.SWIN`` and ``MODEL.BACKBONE.FREEZE_AT``."""
    swin = cfg.MODEL.SWIN
    if swin.PATCH_SIZE != _SWIN_PATCH:
        raise ConfigError(
            f"MODEL.SWIN.PATCH_SIZE is {swin.PATCH_SIZE}, but d2/SwinTransformer tells the strides "
            f"of patches of {_SWIN_PATCH}; set it to {_SWIN_PATCH}, or take D2SwinTransformer"
        )
    indices = [_STAGES.index(name) for name in _wanted(swin.OUT_FEATURES, "MODEL.SWIN")]

    def build() -> Any:
        return require("modeling").SwinTransformer(
            pretrain_img_size=swin.PRETRAIN_IMG_SIZE,
            patch_size=swin.PATCH_SIZE,
            embed_dim=swin.EMBED_DIM,
            depths=list(swin.DEPTHS),
            num_heads=list(swin.NUM_HEADS),
            window_size=swin.WINDOW_SIZE,
            mlp_ratio=swin.MLP_RATIO,
            qkv_bias=swin.QKV_BIAS,
            qk_scale=swin.QK_SCALE,
            drop_rate=swin.DROP_RATE,
            attn_drop_rate=swin.ATTN_DROP_RATE,
            drop_path_rate=swin.DROP_PATH_RATE,
            ape=swin.APE,
            patch_norm=swin.PATCH_NORM,
            out_indices=indices,
            frozen_stages=cfg.MODEL.BACKBONE.FREEZE_AT or -1,
            use_checkpoint=swin.USE_CHECKPOINT,
        )

    return _with_pyramid("SwinTransformer", build, {f"p{i}": _STAGES[i] for i in indices}, cfg)


def build_mvit(cfg: CfgNode) -> ForeignBackbone:
    """Builds ``MViT`` (MViTv2); reads ``MODEL.MVIT``."""
    mvit = cfg.MODEL.MVIT
    names = {
        name.replace("res", "scale"): name for name in _wanted(mvit.OUT_FEATURES, "MODEL.MVIT")
    }

    def build() -> Any:
        return require("modeling").MViT(
            img_size=mvit.IMG_SIZE,
            embed_dim=mvit.EMBED_DIM,
            depth=mvit.DEPTH,
            num_heads=mvit.NUM_HEADS,
            last_block_indexes=tuple(mvit.LAST_BLOCK_INDEXES),
            drop_path_rate=mvit.DROP_PATH_RATE,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            out_features=tuple(names),
        )

    return _with_pyramid("MViT", build, names, cfg)


def build_vit(cfg: CfgNode) -> ForeignBackbone:
    """Builds ``ViT``, whose one map is ``last_feat``; reads ``MODEL.VIT``."""
    return ForeignBackbone(_built("ViT", lambda: _vit(cfg)))


def build_simple_pyramid(cfg: CfgNode) -> ForeignBackbone:
    """Builds ``SimpleFeaturePyramid`` on a ``ViT``, with the maps p2 to p5.

    Reads ``MODEL.VIT`` and ``MODEL.FPN.OUT_CHANNELS``.
    """

    def build() -> Any:
        return require("modeling").SimpleFeaturePyramid(
            net=_vit(cfg),
            in_feature="last_feat",
            out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
            scale_factors=_PYRAMID_SCALES,
            norm=cfg.MODEL.VIT.NORM,
        )

    return ForeignBackbone(_built("SimpleFeaturePyramid", build))


LAZY_BACKBONES: dict[str, Callable[[CfgNode], ForeignBackbone]] = {
    "MViT": build_mvit,
    "SimpleFeaturePyramid": build_simple_pyramid,
    "SwinTransformer": build_swin,
    "ViT": build_vit,
}
"""Builders of the backbones that detectron2 keeps out of its registry, by their class there."""


def _vit(cfg: CfgNode) -> Any:
    vit = cfg.MODEL.VIT
    return require("modeling").ViT(
        img_size=vit.IMG_SIZE,
        patch_size=vit.PATCH_SIZE,
        embed_dim=vit.EMBED_DIM,
        depth=vit.DEPTH,
        num_heads=vit.NUM_HEADS,
        drop_path_rate=vit.DROP_PATH_RATE,
        window_size=vit.WINDOW_SIZE,
        window_block_indexes=tuple(vit.WINDOW_BLOCK_INDEXES),
        use_rel_pos=vit.USE_REL_POS,
        pretrain_img_size=vit.PRETRAIN_IMG_SIZE,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        out_feature="last_feat",
    )


def _with_pyramid(
    name: str, build: Callable[[], Any], names: Mapping[str, str], cfg: CfgNode
) -> ForeignBackbone:
    """Builds a network, and detectron2's FPN on it if the config names maps for one."""
    network, fpn = _built(name, build), cfg.MODEL.FPN
    if not fpn.IN_FEATURES:
        return ForeignBackbone(network, names)
    given = {ours: key for key, ours in names.items()}
    missing = [feature for feature in fpn.IN_FEATURES if feature not in given]
    if missing:
        raise ConfigError(
            f"MODEL.FPN.IN_FEATURES names {', '.join(missing)}, which d2/{name} does not give; "
            f"choose from {', '.join(given)}"
        )

    def pyramid() -> Any:
        return require("modeling.backbone.fpn").FPN(
            bottom_up=network,
            in_features=[given[feature] for feature in fpn.IN_FEATURES],
            out_channels=fpn.OUT_CHANNELS,
            norm=fpn.NORM,
            fuse_type=fpn.FUSE_TYPE,
        )

    return ForeignBackbone(_built(name, pyramid))


def _built(name: str, build: Callable[[], nn.Module]) -> nn.Module:
    try:
        return build()
    except ImportError as error:
        raise UserError(f"MODEL.BACKBONE.NAME d2/{name} cannot be built: {error}") from error
    except (AssertionError, KeyError, ValueError, IndexError, NotImplementedError) as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise ConfigError(
            f"MODEL.BACKBONE.NAME d2/{name}: detectron2 refuses the config ({reason})"
        ) from error


def _check_pyramid(name: str, cfg: CfgNode) -> None:
    """Says what detectron2 only asserts."""
    wanted, given = cfg.MODEL.FPN.IN_FEATURES, cfg.MODEL.RESNETS.OUT_FEATURES
    if not wanted:
        raise ConfigError(
            f"MODEL.BACKBONE.NAME d2/{name} builds a pyramid on MODEL.FPN.IN_FEATURES, which is "
            "empty; set it and MODEL.RESNETS.OUT_FEATURES to ['res2', 'res3', 'res4', 'res5']"
        )
    missing = [feature for feature in wanted if feature not in given]
    if "resnet" in name and missing:
        raise ConfigError(
            f"MODEL.FPN.IN_FEATURES names {', '.join(missing)}, which are not among "
            f"MODEL.RESNETS.OUT_FEATURES ({', '.join(given)}); add them there"
        )


def _wanted(features: list[str], group: str) -> list[str]:
    unknown = [name for name in features if name not in _STAGES]
    if unknown or not features:
        raise ConfigError(
            f"{group}.OUT_FEATURES names {', '.join(unknown) or 'nothing'}; choose from "
            f"{', '.join(_STAGES)}"
        )
    return sorted(features)
