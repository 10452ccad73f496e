#!/usr/bin/env python
"""Measures speed and memory beside a peer, each figure as a ratio of one run."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# A checkout works without being installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vidseg.errors import run_command

EXAMPLE = """examples:
  python tools/benchmark.py --list
  python tools/benchmark.py dvis_daq --json output/benchmark.json
  python tools/benchmark.py deformable_480 --repeats 15

cpu counts CPU seconds, its ratio is peer / ours; peak is resident memory, its ratio ours / peer.
Both are medians; the spread is over pairs of neighbouring repetitions. Peers that are no packages
are looked for in $VIDSEG_PEERS. Exit code 1: a ratio misses its bar or a case broke off.
"""


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the command line; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="group or case; all if none")
    parser.add_argument("--list", action="store_true", help="show the cases and leave")
    parser.add_argument("--json", metavar="FILE", help="write figures and samples there")
    parser.add_argument("--repeats", type=_positive, help="repetitions of each side")
    parser.add_argument("--threads", type=_positive, default=1, help="of each side (default 1)")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Runs the cases one after the other and shows their figures."""
    args = parse(argv)
    from benchmarks import catalog, report

    if args.list:
        print(report.format_cases(catalog.groups()))
        return 0
    cases = catalog.select(args.names)
    # Thread pools read these once, when they are loaded; other processes inherit them.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    from benchmarks import session

    return session.run(cases, repeats=args.repeats, json_file=args.json and Path(args.json))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


if __name__ == "__main__":
    run_command(main)
