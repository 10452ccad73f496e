"""vidseg's parts in detectron2's registries, and detectron2's in vidseg's.

What a system on detectron2 calls gets its forms: whole models those of ``adapt_model``, pixel
decoders, heads and query decoders those of ``heads``. Parts that are asked for by their name are
built from the config that detectron2 passes, by ``from_d2_config``.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from vidseg import plugins
from vidseg.config import CfgNode
from vidseg.errors import ConfigError
from vidseg.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
    TRANSFORMER_DECODER_REGISTRY,
    build_model,
    construct,
)
from vidseg.modeling.backbone import Backbone
from vidseg.registry import Registry

from .available import require
from .backbones import LAZY_BACKBONES, build_foreign
from .config import from_d2_config, to_d2_config
from .heads import AdaptedHead, AdaptedQueryDecoder, ForeignPixelDecoder
from .samples import adapt_model

__all__ = ["PREFIX", "import_registered", "register"]

logger = logging.getLogger(__name__)

PREFIX = "vidseg."
"""Of the names in detectron2's registries that somebody else has there already."""

_ORIGIN = "vidseg_component"  # attribute of what is registered: which component it builds
# Not components but families of names (timm/resnet50), which detectron2's registries do not split.
_FAMILIES = ("timm", "torchvision")
# Keys that name a component; a vidseg model looks them up among vidseg's.
_NAME_KEYS = (
    ("MODEL", "META_ARCHITECTURE"),
    ("MODEL", "BACKBONE", "NAME"),
    ("MODEL", "SEM_SEG_HEAD", "NAME"),
    ("MODEL", "SEM_SEG_HEAD", "PIXEL_DECODER_NAME"),
    ("MODEL", "MASK_FORMER", "TRANSFORMER_DECODER_NAME"),
)


def register(overwrite: bool = False) -> list[str]:
    """Adds vidseg's meta-architectures, backbones and decoders to detectron2's registries.

    All projects are loaded for it. Query decoders go into the registry of Mask2Former or a system
    built on it, if one has been imported by then. It may be called any number of times: again
    after more projects or more of such systems were imported. Import these first: they refuse a
    name that is taken.

    Args:
        overwrite: take the published name even if something else has it there.

    Returns:
        The names in detectron2's registries. Where a name is taken the prefix ``vidseg.`` is put
        before it, and one line of the log says which these are.

    Raises:
        ImportError: if detectron2 is absent.
    """
    modeling = require("modeling")
    modeling.Backbone.register(Backbone)
    plugins.load_components()
    names: list[str] = []
    moved: list[str] = []
    for ours, theirs, make in _destinations(modeling):
        for name, component in ours:
            if _is_shown(name, component):
                chosen = _place(theirs, name, (ours.name, name), overwrite)
                if chosen != name and chosen not in theirs:
                    moved.append(name)
                # Their method takes no name and never replaces; what it fills is this, always.
                theirs._obj_map[chosen] = _factory(ours, name, make)
                names.append(chosen)
    if moved:
        logger.warning(
            "detectron2 has %s already; vidseg's have the prefix %s there", ", ".join(moved), PREFIX
        )
    return sorted(set(names))


def import_registered(kind: str = "BACKBONE") -> list[str]:
    """Adds what detectron2 has registered to vidseg's registry, as ``d2/NAME``.

    A config that asks for such a name gets it without this call.

    Args:
        kind: ``"BACKBONE"``, with the backbones that detectron2 keeps out of its registry (Swin,
            ViT, its pyramid, MViT); or ``"SEM_SEG_HEADS"``, pixel decoders of Mask2Former and
            systems built on it, if one has been imported.

    Returns:
        The names in vidseg's registry.

    Raises:
        ConfigError: if there is no place for that kind in vidseg.
        ImportError: if detectron2 is absent.
    """
    if kind not in _IMPORTS:
        raise ConfigError(
            f"components of detectron2 of the kind {kind} cannot be imported; "
            f"there are {' and '.join(_IMPORTS)}"
        )
    ours, builders = _IMPORTS[kind]
    for name, builder in builders(require("modeling")):
        ours.register(builder, name=f"d2/{name}")
    return [name for name in ours.names() if name.startswith("d2/")]


def _destinations(
    modeling: Any,
) -> Iterator[tuple[Registry[Any], Any, Callable[..., nn.Module]]]:
    """Gives pairs of registries, with what builds a component for the second one."""
    yield META_ARCH_REGISTRY, modeling.META_ARCH_REGISTRY, _build_model
    yield BACKBONE_REGISTRY, modeling.BACKBONE_REGISTRY, _build_backbone
    yield SEM_SEG_HEADS_REGISTRY, modeling.SEM_SEG_HEADS_REGISTRY, _build_head
    for registry in _query_decoder_registries():
        yield TRANSFORMER_DECODER_REGISTRY, registry, _build_query_decoder


