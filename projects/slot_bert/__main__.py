"""Shows what slots see: ``python -m vidseg.projects.slot_bert COMMAND``."""

from __future__ import annotations

import argparse

from vidseg.commands import parse_command
from vidseg.errors import run_command

from .commands import show

__all__ = ["main", "parse"]

EXAMPLE = """example:
  python -m vidseg.projects.slot_bert show --config-file projects/slot_bert/tiny_cpu.yaml \\
      --input street.mp4 --output output/street
"""


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the command line; nothing heavy is imported for it."""
    return parse_command(
        argv,
        (show,),
        module="vidseg.projects.slot_bert",
        description="Objects in video without labels.",
        example=EXAMPLE,
    )


def main(argv: list[str]) -> int:
    """Runs the command that is named."""
    args = parse(argv)
    code: int = args.run(args)
    return code


if __name__ == "__main__":
    run_command(main)
