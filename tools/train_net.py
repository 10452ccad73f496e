#!/usr/bin/env python
"""Trains and evaluates what a config file describes, with all the runs it builds on."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# A checkout works without being installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vidseg.errors import ConfigError, run_command

EXAMPLE = """example:
  python tools/train_net.py --config-file projects/dvis_daq/offline.yaml \\
      OUTPUT_DIR output/mine SOLVER.IMS_PER_BATCH 8 segmenter:SOLVER.MAX_ITER 2000

KEY VALUE pairs override the config of every run of the chain; NAME:KEY VALUE that of NAME.yaml
alone; OUTPUT_DIR, MODEL.WEIGHTS, MODEL.META_ARCHITECTURE and SOLVER.INIT_FROM the last run's.
"""


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the command line; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="F", help="yaml file of the run")
    parser.add_argument("--num-gpus", type=int, default=1, metavar="N", help="processes to start")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--eval-only", action="store_true", help="evaluate, do not train")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="P", help="name, module or path; repeat"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="config overrides")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str]) -> int:
    """Plans the runs, which shows mistakes at once, and carries them out."""
    args = parse(argv)
    if args.num_gpus < 1:
        raise ConfigError(
            f"--num-gpus {args.num_gpus}: a run needs 1 process or more; MODEL.DEVICE cpu trains "
            "without a GPU"
        )
    from vidseg.engine.chain import plan_stages

    stages = plan_stages(args.config_file, args.overrides, args.plugin)
    if args.num_gpus > 1 and "RANK" not in os.environ:
        from vidseg.engine.distributed import launch

        return launch(__file__, argv, args.num_gpus)
    from vidseg.engine.setup import run_stages

    return run_stages(
        stages, resume=args.resume, eval_only=args.eval_only, plugins=tuple(args.plugin)
    )


if __name__ == "__main__":
    run_command(main)
