"""``average``: the means over splits and seeds of what several runs reached."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidseg.commands import Failures, add_command

if TYPE_CHECKING:
    from ..averaging import Table

__all__ = ["add_parser", "run"]

EXAMPLE = """examples:
  python -m vidseg.projects.fact_clip average --input output/salads50/split1 output/salads50/split2
  python -m vidseg.projects.fact_clip average --input output/salads50 --output output/salads50

The input are run directories (OUTPUT_DIR), folders that hold some, or the metrics.json of single
evaluations (OUTPUT_DIR/inference/<set>/metrics.json). Runs that share all settings make a table: a
row for each split of a data set, and the mean over splits. Written to --output: average.md, and
average.csv with all metrics. A run that is damaged or not finished is named and left out; the exit
code is then 1.
"""


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(commands, "average", "Averages runs over splits and seeds.", EXAMPLE)
    parser.add_argument(
        "--input", required=True, nargs="+", type=Path, metavar="PATH", help="runs, or above them"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="for the two files (none)")
    parser.add_argument(
        "--metrics", nargs="+", default=[], metavar="M", help="to show, as merged/Acc (main ones)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Reads the runs, prints the tables and writes them."""
    from vidseg.errors import DataError
    from vidseg.files import make_folder

    from ..averaging import as_markdown, gather, read_runs, write_average

    failures = Failures("; it is left out")
    tables = gather(read_runs(args.input, failures))
    if not tables:
        raise DataError("--input: there is no finished run to average")
    metrics = args.metrics or _headline()
    if args.metrics:
        _check(args.metrics, tables)
    if args.output:
        make_folder(args.output, "--output: the folder")
        write_average(args.output, tables, metrics)
    print(as_markdown(tables, metrics), end="")
    return failures.exit_code


def _headline() -> tuple[str, ...]:
    from ..evaluator import ActionSegmentationEvaluator

    return ActionSegmentationEvaluator.headline


def _check(metrics: list[str], tables: list[Table]) -> None:
    from vidseg.errors import UserError, nearest

    known = {name for table in tables for name in table.metrics}
    for metric in metrics:
        if metric not in known:
            close = ", ".join(nearest(metric, known)) or ", ".join(sorted(known)[:3])
            raise UserError(f"--metrics: no run has {metric!r}; nearest: {close}")
