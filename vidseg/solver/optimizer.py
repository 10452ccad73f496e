"""Optimisers with one rule per parameter, and gradient clipping.

The rules are those of Mask2Former (Cheng et al., CVPR 2022) and DVIS-DAQ (Zhou et al., ECCV 2024):
backbone parameters learn slower, norms, embeddings and position tables are not decayed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vidseg.errors import ConfigError, nearest

if TYPE_CHECKING:
    from vidseg.config import CfgNode

__all__ = ["ParameterSetting", "build_clipper", "build_optimizer", "parameter_settings"]

NORM_LAYERS = (
    nn.modules.batchnorm._BatchNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
    nn.modules.instancenorm._InstanceNorm,
)
# "pos_embed" is the table of a ViT, and the end of Swin's "absolute_pos_embed".
POSITION_TABLES = ("relative_position_bias_table", "pos_embed")
FUSED_DEVICES = ("cpu", "cuda")
_ADAMS = {"ADAMW": torch.optim.AdamW, "ADAM": torch.optim.Adam}

Clipper = Callable[[Iterable[nn.Parameter]], Tensor]


@dataclass(frozen=True)
class ParameterSetting:
    """Learning rate and weight decay of one trainable parameter."""

    name: str
    parameter: nn.Parameter
    lr: float
    weight_decay: float


def parameter_settings(cfg: CfgNode, model: nn.Module) -> list[ParameterSetting]:
    """Applies the rules of ``cfg.SOLVER`` to every parameter that requires a gradient.

    Args:
        cfg: reads ``BASE_LR``, ``BACKBONE_MULTIPLIER``, ``WEIGHT_DECAY``, ``WEIGHT_DECAY_NORM`` and
            ``WEIGHT_DECAY_EMBED`` of ``SOLVER``.
        model: any module; "backbone" in a module's path marks the backbone.

    Returns:
        One setting per parameter in the order of ``model.modules()``; shared parameters once.
    """
    settings, seen = [], set()
    for path, module in model.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            lr = cfg.SOLVER.BASE_LR
            if "backbone" in path:
                lr *= cfg.SOLVER.BACKBONE_MULTIPLIER
            decay = _weight_decay(cfg, module, leaf)
            settings.append(ParameterSetting(f"{path}.{leaf}".lstrip("."), parameter, lr, decay))
    return settings


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Builds the optimiser named by ``cfg.SOLVER.OPTIMIZER``.

    Parameters of equal learning rate and decay share one group: the update is the same number for
    number, and one fused call replaces hundreds of small ones.

    Args:
        cfg: reads ``SOLVER`` (see :func:`parameter_settings`), ``MOMENTUM`` and ``NESTEROV``.
        model: its parameters must already be on their device.

    Raises:
        ConfigError: if the name is unknown or the model has nothing to train.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for item in parameter_settings(cfg, model):
        groups.setdefault((item.lr, item.weight_decay), []).append(item.parameter)
    if not groups:
        raise ConfigError(
            f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} has no trainable parameter"
        )
    param_groups = [
        {"params": parameters, "lr": lr, "weight_decay": decay}
        for (lr, decay), parameters in groups.items()
    ]
    devices = {p.device.type for parameters in groups.values() for p in parameters}
    fused = devices <= set(FUSED_DEVICES)
    name = cfg.SOLVER.OPTIMIZER.upper()
    if name in _ADAMS:
        return _ADAMS[name](param_groups, lr=cfg.SOLVER.BASE_LR, fused=fused)
    if name == "SGD":
        return torch.optim.SGD(
            param_groups,
            lr=cfg.SOLVER.BASE_LR,
            momentum=cfg.SOLVER.MOMENTUM,
            nesterov=cfg.SOLVER.NESTEROV,
            fused=fused,
        )
    raise _unknown("SOLVER.OPTIMIZER", cfg.SOLVER.OPTIMIZER, (*_ADAMS, "SGD"))


def build_clipper(cfg: CfgNode) -> Clipper:
    """Builds the gradient clipping of ``cfg.SOLVER.CLIP_GRADIENTS``.

    Returns:
        A function that clips the gradients of the given parameters in place and returns their
        global norm before clipping, a scalar tensor. Types: ``full_model`` (one norm over all
        parameters), ``norm`` (each parameter for itself), ``value`` (each element).

    Raises:
        ConfigError: if the type is unknown.
    """
    clip = cfg.SOLVER.CLIP_GRADIENTS
    limit, order = float(clip.CLIP_VALUE), float(clip.NORM_TYPE)
    if not clip.ENABLED:
        return lambda parameters: _global_norm(parameters, order)
    if clip.CLIP_TYPE == "full_model":
        return lambda parameters: nn.utils.clip_grad_norm_(parameters, limit, order)
    if clip.CLIP_TYPE not in ("norm", "value"):
        choices = ("full_model", "norm", "value")
        raise _unknown("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", clip.CLIP_TYPE, choices)

    def clip_each(parameters: Iterable[nn.Parameter]) -> Tensor:
        parameters = list(parameters)
        norm = _global_norm(parameters, order)
        for parameter in parameters:
            if clip.CLIP_TYPE == "norm":
                nn.utils.clip_grad_norm_(parameter, limit, order)
            else:
                nn.utils.clip_grad_value_(parameter, limit)
        return norm

    return clip_each


def _weight_decay(cfg: CfgNode, module: nn.Module, leaf: str) -> float:
    if isinstance(module, nn.Embedding):
        return float(cfg.SOLVER.WEIGHT_DECAY_EMBED)
    if isinstance(module, NORM_LAYERS):
        return float(cfg.SOLVER.WEIGHT_DECAY_NORM)
    undecayed: set[str] = getattr(module, "no_weight_decay", set)()  # the name that timm gave it
    if leaf in undecayed or any(table in leaf for table in POSITION_TABLES):
        return 0.0
    return float(cfg.SOLVER.WEIGHT_DECAY)


def _global_norm(parameters: Iterable[nn.Parameter], order: float) -> Tensor:
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    return torch.linalg.vector_norm(
        torch.stack([torch.linalg.vector_norm(g, order) for g in gradients]), order
    )


def _unknown(key: str, value: str, choices: tuple[str, ...]) -> ConfigError:
    near = nearest(value, choices)
    guess = f" ({', '.join(near)}?)" if near else ""
    return ConfigError(f"{key} {value!r} is unknown; choose from {', '.join(choices)}{guess}")
