"""``report``: one page about all runs below a folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vidseg.commands import Failures, add_command, non_negative

__all__ = ["add_parser", "run"]

EXAMPLE = """example:
  python -m vidseg.projects.persistence report --input output/persistence

Written: report.md and report.html, which holds its pictures and can be sent on. Runs that differ in
the seed alone share a row. A damaged run is named and left out; the exit code is then 1.
"""


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(
        commands, "report", "Gathers all runs below a folder on one page.", EXAMPLE
    )
    parser.add_argument("--input", required=True, type=Path, metavar="DIR", help="holds the runs")
    parser.add_argument("--output", type=Path, metavar="DIR", help="for the page (INPUT/report)")
    parser.add_argument(
        "--clips", type=non_negative, default=2, metavar="N", help="of a run to show (%(default)s)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Finds the runs and writes the page."""
    from ..run_report import find_runs, write_report

    failures = Failures("; it is left out")
    runs = find_runs(args.input, failures)
    page = write_report(runs, args.output or args.input / "report", num_clips=args.clips)
    print(f"{len(runs)} runs -> {page}")
    return failures.exit_code
