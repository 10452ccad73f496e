"""Learning-rate schedules as functions of the iteration.

A schedule holds no state: the rate of iteration ``i`` follows from the config and ``i`` alone, so a
resumed run cannot drift and skipped steps do not shift it. Names and formulas are detectron2's.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from vidseg.errors import ConfigError, nearest

if TYPE_CHECKING:
    from vidseg.config import CfgNode

__all__ = ["IterationSchedule", "build_scheduler", "schedule_factor"]

logger = logging.getLogger(__name__)

Factor = Callable[[int], float]


class IterationSchedule:
    """Sets the learning rate of every group to its base rate times a factor of the iteration.

    Args:
        optimizer: its groups' present rates are the base rates.
        factor: iteration (from 0) to multiplier.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, factor: Factor) -> None:
        self.optimizer = optimizer
        self.factor = factor
        self.base_lrs = [float(group["lr"]) for group in optimizer.param_groups]

    def apply(self, iteration: int) -> list[float]:
        """Sets the rates for the given iteration and returns them, one per group."""
        factor = self.factor(iteration)
        rates = [base * factor for base in self.base_lrs]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        return rates


def build_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> IterationSchedule:
    """Builds the schedule named by ``cfg.SOLVER.LR_SCHEDULER_NAME`` around an optimiser.

    Raises:
        ConfigError: if the name or the warm-up method is unknown.
    """
    return IterationSchedule(optimizer, schedule_factor(cfg))


def schedule_factor(cfg: CfgNode) -> Factor:
    """Returns the multiplier of the base learning rate as a function of the iteration.

    Args:
        cfg: reads the schedule keys of ``SOLVER``.

    Raises:
        ConfigError: if the name or the warm-up method is unknown.
    """
    name = cfg.SOLVER.LR_SCHEDULER_NAME
    if name not in _SCHEDULES:
        raise ConfigError(
            f"SOLVER.LR_SCHEDULER_NAME {name!r} is unknown; nearest: "
            f"{', '.join(nearest(name, list(_SCHEDULES)) or _SCHEDULES)}"
        )
    plain = _SCHEDULES[name](cfg)
    if name == "WarmupPolyLR":
        return _multiplied_warmup(cfg, plain)
    return _interpolated_warmup(cfg, plain)


def _multi_step(cfg: CfgNode) -> Factor:
    steps = sorted(step for step in cfg.SOLVER.STEPS if step <= cfg.SOLVER.MAX_ITER)
    if len(steps) < len(cfg.SOLVER.STEPS):
        logger.warning(
            "SOLVER.STEPS %s: those beyond MAX_ITER %d have no effect",
            tuple(cfg.SOLVER.STEPS),
            cfg.SOLVER.MAX_ITER,
        )
    gamma = cfg.SOLVER.GAMMA
    return lambda iteration: gamma ** bisect_right(steps, iteration)


def _fixed_gamma(cfg: CfgNode) -> Factor:
    gamma, pieces, total = cfg.SOLVER.GAMMA, cfg.SOLVER.NUM_DECAYS + 1, cfg.SOLVER.MAX_ITER
    return lambda iteration: gamma ** min(iteration * pieces // total, pieces - 1)


def _cosine(cfg: CfgNode) -> Factor:
    total, end = cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR_END / cfg.SOLVER.BASE_LR
    return lambda iteration: end + (1 - end) * 0.5 * (1 + math.cos(math.pi * iteration / total))


def _poly(cfg: CfgNode) -> Factor:
    total, power = cfg.SOLVER.MAX_ITER, cfg.SOLVER.POLY_LR_POWER
    floor = cfg.SOLVER.POLY_LR_CONSTANT_ENDING
    return lambda iteration: max((1 - min(iteration, total) / total) ** power, floor)


_SCHEDULES: dict[str, Callable[[CfgNode], Factor]] = {
    "WarmupMultiStepLR": _multi_step,
    "WarmupCosineLR": _cosine,
    "WarmupPolyLR": _poly,
    "WarmupStepWithFixedGammaLR": _fixed_gamma,
}


def _interpolated_warmup(cfg: CfgNode, plain: Factor) -> Factor:
    """Rises from ``WARMUP_FACTOR`` times the first rate to the rate of the plain schedule."""
    warmup, total = min(cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.MAX_ITER), cfg.SOLVER.MAX_ITER
    start = cfg.SOLVER.WARMUP_FACTOR * plain(0)
    target = plain(0) if cfg.SOLVER.RESCALE_INTERVAL else plain(warmup)
    ramp = _ramp(cfg)

    def factor(iteration: int) -> float:
        if iteration < warmup:
            share = ramp(iteration / warmup)
            return start + (target - start) * share
        if cfg.SOLVER.RESCALE_INTERVAL and total > warmup:
            return plain(round((iteration - warmup) / (total - warmup) * total))
        return plain(iteration)

    return factor


def _multiplied_warmup(cfg: CfgNode, plain: Factor) -> Factor:
    """DeepLab's form: the plain schedule runs from the start and the warm-up multiplies it."""
    warmup, start, ramp = cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.WARMUP_FACTOR, _ramp(cfg)

    def factor(iteration: int) -> float:
        if iteration >= warmup:
            return plain(iteration)
        return plain(iteration) * (start + (1 - start) * ramp(iteration / warmup))

    return factor


def _ramp(cfg: CfgNode) -> Callable[[float], float]:
    """How far the warm-up has come, as a function of the elapsed share of it."""
    if cfg.SOLVER.WARMUP_METHOD == "linear":
        return lambda share: share
    if cfg.SOLVER.WARMUP_METHOD == "constant":
        return lambda share: 0.0
    raise ConfigError(
        f"SOLVER.WARMUP_METHOD {cfg.SOLVER.WARMUP_METHOD!r} is unknown; choose linear or constant"
    )
