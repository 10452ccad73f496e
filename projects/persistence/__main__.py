"""Reports on the runs of a folder: ``python -m vidseg.projects.persistence COMMAND``."""

from __future__ import annotations

import argparse

from vidseg.commands import parse_command
from vidseg.errors import run_command

from .commands import report

__all__ = ["main", "parse"]

EXAMPLE = """example:
  python -m vidseg.projects.persistence report --input output/persistence
"""


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the command line; nothing heavy is imported for it."""
    return parse_command(
        argv,
        (report,),
        module="vidseg.projects.persistence",
        description="Which objects stay?",
        example=EXAMPLE,
    )


def main(argv: list[str]) -> int:
    """Runs the command that is named."""
    args = parse(argv)
    code: int = args.run(args)
    return code


if __name__ == "__main__":
    run_command(main)
