"""The table of results that a command ends with."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vidseg.evaluation.base import Evaluator, headline_of

if TYPE_CHECKING:
    from vidseg.config import CfgNode

__all__ = ["format_table", "log_results"]

logger = logging.getLogger(__name__)


def log_results(tables: Mapping[str, Mapping[str, Mapping[str, float]]], cfg: CfgNode) -> None:
    """Shows the main metrics, a table for each data set that has any.

    Args:
        tables: data set to label of the run to its flat metrics.
        cfg: of the run whose evaluators say which metrics these are.
    """
    for name, rows in tables.items():
        if any(rows.values()):
            logger.info("results on %s\n%s", name, format_table(rows, headline_of(cfg, name)))


def format_table(
    rows: Mapping[str, Mapping[str, float]], headline: Sequence[str] = Evaluator.headline
) -> str:
    """Formats the main metrics of one or several runs.

    Args:
        rows: label of the run to its flat metrics.
        headline: which metrics these are, see ``Evaluator``.
    """
    from tabulate import tabulate

    columns = _columns(list(rows.values()), headline)
    labelled = any(rows)
    header = ["run"] * labelled + _titles(columns)
    body = [
        [label] * labelled + [_cell(metrics.get(name)) for name in columns]
        for label, metrics in rows.items()
    ]
    return str(tabulate(body, header, tablefmt="pipe", disable_numparse=True, stralign="right"))


def _columns(rows: Sequence[Mapping[str, float]], headline: Sequence[str]) -> list[str]:
    """Picks the headline metrics if there are any, else whatever there is."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    picked = [name for wanted in headline for name in names if f"/{name}".endswith(f"/{wanted}")]
    return list(dict.fromkeys(picked)) or names[:8]


def _titles(columns: Sequence[str]) -> list[str]:
    """Shortens flat names to ends that tell them apart, all to the same depth."""
    titles = list(columns)
    for parts in range(1, max((name.count("/") for name in columns), default=0) + 2):
        titles = ["/".join(name.split("/")[-parts:]) for name in columns]
        if len(set(titles)) == len(titles):
            break
    return titles


def _cell(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.2f}"
