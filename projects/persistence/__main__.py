"""Reports on the runs of a folder: ``python -m vidseg.projects.persistence COMMAND``."""

from __future__ import annotations

import argparse

from vidseg.errors import run_command

from .commands import report

__all__ = ["main", "parse"]

EXAMPLE = """example:
  python -m vidseg.projects.persistence report --input output/persistence

Each command has a --help of its own. Exit codes: 0, 1 if data is damaged, 2 if the command is.
"""


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the command line; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(
        prog="python -m vidseg.projects.persistence",
        description="Which objects stay?",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    report.add_parser(commands)
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Runs the command that is named."""
    args = parse(argv)
    code: int = args.run(args)
    return code


if __name__ == "__main__":
    run_command(main)
