"""The history of a run in one piece: ``training_history.json`` and ``training_curves.png``.

Both are made of ``metrics.jsonl``, which the run appends to, and of its final metrics. They are
written when a run ends or stops, so they cost nothing while it trains, and a continued run has the
history of all its parts.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vidseg.files import write_atomically

from .curves import save_curves
from .evaluation_hooks import ByDataset, joined
from .writers import METRICS_LINES

__all__ = ["CURVES", "HISTORY", "read_history", "write_history"]

HISTORY, CURVES = "training_history.json", "training_curves.png"

_OF_TRAINING = "lr"  # every line of training tells its learning rate, none of an evaluation does

logger = logging.getLogger(__name__)

Rows = list[dict[str, Any]]


def read_history(directory: Path, iteration: int = -1, metrics: ByDataset | None = None) -> Rows:
    """Gives the lines of ``metrics.jsonl`` in order, damaged ones left out.

    Args:
        directory: the run directory.
        iteration: at which the run ended.
        metrics: what it was evaluated to then; takes the place of an earlier evaluation there.

    Returns:
        Dicts with ``iteration`` and scalars; None stands for what is no number.
    """
    rows = list(_lines(directory / METRICS_LINES))
    if metrics and any(metrics.values()):
        rows = [row for row in rows if is_training(row) or row["iteration"] != iteration]
        values = {
            name: value if math.isfinite(value) else None for name, value in joined(metrics).items()
        }
        rows.append({"iteration": iteration, **values})
    return rows


def is_training(row: dict[str, Any]) -> bool:
    """Tells whether a line is of training, not of an evaluation."""
    return _OF_TRAINING in row


def write_history(
    directory: Path,
    iteration: int = -1,
    metrics: ByDataset | None = None,
    headline: Sequence[str] = (),
) -> None:
    """Writes both files; a full disk is told, and changes nothing else.

    ``training_history.json`` holds two lists, ``training`` and ``evaluation``, of dicts with
    ``iteration`` and everything that was measured then: losses (medians since the line before),
    ``lr``, ``grad_norm``, ``time`` in seconds per iteration, ``max_mem`` in MiB; flat metrics
    (``segm/AP``; with several data sets ``<data set>/segm/AP``).

    Args:
        directory: the run directory.
        iteration: see ``read_history``.
        metrics: see ``read_history``.
        headline: metrics to draw, see ``Evaluator``.
    """
    rows = read_history(directory, iteration, metrics)
    if not rows:
        return
    training = [row for row in rows if is_training(row)]
    evaluation = [row for row in rows if not is_training(row)]
    content = json.dumps({"training": training, "evaluation": evaluation}, indent=1).encode()
    try:
        write_atomically(directory / HISTORY, lambda file: file.write(content))
        save_curves(directory / CURVES, training, evaluation, headline)
    except OSError as error:
        logger.error("the history of the run could not be written (%s)", error)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("iteration"), int):
            yield row
