"""Encodes, decodes, searches and reports: ``python -m vidseg.projects.rqvae COMMAND``."""

from __future__ import annotations

import argparse

from vidseg.commands import parse_command
from vidseg.errors import run_command

from .commands import decode, encode, report, search

__all__ = ["main", "parse"]

EXAMPLE = """example:
  python -m vidseg.projects.rqvae encode --config-file projects/rqvae/rqvae_sliding_window.yaml \\
      --input features/ --output codes.rqc
"""


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the command line; nothing heavy is imported for it."""
    return parse_command(
        argv,
        (encode, decode, search, report),
        module="vidseg.projects.rqvae",
        description="Documents as discrete codes.",
        example=EXAMPLE,
    )


def main(argv: list[str]) -> int:
    """Runs the command that is named."""
    args = parse(argv)
    code: int = args.run(args)
    return code


if __name__ == "__main__":
    run_command(main)