def _query_decoder_registries() -> list[Any]:
    """Gives what systems on detectron2 that are imported already register query decoders in."""
    kind = require("utils.registry").Registry
    found = {}
    for module in list(sys.modules.values()):
        registry = getattr(module, "__dict__", {}).get("TRANSFORMER_DECODER_REGISTRY")
        if isinstance(registry, kind):
            found[id(registry)] = registry
    return list(found.values())


def _is_shown(name: str, component: Any) -> bool:
    is_foreign = name.startswith("d2/") or name in _FAMILIES
    # Models of features have no place in a library of images.
    return not is_foreign and not getattr(component, "feature_dim_key", None)


def _place(registry: Any, name: str, origin: tuple[str, str], overwrite: bool) -> str:
    """Gives the name for a component: its own, or with the prefix if somebody else has that."""
    is_free = name not in registry or _origin(registry.get(name)) == origin
    return name if overwrite or is_free else PREFIX + name


def _origin(component: Any) -> Any:
    return getattr(component, _ORIGIN, None)


def _factory(ours: Registry[Any], name: str, make: Callable[..., nn.Module]) -> Callable[..., Any]:
    """Gives what detectron2 calls with its config (and an input shape, and more) for a part."""

    def build(cfg: Any, *args: Any, **options: Any) -> nn.Module:
        return make(_own(from_d2_config(cfg)), ours, name, *args)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"Builds vidseg's {name}."
    setattr(build, _ORIGIN, (ours.name, name))
    return build


def _own(cfg: CfgNode) -> CfgNode:
    """Gives the config with the names that components have in vidseg."""
    cfg = cfg.clone()
    cfg.defrost()
    for *groups, key in _NAME_KEYS:
        node = cfg
        for group in groups:
            node = node[group]
        node[key] = node[key].removeprefix(PREFIX)
    return cfg


def _build_model(cfg: CfgNode, ours: Registry[Any], name: str) -> nn.Module:
    cfg.MODEL.META_ARCHITECTURE = name
    return adapt_model(
        build_model(cfg), image_format=cfg.INPUT.FORMAT, max_iter=cfg.SOLVER.MAX_ITER
    )


def _build_backbone(cfg: CfgNode, ours: Registry[Any], name: str, *shape: Any) -> nn.Module:
    backbone: nn.Module = construct(ours.get(name), cfg)
    if not isinstance(backbone, Backbone):  # of a project that has a base of its own
        require("modeling").Backbone.register(type(backbone))
    return backbone


def _build_head(cfg: CfgNode, ours: Registry[Any], name: str, input_shape: Any) -> nn.Module:
    return AdaptedHead(construct(ours.get(name), cfg, input_shape))


def _build_query_decoder(cfg: CfgNode, ours: Registry[Any], name: str, *_: Any) -> nn.Module:
    # The width of its input, which they pass, is that of the pixel decoder in the config.
    return AdaptedQueryDecoder(construct(ours.get(name), cfg))


def _their_backbones(modeling: Any) -> Iterator[tuple[str, Callable[[CfgNode], nn.Module]]]:
    for name, builder in modeling.BACKBONE_REGISTRY:
        if _origin(builder) is None:
            yield name, _backbone_factory(name, builder)
    yield from LAZY_BACKBONES.items()


def _backbone_factory(name: str, builder: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    return lambda cfg: build_foreign(name, builder, cfg)


def _their_pixel_decoders(modeling: Any) -> Iterator[tuple[str, Callable[..., nn.Module]]]:
    for name, builder in modeling.SEM_SEG_HEADS_REGISTRY:
        if _origin(builder) is None and hasattr(builder, "forward_features"):
            yield name, _pixel_decoder_factory(builder)


def _pixel_decoder_factory(builder: Callable[..., Any]) -> Callable[..., nn.Module]:
    def build(cfg: CfgNode, input_shape: Any) -> nn.Module:
        spec = require("layers").ShapeSpec
        shapes = {
            key: spec(channels=shape.channels, stride=shape.stride)
            for key, shape in input_shape.items()
        }
        return ForeignPixelDecoder(builder(to_d2_config(cfg), shapes))

    return build


_IMPORTS: dict[str, tuple[Registry[Any], Callable[[Any], Iterator[tuple[str, Any]]]]] = {
    "BACKBONE": (BACKBONE_REGISTRY, _their_backbones),
    "SEM_SEG_HEADS": (SEM_SEG_HEADS_REGISTRY, _their_pixel_decoders),
}
