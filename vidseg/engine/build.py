"""From a config to the objects of a run: model with its first weights, trainer, hooks."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from vidseg.checkpoint import (
    Checkpointer,
    check_complete,
    load_weights,
    naming_of,
    read_state_dict,
)
from vidseg.collectives import gather, is_main, world_size
from vidseg.solver import build_clipper, build_optimizer, build_scheduler

from .ema import EmaHook
from .evaluate import evaluate_model, flatten, forget_videos
from .evaluation_hooks import BestHook, EvaluationHook
from .hooks import CheckpointHook, FittingHook
from .image_conventions import check_image_conventions
from .logging_hooks import LogHook, ProgressBarHook
from .precision import Precision
from .profile_hook import ProfileHook
from .trainer import Trainer
from .writers import open_all

if TYPE_CHECKING:
    from vidseg.config import CfgNode

__all__ = [
    "build_initial_model",
    "build_trainer",
    "configure_torch",
    "resolve_epochs",
    "resolve_seed",
    "scaled",
]

logger = logging.getLogger(__name__)


def configure_torch(cfg: CfgNode) -> None:
    """Applies ``DETERMINISTIC`` and ``CUDNN_BENCHMARK`` to the process."""
    torch.use_deterministic_algorithms(cfg.DETERMINISTIC, warn_only=True)
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK and not cfg.DETERMINISTIC


def resolve_seed(cfg: CfgNode) -> int:
    """Gives ``SEED``, or one drawn at random for all ranks if it is negative."""
    drawn = int(np.random.SeedSequence().generate_state(1)[0])
    return int(cfg.SEED) if cfg.SEED >= 0 else int(gather(drawn)[0])


def build_initial_model(
    cfg: CfgNode, weights: str | Path = "", *, complete: bool = False
) -> nn.Module:
    """Builds the model and gives it the weights that its training starts from.

    Args:
        cfg: reads ``SEED`` and ``MODEL``.
        weights: file to start from; if empty, ``MODEL.WEIGHTS``; if that is empty too, the backbone
            alone is loaded from ``MODEL.BACKBONE.WEIGHTS``.
        complete: refuse a file that lacks whole parts of the model, which training would fill.

    Raises:
        UserError: if the weights cannot be read or lack what they have to give.

    A model that offers ``warm_start(missing)`` is told which parameters the file did not give, so
    that it can start them from parts of its own; so is a backbone that offers ``fill_missing``.
    """
    from vidseg.modeling import build_model

    torch.manual_seed(cfg.SEED)
    model = build_model(cfg)
    backbone: Any = getattr(model, "backbone", None)
    weights = weights or cfg.MODEL.WEIGHTS
    missing = list(model.state_dict())
    if weights:
        report = load_weights(model, weights)
        missing = [*report.missing, *report.mismatched]
        check_image_conventions(cfg, report.naming, weights)
        if complete:
            check_complete(report, model, weights)
        warm_start = getattr(model, "warm_start", None)
        if warm_start is not None:
            warm_start(report.missing)
    elif cfg.MODEL.BACKBONE.WEIGHTS:
        missing = []
        names = read_state_dict(cfg.MODEL.BACKBONE.WEIGHTS)
        check_image_conventions(cfg, naming_of(names), cfg.MODEL.BACKBONE.WEIGHTS)
        load = getattr(backbone, "load_pretrained", None)
        if load is not None:
            load(cfg.MODEL.BACKBONE.WEIGHTS)
        else:
            load_weights(backbone, cfg.MODEL.BACKBONE.WEIGHTS)
    fill = getattr(backbone, "fill_missing", None)
    if fill is not None:
        fill([n.removeprefix("backbone.") for n in missing if n.startswith("backbone.")])
    return model


def build_trainer(cfg: CfgNode, model: nn.Module) -> Trainer:
    """Builds the trainer of a config with all hooks that the config asks for."""
    from vidseg.data import build_train_loader

    optimizer = build_optimizer(cfg, model)
    trainer = Trainer(
        model,
        optimizer,
        build_scheduler(cfg, optimizer),
        lambda start: build_train_loader(cfg, start_iteration=start),
        clip=build_clipper(cfg),
        max_iter=cfg.SOLVER.MAX_ITER,
        precision=Precision.from_config(cfg, next(model.parameters()).device),
        seed=cfg.SEED,
        accumulation=cfg.SOLVER.ACCUMULATION_STEPS,
        max_nan_steps=cfg.SOLVER.MAX_NAN_STEPS,
        log_window=cfg.SOLVER.LOG_PERIOD,
    )
    _add_hooks(cfg, trainer)
    return trainer


def scaled(cfg: CfgNode) -> CfgNode:
    """Fits batch, learning rate and schedule to the number of processes.

    They were written for ``SOLVER.REFERENCE_WORLD_SIZE`` processes; 0 means for any number.
    """
    reference, actual = cfg.SOLVER.REFERENCE_WORLD_SIZE, world_size()
    cfg = cfg.clone()
    cfg.defrost()
    if reference and reference != actual:
        factor = actual / reference
        solver = cfg.SOLVER
        solver.REFERENCE_WORLD_SIZE = actual
        solver.IMS_PER_BATCH = round(solver.IMS_PER_BATCH * factor)
        solver.BASE_LR *= factor
        for key in ("MAX_ITER", "WARMUP_ITERS", "CHECKPOINT_PERIOD"):
            solver[key] = round(solver[key] / factor)
        solver.STEPS = tuple(round(step / factor) for step in solver.STEPS)
        cfg.TEST.EVAL_PERIOD = round(cfg.TEST.EVAL_PERIOD / factor)
        logger.info(
            "scaled from %d to %d processes: IMS_PER_BATCH %d, BASE_LR %g, MAX_ITER %d, STEPS %s",
            reference,
            actual,
            solver.IMS_PER_BATCH,
            solver.BASE_LR,
            solver.MAX_ITER,
            solver.STEPS,
        )
    return cfg


def resolve_epochs(cfg: CfgNode) -> CfgNode:
    """Turns ``SOLVER.MAX_EPOCHS`` and ``SOLVER.EPOCH_STEPS`` into iterations.

    Returns:
        The config itself if it has neither; else a copy in which ``MAX_ITER`` and ``STEPS`` count.

    Raises:
        DataError: if the training sets cannot be read.
    """
    from vidseg.data import iterations_per_epoch

    solver = cfg.SOLVER
    if not solver.MAX_EPOCHS and not solver.EPOCH_STEPS:
        return cfg
    length = iterations_per_epoch(cfg)
    cfg = cfg.clone()
    cfg.defrost()
    if solver.MAX_EPOCHS:
        cfg.SOLVER.MAX_ITER = solver.MAX_EPOCHS * length
    if solver.EPOCH_STEPS:
        cfg.SOLVER.STEPS = tuple(round(epoch * length) for epoch in solver.EPOCH_STEPS)
    cfg.SOLVER.MAX_EPOCHS, cfg.SOLVER.EPOCH_STEPS = 0, ()
    drops = f", STEPS {cfg.SOLVER.STEPS}" if solver.EPOCH_STEPS else ""
    logger.info("iterations per epoch: %d; MAX_ITER %d%s", length, cfg.SOLVER.MAX_ITER, drops)
    return cfg


def _add_hooks(cfg: CfgNode, trainer: Trainer) -> None:
    """Orders the hooks: averages and metrics come before the checkpoint that holds them."""
    directory = Path(cfg.OUTPUT_DIR)
    if cfg.SOLVER.PROFILE.ENABLED and is_main():
        trainer.hooks.append(ProfileHook.from_config(cfg))  # before all that is no training step
    checkpointer = Checkpointer(directory, num_kept=cfg.SOLVER.KEEP_CHECKPOINTS)
    averaged: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    restart = None
    if cfg.SOLVER.EMA.ENABLED:
        ema = EmaHook(trainer.model, cfg.SOLVER.EMA.DECAY)
        averaged, restart = ema.applied, ema.restart
        trainer.hooks.append(ema)
    if hasattr(trainer.model, "at_iteration"):
        from vidseg.data import build_pass_loader

        trainer.hooks.append(FittingHook(lambda: build_pass_loader(cfg), on_refit=restart))
    log = LogHook(
        cfg.SOLVER.LOG_PERIOD,
        lambda start: open_all(cfg.WRITERS, directory, start) if is_main() else [],
    )
    trainer.hooks.append(log)
    best = None
    if cfg.TEST.BEST_METRIC:
        best = BestHook(
            checkpointer,
            cfg.TEST.BEST_METRIC,
            num_kept=cfg.TEST.KEEP_BEST,
            patience=cfg.TEST.PATIENCE,
        )
        trainer.hooks.append(best)
    trainer.hooks.append(
        EvaluationHook(
            lambda: _evaluate_all(cfg, trainer),
            cfg.TEST.EVAL_PERIOD,
            averaged=averaged,
            write=log.write,
            best=best,
        )
    )
    trainer.hooks.append(CheckpointHook(checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD))
    if is_main():
        trainer.hooks.append(ProgressBarHook())


def _evaluate_all(cfg: CfgNode, trainer: Trainer) -> dict[str, dict[str, float]]:
    check = trainer.signals.raise_if_received
    metrics = {
        name: flatten(evaluate_model(cfg, trainer.model, name, cfg.OUTPUT_DIR, before_video=check))
        for name in cfg.DATASETS.TEST
    }
    forget_videos(cfg.OUTPUT_DIR, metrics)
    return metrics
