"""Ablations: a config and variants of it that lack one component each, over several seeds.

Every variant is a config file of its own, as a rule with the config as its ``_BASE_`` and one
change. Each pair of variant and seed is a run like any other, in a folder of its own: finished ones
are recognised, stopped ones continued. Planning imports no torch, so that mistakes show at once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidseg.config.node import leaves
from vidseg.config.source import pair_up
from vidseg.errors import ConfigError, UserError, nearest
from vidseg.files import make_folder

from .ablation_table import Result, Variant, write_tables
from .chain import Stage, plan_stages

if TYPE_CHECKING:
    from vidseg.config import CfgNode

__all__ = ["FOLDER", "AblationError", "Trial", "plan_ablation", "run_ablation"]

FOLDER = "ablation"
"""Name of the folder beside a config that holds its variants."""

_OWN = {"OUTPUT_DIR": "--output", "SEED": "--seeds"}

logger = logging.getLogger(__name__)


class AblationError(UserError):
    """Reports runs that failed; the others are in the table."""

    exit_code = 1


@dataclass(frozen=True)
class Trial:
    """One run of an ablation.

    Attributes:
        variant: what is run.
        seed: of everything random in it.
        stages: of its chain; the last one is what the table tells of.
    """

    variant: Variant
    seed: int
    stages: list[Stage]

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.variant.name}, seed {self.seed}"


def plan_ablation(
    config_file: str,
    *,
    seeds: Sequence[int] = (),
    only: Sequence[str] = (),
    variants: Path | None = None,
    output: Path | None = None,
    overrides: Sequence[str] = (),
    plugins: Sequence[str] = (),
) -> list[Trial]:
    """Loads a config and its variants.

    Args:
        config_file: path of the config that all variants are compared with.
        seeds: of the runs of each variant; by default the one of the config.
        only: names of variants; by default all. The config itself is always among the runs.
        variants: folder of their config files; by default ``ablation/`` beside the config.
        output: folder for ``<variant>/seed_<seed>/``; by default ``ablation`` in the ``OUTPUT_DIR``
            of the config.
        overrides: ``[KEY, VALUE, ...]`` for all runs.
        plugins: names or paths of plugins that the configs need.

    Returns:
        The runs, all of the first seed before those of the second: however far an ablation has
        come, what it compares has had the same seeds.

    Raises:
        ConfigError: for anything wrong in a config or an override, for a variant that changes
            nothing or is tested on other data, and if there is no variant.
    """
    for key, option in _OWN.items():
        if key in (word.rpartition(":")[2] for word, _ in pair_up(overrides)):
            raise ConfigError(f"{key}: an ablation sets it for each of its runs; use {option}")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds {' '.join(map(str, seeds))}: each only once")
    base = plan_stages(config_file, overrides, plugins)[-1]
    files = _variant_files(Path(config_file), variants, only)
    folder = output or base.output_dir / FOLDER
    trials = []
    for seed in seeds or (base.cfg.SEED,):
        for path in (Path(config_file), *files):
            own = ("SEED", str(seed), "OUTPUT_DIR", str(folder / path.stem / f"seed_{seed}"))
            stages = plan_stages(str(path), (*overrides, *own), plugins)
            changes = () if path == Path(config_file) else _changes(base, stages[-1], path)
            trials.append(Trial(Variant(path.stem, changes), seed, stages))
    return trials


def run_ablation(
    trials: Sequence[Trial], folder: Path | None = None, *, plugins: Sequence[str] = ()
) -> int:
    """Brings all runs to their end and writes the tables anew after each.

    ``ablation.md`` holds, for each data set, means and deviations of the headline metrics and the
    difference to the config; ``ablation.csv`` every metric of every run; ``ablation.json`` both.

    Args:
        trials: what ``plan_ablation`` gave.
        folder: for the tables; by default that of all runs.
        plugins: as for ``run_stages``.

    Returns:
        0, or 128 plus the number of the signal that stopped it.

    Raises:
        AblationError: if runs failed; the others are done nevertheless.
        UserError: if a folder holds a run of another config.
    """
    from .run_dir import RunDirectory, describe_differences
    from .setup import run_stages

    folder = folder or tables_folder(trials)
    make_folder(folder, "--output: the folder")
    for trial in trials:
        for stage in trial.stages:
            state = RunDirectory(stage.output_dir).state(stage.cfg)
            if state.differences:
                raise UserError(
                    f"{stage.output_dir} holds a run of another config "
                    f"({describe_differences(state.differences)}); choose another --output, or "
                    "remove it"
                )
    results = [_result(trial) for trial in trials]
    failures = {}
    for index, trial in enumerate(trials):
        print(f"ablation, run {index + 1} of {len(trials)}: {trial.name}", flush=True)
        try:
            code = run_stages(trial.stages, plugins=plugins)
        except UserError as error:
            failures[trial.name] = str(error)
            logger.error("%s failed: %s", trial.name, error)
            results[index] = Result(trial.variant, trial.seed, failure=str(error))
            code = 0
        else:
            results[index] = _result(trial)
        write_tables(folder, results, _headlines(trial.stages[-1].cfg))
        if code:
            return code
    if failures:
        told = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
        raise AblationError(f"{len(failures)} of {len(trials)} runs failed ({told})")
    return 0


def tables_folder(trials: Sequence[Trial]) -> Path:
    """Gives the folder above those of all runs."""
    return trials[0].stages[-1].output_dir.parents[1]


def _variant_files(config: Path, folder: Path | None, only: Sequence[str]) -> list[Path]:
    folder = folder or config.parent / FOLDER
    files = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if not files:
        raise ConfigError(
            f"there are no variants of {config}: {folder} holds no .yaml file; write one for each "
            f"component, with _BASE_: ../{config.name} and what switches it off"
        )
    if config.stem in files:
        raise ConfigError(f"{files[config.stem]} has the name of {config}; rename it")
    for name in only:
        if name not in files:
            guess = ", ".join(nearest(name, files) or files)
            raise ConfigError(f"--only: {folder} holds no variant {name!r}; nearest: {guess}")
    return [files[name] for name in dict.fromkeys(only)] if only else list(files.values())


def _changes(base: Stage, variant: Stage, path: Path) -> tuple[str, ...]:
    """Gives what a variant changes, ``KEY: old -> new``."""
    before, after = _flat(base.cfg), _flat(variant.cfg)
    if before["DATASETS.TEST"] != after["DATASETS.TEST"]:
        raise ConfigError(
            f"{path} is tested on {', '.join(after['DATASETS.TEST'])}, but {base.name} on "
            f"{', '.join(before['DATASETS.TEST'])}; is it a variant of another config?"
        )
    keys = [key for key in after if before.get(key) != after[key] and key not in _OWN]
    if not keys:
        raise ConfigError(f"{path} changes nothing of {base.name}")
    return tuple(f"{key}: {before.get(key)} -> {after[key]}" for key in keys)


def _flat(cfg: CfgNode) -> dict[str, Any]:
    return {key: list(v) if isinstance(v, tuple) else v for key, v in leaves(cfg)}


def _result(trial: Trial) -> Result:
    """Reads what a run has measured, nothing if it is not finished."""
    from .run_dir import RunDirectory

    stage = trial.stages[-1]
    directory = RunDirectory(stage.output_dir)
    trained = directory.state(stage.cfg).trained
    metrics = directory.metrics(trained) if trained >= 0 else {}
    return Result(trial.variant, trial.seed, metrics)


def _headlines(cfg: CfgNode) -> dict[str, tuple[str, ...]]:
    from vidseg.evaluation.base import headline_of

    return {name: headline_of(cfg, name) for name in cfg.DATASETS.TEST}
