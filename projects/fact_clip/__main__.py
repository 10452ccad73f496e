"""Embeds class names, draws timelines, averages runs: ``python -m vidseg.projects.fact_clip``."""

from __future__ import annotations

import argparse

from vidseg.commands import parse_command
from vidseg.errors import run_command

from .commands import average, embed, timeline

__all__ = ["main", "parse"]

EXAMPLE = """example:
  python -m vidseg.projects.fact_clip embed --input classes.txt --output classes.npz \\
      CLIP.text_provider open_clip
"""


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the command line; nothing heavy is imported for it."""
    return parse_command(
        argv,
        (timeline, embed, average),
        module="vidseg.projects.fact_clip",
        description="Temporal action segmentation.",
        example=EXAMPLE,
    )


def main(argv: list[str]) -> int:
    """Runs the command that is named."""
    args = parse(argv)
    code: int = args.run(args)
    return code


if __name__ == "__main__":
    run_command(main)
