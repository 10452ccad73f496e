"""Chained runs: which configs must be trained before which, and what each of them is told.

``SOLVER.INIT_FROM`` names the config whose result a run starts from. Nothing here imports torch,
so that mistakes in a config show at once.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vidseg.config.source import pair_up
from vidseg.errors import ConfigError, nearest

if TYPE_CHECKING:
    from vidseg.config import CfgNode

__all__ = ["Stage", "plan_stages"]

# What makes a stage this stage: given without a stage name, these go to the last stage alone.
_OWN_KEYS = ("OUTPUT_DIR", "MODEL.WEIGHTS", "MODEL.META_ARCHITECTURE", "SOLVER.INIT_FROM")
# Numbers below these have no meaning; without iterations a run only evaluates.
_SMALLEST = {
    "DATALOADER.MAX_ATTEMPTS": 1,
    "SOLVER.MAX_ITER": 0,
    "SOLVER.MAX_EPOCHS": 0,
    "SOLVER.IMS_PER_BATCH": 1,
    "SOLVER.ACCUMULATION_STEPS": 1,
    "INPUT.SAMPLING_FRAME_NUM": 1,
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 1,
    "MODEL.MASK_FORMER.TEST.WINDOW_SIZE": 1,
}
_ADDRESSED = re.compile(r"([\w.-]+):([A-Z].*)")


@dataclass(frozen=True)
class Stage:
    """One run of a chain.

    Attributes:
        name: stem of its config file, by which overrides address it.
        cfg: its resolved config.
    """

    name: str
    cfg: CfgNode

    @property
    def output_dir(self) -> Path:
        """Its run directory."""
        return Path(self.cfg.OUTPUT_DIR)


def plan_stages(
    config_file: str, overrides: Sequence[str] = (), plugins: Sequence[str] = ()
) -> list[Stage]:
    """Loads a config and all those it builds on.

    Overrides go to every stage, except ``OUTPUT_DIR``, ``MODEL.WEIGHTS``,
    ``MODEL.META_ARCHITECTURE`` and ``SOLVER.INIT_FROM``, which go to the last one. ``NAME:KEY``
    addresses the stage whose config is ``NAME.yaml``. With ``OUTPUT_DIR`` given, earlier stages
    write to the folder of their name below it.

    Args:
        config_file: path of the last stage's config.
        overrides: ``[KEY, VALUE, ...]``.
        plugins: names or paths of plugins that the configs need.

    Returns:
        The stages in the order of training; one, if the config does not build on another.

    Raises:
        ConfigError: for anything wrong in one of the configs or overrides.
    """
    pairs = _pairs(overrides)
    stages: list[Stage] = []
    pending, seen = config_file, set()
    while pending:
        path = Path(pending)
        if path.resolve() in seen:
            raise ConfigError(f"SOLVER.INIT_FROM of {pending} leads back to itself")
        seen.add(path.resolve())
        if stages and not path.is_file():
            raise ConfigError(
                f"SOLVER.INIT_FROM of {stages[0].name} names {pending}, which does not exist; give "
                "MODEL.WEIGHTS instead, or the path of a config"
            )
        stage = _load(path, pairs, plugins, is_last=not stages)
        stages.insert(0, stage)
        pending = "" if stage.cfg.MODEL.WEIGHTS else stage.cfg.SOLVER.INIT_FROM
    _check_addresses(pairs, stages)
    _check_directories(stages)
    return stages


def _load(
    path: Path, pairs: list[tuple[str, str, str]], plugins: Sequence[str], *, is_last: bool
) -> Stage:
    from vidseg.config import load_config

    name = path.stem
    words: list[str] = []
    for stage, key, value in pairs:
        if stage == name or (not stage and (is_last or key not in _OWN_KEYS)):
            words += [key, value]
        elif not stage and key == "OUTPUT_DIR":
            words += [key, str(Path(value) / name)]
    cfg = load_config(path, overrides=words, plugins=plugins)
    cfg.freeze()
    _check_keys(cfg, name)
    return Stage(name, cfg)


def _check_keys(cfg: CfgNode, name: str) -> None:
    """Refuses keys that make no sense or have no effect, before hours of training show it."""
    for key, smallest in _SMALLEST.items():
        value = functools.reduce(getattr, key.split("."), cfg)
        if value < smallest:
            raise ConfigError(f"{key} of {name} is {value}; set {smallest} or more")
    if cfg.TEST.PATIENCE > 0 and not cfg.TEST.BEST_METRIC:
        raise ConfigError("TEST.PATIENCE needs TEST.BEST_METRIC, e.g. segm/AP")
    if cfg.TEST.BEST_METRIC and cfg.TEST.EVAL_PERIOD <= 0:
        raise ConfigError("TEST.BEST_METRIC needs a TEST.EVAL_PERIOD above 0")


def _pairs(overrides: Sequence[str]) -> list[tuple[str, str, str]]:
    """Splits ``[STAGE:]KEY VALUE`` words; those for a stage come last and so win."""
    pairs = []
    for word, value in pair_up(overrides):
        match = _ADDRESSED.fullmatch(word)
        stage, key = match.groups() if match else ("", word)
        pairs.append((stage, key, value))
    return sorted(pairs, key=lambda pair: bool(pair[0]))


def _check_addresses(pairs: list[tuple[str, str, str]], stages: list[Stage]) -> None:
    names = [stage.name for stage in stages]
    for stage, key, _ in pairs:
        if stage and stage not in names:
            guess = ", ".join(nearest(stage, names) or names)
            raise ConfigError(f"{stage}:{key}: there is no stage {stage!r}; nearest: {guess}")


def _check_directories(stages: list[Stage]) -> None:
    taken: dict[Path, str] = {}
    for stage in stages:
        other = taken.setdefault(stage.output_dir.resolve(), stage.name)
        if other != stage.name:
            raise ConfigError(
                f"OUTPUT_DIR {stage.output_dir} is used by {other} and by {stage.name}; "
                "each stage needs its own"
            )
