#!/usr/bin/env python
"""Trains a config and variants of it that lack one component each, and writes one table."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

# A checkout works without being installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vidseg.errors import run_command

EXAMPLE = """examples:
  python tools/ablation.py --config-file projects/persistence/same.yaml --seeds 42 43 44
  python tools/ablation.py --config-file projects/persistence/same.yaml \\
      --only no_null_key no_motion SOLVER.MAX_ITER 500

The variants are the yaml files of ablation/ beside the config. Each is trained once per seed, in
DIR/<variant>/seed_<seed>; the config itself always is, too. The same command goes on where it was
stopped and repeats nothing. Written: DIR/ablation.md, ablation.csv and ablation.json.
"""


_KEY = re.compile(r"([\w.-]+:)?[A-Z][A-Z_]*(\.\w+)*")


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the command line; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="F", help="the complete config")
    parser.add_argument(
        "--seeds", nargs="+", default=[], metavar="N", help="of the runs (the one of the config)"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="variants (all)")
    parser.add_argument(
        "--variants", type=Path, metavar="DIR", help="of their yaml files (ablation/ beside F)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="for runs and tables (OUTPUT_DIR/ablation)"
    )
    parser.add_argument("--list", action="store_true", help="show what would be run and leave")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="P", help="name, module or path; repeat"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="config overrides")
    args = parser.parse_intermixed_args(argv)
    # Both lists take any number of words, so KEY VALUE pairs after them end up there.
    for words in (args.seeds, args.only):
        end = next((i for i, word in enumerate(words) if _KEY.fullmatch(word)), len(words))
        args.overrides = [*words[end:], *args.overrides]
        del words[end:]
    for word in args.seeds:
        if not word.isdecimal():
            parser.error(f"--seeds: {word!r} is no seed; give numbers from 0 on")
    args.seeds = list(map(int, args.seeds))
    return args


def main(argv: list[str]) -> int:
    """Plans the runs, which shows mistakes at once, carries them out and shows the table."""
    args = parse(argv)
    from vidseg.engine.ablation import plan_ablation, run_ablation, tables_folder

    trials = plan_ablation(
        args.config_file,
        seeds=args.seeds,
        only=args.only,
        variants=args.variants,
        output=args.output,
        overrides=args.overrides,
        plugins=args.plugin,
    )
    if args.list:
        for trial in trials:
            print(f"{trial.name}: {'; '.join(trial.variant.changes) or 'complete'}")
        return 0
    try:
        return run_ablation(trials, plugins=args.plugin)
    finally:
        page = tables_folder(trials) / "ablation.md"
        if page.is_file():
            print(f"\n{page.read_text()}\n-> {page}")


if __name__ == "__main__":
    run_command(main)
