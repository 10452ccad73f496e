"""Encodes, decodes, searches and reports: ``python -m vidseg.projects.rqvae COMMAND``."""

from __future__ import annotations

import argparse

from vidseg.errors import run_command

from .commands import decode, encode, report, search

__all__ = ["main", "parse"]

EXAMPLE = """example:
  python -m vidseg.projects.rqvae encode --config-file projects/rqvae/rqvae_sliding_window.yaml \\
      --input features/ --output codes.rqc

Each command has a --help of its own. Exit codes: 0, 1 if data is damaged, 2 if the command is.
"""


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the command line; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(
        prog="python -m vidseg.projects.rqvae",
        description="Documents as discrete codes.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (encode, decode, search, report):
        command.add_parser(commands)
    # Overrides may stand between options, which parsers with commands cannot read by themselves.
    if argv and argv[0] in commands.choices:
        args: argparse.Namespace = commands.choices[argv[0]].parse_intermixed_args(argv[1:])
        return args
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Runs the command that is named."""
    args = parse(argv)
    code: int = args.run(args)
    return code


if __name__ == "__main__":
    run_command(main)
