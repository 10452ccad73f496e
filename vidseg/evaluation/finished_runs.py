"""What run directories tell: the config of a run and the metrics that it ended with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vidseg.errors import DataError
from vidseg.files import read_json

__all__ = ["FinishedRun", "read_run"]


@dataclass(frozen=True)
class FinishedRun:
    """What a run directory tells.

    Attributes:
        folder: the run directory.
        config: of the run, by full keys.
        metrics: data set to flat names to values, where defined; empty if it is not finished.
    """

    folder: Path
    config: dict[str, Any]
    metrics: dict[str, dict[str, float]]


def read_run(folder: Path) -> FinishedRun:
    """Reads config and metrics of a run; plugins are not needed for it.

    Args:
        folder: the run directory.

    Raises:
        DataError: if there is no run, or it is damaged.
    """
    path = folder / "config.yaml"
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder} is no run: it has no config.yaml") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(config, dict):
        raise DataError(f"{path} is no config of a run")
    metrics = _read_metrics(folder / "final_metrics.json")
    return FinishedRun(folder, dict(_leaves(config)), metrics)


def _read_metrics(path: Path) -> dict[str, dict[str, float]]:
    if not path.is_file():
        return {}
    content = read_json(path)
    metrics = content.get("metrics") if isinstance(content, dict) else None
    if not isinstance(metrics, dict) or not all(isinstance(f, dict) for f in metrics.values()):
        raise DataError(f"{path} holds no metrics; remove it and give the command of the run again")
    return {
        dataset: {k: float(v) for k, v in flat.items() if isinstance(v, int | float)}
        for dataset, flat in metrics.items()
    }


def _leaves(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
