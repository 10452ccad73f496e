"""Registries of the parts of a model, and the builders that fill them from a config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from vidseg.config import CfgNode, get_cfg
from vidseg.errors import ConfigError, UserError
from vidseg.registry import Registry
from vidseg.structures import ShapeSpec

__all__ = [
    "BACKBONE_REGISTRY",
    "META_ARCH_REGISTRY",
    "SEM_SEG_HEADS_REGISTRY",
    "TRANSFORMER_DECODER_REGISTRY",
    "build_backbone",
    "build_model",
    "build_sem_seg_head",
    "build_transformer_decoder",
    "check_num_heads",
    "construct",
    "resolve_device",
]

META_ARCH_REGISTRY: Registry[Callable[..., nn.Module]] = Registry("META_ARCH")
"""Whole models, by ``MODEL.META_ARCHITECTURE``.

Built from ``cfg``. Called with a list of samples; in training returns a flat dict of weighted
losses whose sum is minimised, in eval one prediction per sample. Scalars under names with a slash,
as ``slots/used``, are only logged. A model of sequences names the config key of the width of its
input in the class attribute ``feature_dim_key``; 0 under it is the width of the last training set.

A model may offer ``at_iteration(iteration, max_iter, batches)``, which training calls before every
step and once after the last, with ``iteration == max_iter``. ``batches()`` gives a pass over the
training records of this rank, in order and mapped as in testing, as lists of samples: for what
gradients do not teach, such as statistics of the data. What it fits belongs into buffers, which
travel in the checkpoint; it returns true if it has replaced some, so that averages start anew.
"""

BACKBONE_REGISTRY: Registry[Callable[..., nn.Module]] = Registry("BACKBONE")
"""Feature extractors, by ``MODEL.BACKBONE.NAME``; ``family/model`` looks up ``family``.

Built from ``cfg``. Called with normalised frames ``(B, 3, H, W)``; returns a dict of named feature
maps, finest first. Offers ``output_shape() -> dict[str, ShapeSpec]`` and ``size_divisibility``.
"""

SEM_SEG_HEADS_REGISTRY: Registry[Callable[..., nn.Module]] = Registry("SEM_SEG_HEADS")
"""Heads (``MODEL.SEM_SEG_HEAD.NAME``) and pixel decoders (``.PIXEL_DECODER_NAME``).

Built from ``cfg, input_shape``. A head is called with the dict of feature maps and returns a
``DecoderOutput``; a pixel decoder is called the same way and returns ``PixelFeatures``.
"""

TRANSFORMER_DECODER_REGISTRY: Registry[Callable[..., nn.Module]] = Registry("TRANSFORMER_DECODER")
"""Query decoders, by ``MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME``.

Built from ``cfg``. Called with three feature maps (coarse to fine) and mask features; returns a
``DecoderOutput``.
"""


def build_model(cfg: CfgNode) -> nn.Module:
    """Builds the model of ``MODEL.META_ARCHITECTURE`` with random weights on ``MODEL.DEVICE``.

    Raises:
        UserError: if a name is not registered anywhere, or parts of the config contradict.
    """
    model: nn.Module = construct(_meta_architecture(cfg), cfg)
    if cfg.MODEL.CHANNELS_LAST:
        # Convolutions hand the layout of their weights on to what follows them.
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.to(resolve_device(cfg))


def build_backbone(cfg: CfgNode) -> nn.Module:
    """Builds the backbone of ``MODEL.BACKBONE.NAME``.

    Raises:
        UserError: if the name is not registered.
    """
    name: str = cfg.MODEL.BACKBONE.NAME
    family = name.partition("/")[0]
    registered = name in BACKBONE_REGISTRY or family not in BACKBONE_REGISTRY
    return construct(BACKBONE_REGISTRY.get(name if registered else family), cfg)


def build_sem_seg_head(cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> nn.Module:
    """Builds the head of ``MODEL.SEM_SEG_HEAD.NAME`` for the backbone's feature maps.

    Raises:
        UserError: if the name is not registered or a wanted feature map does not exist.
    """
    return construct(SEM_SEG_HEADS_REGISTRY.get(cfg.MODEL.SEM_SEG_HEAD.NAME), cfg, input_shape)


def build_transformer_decoder(cfg: CfgNode) -> nn.Module:
    """Builds the query decoder of ``MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME``.

    Raises:
        UserError: if the name is not registered.
    """
    name = cfg.MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME
    return construct(TRANSFORMER_DECODER_REGISTRY.get(name), cfg)


def construct(component: Callable[..., Any], cfg: CfgNode, *args: Any) -> Any:
    """Builds a registered component from the config.

    Args:
        component: a class with ``from_config(cfg, *args) -> dict`` of its init arguments, or any
            callable that takes ``cfg, *args`` itself.
        cfg: the whole config.
        args: further positional arguments, such as the input shapes.

    Returns:
        What the component builds.
    """
    from_config = getattr(component, "from_config", None)
    if from_config is None:
        return component(cfg, *args)
    return component(**from_config(cfg, *args))


def check_num_heads(cfg: CfgNode, key: str, width: int) -> None:
    """Checks that the attention heads share a width evenly.

    Args:
        cfg: reads ``MODEL.MASK_FORMER.NHEADS``.
        key: the config key of the width, for the message.
        width: channels that the heads share.

    Raises:
        ConfigError: if they do not.
    """
    num_heads: int = cfg.MODEL.MASK_FORMER.NHEADS
    if num_heads < 1 or width % num_heads:
        raise ConfigError(
            f"MODEL.MASK_FORMER.NHEADS is {num_heads} and {key} {width}: every head takes an equal "
            f"part of the width, so set NHEADS to a divisor of {width}"
        )


def resolve_device(cfg: CfgNode) -> torch.device:
    """Gives the device of ``MODEL.DEVICE``; ``auto`` takes an accelerator if there is one.

    Raises:
        ConfigError: if the device does not exist on this machine.
    """
    name: str = cfg.MODEL.DEVICE
    if name == "auto":
        return _best_device()
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        if reason.startswith(("Expected one of", "Invalid device string")):  # a long list follows
            reason = "torch has no device of that name"
        raise ConfigError(
            f"MODEL.DEVICE {name} is not usable here ({reason}); set MODEL.DEVICE auto or cpu"
        ) from error
    return device


def _meta_architecture(cfg: CfgNode) -> Callable[..., nn.Module]:
    name: str = cfg.MODEL.META_ARCHITECTURE
    try:
        return META_ARCH_REGISTRY.get(name)
    except UserError as error:
        if name != get_cfg().MODEL.META_ARCHITECTURE:
            raise
        # The published default belongs to another library: nobody asked for it.
        known = ", ".join(META_ARCH_REGISTRY.names()) or "none"
        raise ConfigError(
            f"MODEL.META_ARCHITECTURE is not set; set it to the name of a model. Known: {known}"
        ) from error


def _best_device() -> torch.device:
    if hasattr(torch, "accelerator"):
        accelerator = torch.accelerator.current_accelerator()
        found = accelerator is not None and torch.accelerator.is_available()
        return accelerator if accelerator is not None and found else torch.device("cpu")
    # torch before 2.6 has no common name for accelerators.
    if torch.cuda.is_available():
        return torch.device(torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
