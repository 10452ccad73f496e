"""The run directory: whose it is, how far the run in it has come, and what it measured."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import yaml

from vidseg.checkpoint import Checkpointer
from vidseg.checkpoint.files import read_checkpoint
from vidseg.config import get_cfg
from vidseg.errors import DataError, UserError
from vidseg.files import make_folder, remove_stale_drafts, write_atomically

if TYPE_CHECKING:
    from vidseg.config import CfgNode

__all__ = ["RunDirectory", "RunState", "describe_differences", "flat_config", "locked"]

logger = logging.getLogger(__name__)

CONFIG_NAME = "config.yaml"
METRICS_NAME = "final_metrics.json"
_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it is built
# Two runs that differ in these alone are the same run.
_HARMLESS = (
    "OUTPUT_DIR",
    "DATALOADER.MAX_ATTEMPTS",
    "DATALOADER.NUM_WORKERS",
    "DATASETS.TEST",
    "DATASETS.DATASET_TYPE_TEST",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.INIT_FROM",
    "SOLVER.KEEP_CHECKPOINTS",
    "SOLVER.LOG_PERIOD",
    "SOLVER.PROFILE.ENABLED",
    "SOLVER.PROFILE.NUM_ITERS",
    "SOLVER.PROFILE.START_ITER",
    "TEST.EXPECTED_RESULTS",
    "WRITERS",
)
_NUM_SHOWN = 4


@dataclass(frozen=True)
class RunState:
    """How far a run has come.

    Attributes:
        exists: whether a run was ever started here.
        trained: iterations of the finished run, -1 if it is not finished.
        differences: keys whose values differ from the run's, ``KEY: old -> new``.
    """

    exists: bool
    trained: int
    differences: tuple[str, ...]


class RunDirectory:
    """Reads and writes what stands in ``OUTPUT_DIR`` besides checkpoints."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpointer = Checkpointer(self.path)

    def state(self, cfg: CfgNode) -> RunState:
        """Compares what is here with what the config asks for."""
        config = self.path / CONFIG_NAME
        exists = config.is_file() or self.checkpointer.has_checkpoint()
        differences: tuple[str, ...] = ()
        if config.is_file():
            stored = _read_config(config)
            differences = (f"{CONFIG_NAME} is damaged",)
            if stored:
                differences = _differences(_flat(stored), flat_config(cfg))
        return RunState(exists, self._trained(cfg), differences)

    def write_config(self, cfg: CfgNode) -> None:
        """Saves the resolved config."""
        self.path.mkdir(parents=True, exist_ok=True)
        text = cfg.dump().encode()
        write_atomically(self.path / CONFIG_NAME, lambda file: file.write(text))

    def metrics(self, iteration: int) -> dict[str, dict[str, float]]:
        """Gives the stored metrics of the finished run: data set to flat names to values."""
        try:
            stored = json.loads((self.path / METRICS_NAME).read_text())
            metrics = stored["metrics"] if stored["iteration"] == iteration else {}
            return {
                name: {k: math.nan if v is None else v for k, v in flat.items()}
                for name, flat in metrics.items()
            }
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def write_metrics(self, iteration: int, metrics: dict[str, dict[str, float]]) -> None:
        """Stores the metrics of the finished run."""
        # JSON knows no nan.
        rows = {
            name: {key: None if math.isnan(value) else value for key, value in flat.items()}
            for name, flat in metrics.items()
        }
        content = json.dumps({"iteration": iteration, "metrics": rows}, indent=2).encode()
        write_atomically(self.path / METRICS_NAME, lambda file: file.write(content))

    def forget_result(self) -> None:
        """Removes the result of an earlier run that is now being continued."""
        for path in (self.path / METRICS_NAME, self.checkpointer.final_path):
            path.unlink(missing_ok=True)

    def _trained(self, cfg: CfgNode) -> int:
        if not self.checkpointer.final_path.is_file():
            return -1
        try:
            final = read_checkpoint(self.checkpointer.final_path, is_own=True)
            iteration = int(final["iteration"])
            complete = iteration >= cfg.SOLVER.MAX_ITER or final["stop_reason"] == "patience"
        except (DataError, KeyError, TypeError, ValueError) as error:
            logger.warning("%s is not used: %s", self.checkpointer.final_path, error)
            return -1
        return iteration if complete else -1


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a run directory for this process; the system lets go of it when the process dies.

    Raises:
        UserError: if another process holds it, or it cannot be made or written to.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    make_folder(path, "OUTPUT_DIR")
    with _open_lock(path) as file:
        try:
            # Not flock: loader workers would inherit that lock and outlive a killed run with it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise UserError(
                f"process {file.read().strip() or '?'} is already running in {path}; wait for it "
                "or choose another OUTPUT_DIR"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        remove_stale_drafts(path)
        yield


def _open_lock(path: Path) -> TextIO:
    try:
        return open(path / ".lock", "a+")
    except OSError as error:
        raise UserError(
            f"OUTPUT_DIR {path} cannot be written to ({error.strerror}); choose another folder"
        ) from error


def describe_differences(differences: tuple[str, ...]) -> str:
    """Lists the first few differing keys."""
    more = len(differences) - _NUM_SHOWN
    tail = f" and {more} more" if more > 0 else ""
    return "; ".join(differences[:_NUM_SHOWN]) + tail


def _read_config(path: Path) -> dict[str, Any]:
    """Reads a stored config; empty if it is damaged."""
    try:
        content = yaml.load(path.read_text(), _YAML_LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _differences(old: dict[str, Any], new: dict[str, Any]) -> tuple[str, ...]:
    """Compares two flat configs; a key that one of them lacks counts with its default."""
    defaults = flat_config(get_cfg())
    found = []
    for key in sorted(old.keys() | new.keys()):
        before = old.get(key, defaults.get(key, new.get(key)))
        after = new.get(key, defaults.get(key, old.get(key)))
        if key not in _HARMLESS and before != after:
            found.append(f"{key}: {before} -> {after}")
    return tuple(found)


def flat_config(cfg: CfgNode) -> dict[str, Any]:
    """Gives every value of a config by its full key, as plain json."""
    return _flat(cfg)


def _flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = _plain(value)
    return flat


def _plain(value: Any) -> Any:
    """Gives a value as a file of json or yaml gives it back."""
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
