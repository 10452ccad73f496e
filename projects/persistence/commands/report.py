"""``report``: one page about all runs below a folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidseg.errors import DataError

__all__ = ["add_parser", "run"]

EXAMPLE = """example:
  python -m vidseg.projects.persistence report --input output/persistence

Written: report.md and report.html, which holds its pictures and can be sent on. Runs that differ in
the seed alone share a row. A damaged run is named and left out; the exit code is then 1.
"""


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "report",
        help="gathers all runs below a folder on one page",
        description="Gathers all runs below a folder on one page.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--input", required=True, type=Path, metavar="DIR", help="holds the runs")
    parser.add_argument("--output", type=Path, metavar="DIR", help="for the page (INPUT/report)")
    parser.add_argument(
        "--clips", type=_count, default=2, metavar="N", help="of a run to show (%(default)s)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Finds the runs and writes the page."""
    from ..run_report import find_runs, write_report

    failures: list[DataError] = []

    def leave_out(error: DataError) -> None:
        failures.append(error)
        print(f"{error.label}: {error}; it is left out", file=sys.stderr, flush=True)

    runs = find_runs(args.input, leave_out)
    page = write_report(runs, args.output or args.input / "report", num_clips=args.clips)
    print(f"{len(runs)} runs -> {page}")
    return 1 if failures else 0


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return number
