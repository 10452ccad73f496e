"""Running stages: decides what each run directory needs, trains, evaluates, reports.

A run directory that holds a run of the same config is continued where it stopped, finished or not,
so a command can simply be given again; one of another config is left alone unless ``--resume``.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vidseg import plugins as plugin_finder
from vidseg.collectives import barrier, is_main
from vidseg.errors import ConfigError, DataError, UserError
from vidseg.evaluation.base import headline_of
from vidseg.files import make_folder
from vidseg.host_memory import keep_freed_memory

from .build import (
    build_initial_model,
    build_trainer,
    configure_torch,
    resolve_epochs,
    resolve_seed,
    scaled,
)
from .chain import Stage
from .data_checks import check_feature_dim, check_test_folders, check_test_sets
from .distributed import local_rank, process_group
from .ema import EmaHook
from .evaluate import (
    check_expected,
    check_whole,
    evaluate_model,
    flatten,
    forget_videos,
    is_incomplete,
)
from .evaluation_hooks import EvaluationHook
from .history import CURVES, HISTORY, write_history
from .overlay import can_draw, write_overlay
from .report import describe_data, describe_environment, describe_model, log_to
from .results_table import log_results
from .run_dir import RunDirectory, RunState, describe_differences, locked
from .signals import Interrupted, StopSignals

if TYPE_CHECKING:
    from torch import nn

    from vidseg.config import CfgNode

    from .trainer import Trainer

__all__ = ["run_stages"]

logger = logging.getLogger(__name__)


def run_stages(
    stages: Sequence[Stage],
    *,
    resume: bool = False,
    eval_only: bool = False,
    plugins: Sequence[str] = (),
) -> int:
    """Trains and evaluates a chain, or evaluates its last stage.

    Args:
        stages: in the order of training.
        resume: continue a run whose config has changed since.
        eval_only: evaluate the last stage's weights and train nothing.
        plugins: loaded with all their components, so that they may register data sets too.

    Returns:
        0, or 128 plus the number of the signal that stopped it.

    Raises:
        UserError: if a run directory holds another run, or anything the user gave is wrong; also
            if damaged videos were left out of an evaluation, after everything else is done.
    """
    from vidseg.modeling import resolve_device

    _load_plugins(plugins)
    device = resolve_device(stages[-1].cfg)
    if device.type == "cuda" and device.index is None:
        torch.cuda.set_device(local_rank())
    if device.type == "cpu":
        keep_freed_memory()
    with process_group(device):
        try:
            if eval_only:
                _evaluate_only(stages[-1])
            else:
                _train_chain(stages, resume=resume)
        except Interrupted as stop:
            return stop.exit_code
    return 0


def _load_plugins(wanted: Sequence[str]) -> None:
    modules = {plugin_finder.load(name).__name__ for name in wanted}
    names = [name for name, spec in plugin_finder.discover().items() if spec.module in modules]
    plugin_finder.load_components(names)


def _train_chain(stages: Sequence[Stage], *, resume: bool) -> None:
    stages = [replace(stage, cfg=_in_iterations(stage)) for stage in stages]
    states = [RunDirectory(stage.output_dir).state(stage.cfg) for stage in stages]
    _check_states(stages, states, resume=resume)
    unfinished = [stage for stage, state in zip(stages, states, strict=True) if state.trained < 0]
    _check_data(unfinished)
    _check_models(unfinished)
    for stage in stages:
        make_folder(stage.output_dir, "OUTPUT_DIR")
    barrier()  # nobody writes before everybody has looked
    weights = ""
    measured: list[tuple[Path, dict[str, dict[str, float]]]] = []
    for stage, state in zip(stages, states, strict=True):
        with _held(stage.output_dir), log_to(stage.output_dir):
            metrics = _run_stage(stage, state, weights, is_last=stage is stages[-1])
            if stage is stages[-1]:
                _report_chain(stages)
        weights = str(RunDirectory(stage.output_dir).checkpointer.final_path)
        measured.append((stage.output_dir, metrics))
    for output_dir, metrics in measured if is_main() else ():
        check_whole(output_dir, metrics)


def _in_iterations(stage: Stage) -> CfgNode:
    with _naming(stage), log_to(None):
        return resolve_epochs(scaled(stage.cfg))


def _check_states(stages: Sequence[Stage], states: Sequence[RunState], *, resume: bool) -> None:
    """Refuses, before anything is trained, what would mix different runs."""
    unfinished = ""
    for stage, state in zip(stages, states, strict=True):
        if state.differences and not resume:
            raise UserError(
                f"{stage.output_dir} holds a run of another config "
                f"({describe_differences(state.differences)}); use --resume to continue it with "
                "this one, choose another OUTPUT_DIR, or remove it"
            )
        if unfinished and state.exists:
            raise UserError(
                f"{stage.output_dir} was started from {unfinished}, which is not finished; "
                f"remove {stage.output_dir} to train it anew, or give MODEL.WEIGHTS"
            )
        if state.trained < 0:
            unfinished = str(stage.output_dir)


def _check_data(unfinished: Sequence[Stage]) -> None:
    """Looks at all data sets before models are built, and long before the last one is needed.

    Files that are given by path are read; those of known data sets only have to be there.
    """
    from vidseg.data import DatasetCatalog, check_mappers, check_num_classes, is_path

    for stage in unfinished:
        with _naming(stage):
            node = stage.cfg.DATASETS
            for name in (*node.TRAIN, *node.TEST):
                DatasetCatalog.require(name)
                if name in node.TRAIN and is_path(name):
                    DatasetCatalog.get(name)  # training does not do without a frame
                check_feature_dim(stage.cfg, name)
                if not any(node.DATASET_NEED_MAP):  # else training has fewer classes than its data
                    check_num_classes(stage.cfg, name)
            check_test_folders(stage.cfg)
            check_mappers(stage.cfg)


def _check_models(unfinished: Sequence[Stage]) -> None:
    """Builds what later stages will train, so that their mistakes show before the first step."""
    from vidseg.modeling import build_model

    with torch.random.fork_rng(devices=[]):
        for stage in unfinished[1:]:  # the first is built next anyway
            cfg = stage.cfg.clone()
            cfg.MODEL.DEVICE = "cpu"
            with _naming(stage):
                build_model(cfg)


@contextlib.contextmanager
def _naming(stage: Stage) -> Iterator[None]:
    """Puts the name of the stage before what is wrong with it."""
    try:
        yield
    except UserError as error:
        error.args = (f"{stage.name}: {error}",)
        raise


def _run_stage(
    stage: Stage, state: RunState, weights: str, *, is_last: bool
) -> dict[str, dict[str, float]]:
    """Brings one stage to its end: trained and evaluated; gives its metrics by data set."""
    directory = RunDirectory(stage.output_dir)
    cfg = stage.cfg.clone()
    cfg.SEED = resolve_seed(cfg)
    configure_torch(cfg)
    model: nn.Module | None = None
    if state.trained >= 0:
        logger.info(
            "%s: %s is finished at iteration %d of %d, nothing to do; to train anew, choose "
            "another OUTPUT_DIR or remove it",
            stage.name,
            stage.output_dir,
            state.trained,
            cfg.SOLVER.MAX_ITER,
        )
        iteration = state.trained
    else:
        _announce(stage, state)
        model = build_initial_model(cfg, weights)
        try:
            iteration = _train(stage, cfg, model)
        except BaseException:  # a signal or a loss that is no number: what went before is of use
            _write_history(stage)
            raise
    metrics = directory.metrics(iteration)
    if state.trained >= 0:  # the videos may have been repaired since
        metrics = {name: flat for name, flat in metrics.items() if not is_incomplete(flat)}
    missing = [name for name in cfg.DATASETS.TEST if name not in metrics]
    shows = is_last and bool(cfg.DATASETS.TEST) and can_draw(cfg.DATASETS.TEST[0])
    if missing or (shows and not _overlays(stage)):
        model = model or build_initial_model(cfg, directory.checkpointer.final_path)
        for name in missing:
            metrics[name] = _evaluate(cfg, model, name)
            if is_main():
                directory.write_metrics(iteration, metrics)
            forget_videos(cfg.OUTPUT_DIR, {name: metrics[name]})
        if shows and is_main():
            write_overlay(cfg, model, cfg.DATASETS.TEST[0], stage.output_dir)
    metrics = {name: metrics.get(name, {}) for name in cfg.DATASETS.TEST}
    told = all((stage.output_dir / name).is_file() for name in (HISTORY, CURVES))
    if missing or state.trained < 0 or not told:
        _write_history(stage, iteration, metrics)
    if is_main():
        check_expected(cfg, metrics)
    return metrics


def _write_history(
    stage: Stage, iteration: int = -1, metrics: dict[str, dict[str, float]] | None = None
) -> None:
    if is_main():
        names = stage.cfg.DATASETS.TEST
        headline = dict.fromkeys(end for name in names for end in headline_of(stage.cfg, name))
        write_history(stage.output_dir, iteration, metrics, tuple(headline))


def _train(stage: Stage, cfg: Any, model: nn.Module) -> int:
    """Trains to the end and leaves the final weights in the model; returns the iteration."""
    directory = RunDirectory(stage.output_dir)
    logger.info(describe_environment(next(model.parameters()).device))
    logger.info(describe_model(cfg.MODEL.META_ARCHITECTURE, model))
    logger.info("data sets\n%s", describe_data(cfg))
    trainer = build_trainer(cfg, model)
    _restore(directory, trainer)
    cfg.SEED = trainer.seed
    if is_main():
        directory.forget_result()
        directory.write_config(stage.cfg)
    barrier()
    metrics: dict[str, dict[str, float]] = {}
    trainer.train()
    if trainer.stop_reason == "signal":
        number = trainer.signals.received or 15
        logger.warning(
            "stopped at iteration %d of %d; the same command goes on from there",
            trainer.iteration,
            trainer.max_iter,
        )
        raise Interrupted(number)
    for hook in trainer.hooks:
        if isinstance(hook, EmaHook):
            hook.keep()
        if isinstance(hook, EvaluationHook) and hook.evaluated_at == trainer.iteration:
            metrics = hook.latest
    if is_main():
        if metrics:
            directory.write_metrics(trainer.iteration, metrics)
        content = {
            "model": model.state_dict(),
            "iteration": trainer.iteration,
            "stop_reason": trainer.stop_reason,
        }
        path = directory.checkpointer.save(directory.checkpointer.final_path.name, content)
        logger.info("%s: trained, weights in %s", stage.name, path)
    barrier()
    return trainer.iteration


def _restore(directory: RunDirectory, trainer: Trainer) -> None:
    """Continues from the newest sound checkpoint, if there is one."""
    found = directory.checkpointer.load_newest()
    if found is None:
        logger.info("training from iteration 0 to %d", trainer.max_iter)
        return
    path, state = found
    try:
        trainer.load_state_dict(state)
    except DataError as error:
        raise DataError(
            f"{path}: {error}; choose another OUTPUT_DIR or remove {directory.path}"
        ) from error
    logger.info("resuming from %s: iteration %d to %d", path, trainer.iteration, trainer.max_iter)


def _announce(stage: Stage, state: RunState) -> None:
    if state.differences:
        logger.warning(
            "the config has changed since this run began: %s",
            describe_differences(state.differences),
        )
    elif state.exists:
        logger.info("%s: continuing the run in %s", stage.name, stage.output_dir)
    elif _is_occupied(stage.output_dir):
        logger.warning(
            "OUTPUT_DIR %s exists already; its files are kept or overwritten", stage.output_dir
        )


def _is_occupied(directory: Path) -> bool:
    own = ("log.txt", ".lock")
    return any(path.is_file() and path.name not in own for path in directory.iterdir())


def _evaluate_only(stage: Stage) -> None:
    from vidseg.data import check_mappers

    cfg = scaled(stage.cfg)
    cfg.SEED = resolve_seed(cfg)
    configure_torch(cfg)
    if not cfg.DATASETS.TEST:
        raise ConfigError("--eval-only: DATASETS.TEST is empty; name a data set or a json file")
    checkpointer = RunDirectory(stage.output_dir).checkpointer
    weights = cfg.MODEL.WEIGHTS or str(checkpointer.final_path)
    if not cfg.MODEL.WEIGHTS and not checkpointer.final_path.is_file():
        raise UserError(
            f"--eval-only: there are no weights; {weights} does not exist, give MODEL.WEIGHTS FILE"
        )
    with log_to(stage.output_dir):
        check_test_sets(cfg)
        check_mappers(cfg)
        model = build_initial_model(cfg, weights, complete=True)
        logger.info(describe_environment(next(model.parameters()).device))
        logger.info(describe_model(cfg.MODEL.META_ARCHITECTURE, model))
        metrics = {name: _evaluate(cfg, model, name) for name in cfg.DATASETS.TEST}
        forget_videos(cfg.OUTPUT_DIR, metrics)
        if is_main():
            log_results({name: {stage.name: flat} for name, flat in metrics.items()}, cfg)
            check_whole(cfg.OUTPUT_DIR, metrics)
            check_expected(cfg, metrics)


def _evaluate(cfg: Any, model: nn.Module, dataset: str) -> dict[str, float]:
    """Evaluates on one data set; a signal ends it between two videos."""
    with StopSignals() as signals:
        check = signals.raise_if_received
        try:
            return flatten(evaluate_model(cfg, model, dataset, cfg.OUTPUT_DIR, before_video=check))
        except Interrupted:
            logger.warning("evaluation on %s was stopped; the same command goes on", dataset)
            raise


def _report_chain(stages: Sequence[Stage]) -> None:
    """Shows the stored metrics of all stages, a table for each data set."""
    if not is_main():
        return
    tables: dict[str, dict[str, dict[str, float]]] = {}
    for stage in stages:
        directory = RunDirectory(stage.output_dir)
        for name, metrics in directory.metrics(directory.state(stage.cfg).trained).items():
            tables.setdefault(name, {})[stage.name] = metrics
    log_results(tables, stages[-1].cfg)
    for path in _overlays(stages[-1]):
        logger.info("overlay video: %s", path)


def _overlays(stage: Stage) -> list[Path]:
    return sorted(stage.output_dir.glob("inference/*/overlay_*.mp4"))


def _held(directory: Path) -> contextlib.AbstractContextManager[None]:
    return locked(directory) if is_main() else contextlib.nullcontext()
