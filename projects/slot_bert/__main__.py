"""Shows what slots see: ``python -m vidseg.projects.slot_bert COMMAND``."""

from __future__ import annotations

import argparse

from vidseg.errors import run_command

from .commands import show

__all__ = ["main", "parse"]

EXAMPLE = """example:
  python -m vidseg.projects.slot_bert show --config-file projects/slot_bert/tiny_cpu.yaml \\
      --input street.mp4 --output output/street

Each command has a --help of its own. Exit codes: 0, 1 if data is damaged, 2 if the command is.
"""


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the command line; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(
        prog="python -m vidseg.projects.slot_bert",
        description="Objects in video without labels.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    show.add_parser(commands)
    # Overrides may stand between options, which parsers with commands cannot read by themselves.
    if argv and argv[0] in commands.choices:
        return show.with_overrides(commands.choices[argv[0]].parse_intermixed_args(argv[1:]))
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Runs the command that is named."""
    args = parse(argv)
    code: int = args.run(args)
    return code


if __name__ == "__main__":
    run_command(main)
