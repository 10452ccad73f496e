#!/usr/bin/env python
"""Scores prediction files against annotations; no model is needed."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

# A checkout works without being installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vidseg.errors import run_command

EXAMPLE = """example:
  python tools/evaluate.py ytvis --gt valid.json --results results.json --output metrics.json
"""
YTVIS_EXAMPLE = """examples:
  python tools/evaluate.py ytvis --gt valid.json --results results.json
  python tools/evaluate.py ytvis --gt valid.json --results results.json --ovis --out eval

--out DIR receives metrics.json (percent), per_class.csv and results.zip for the servers.
"""


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the command line; nothing heavy is imported for it."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True, metavar="METRIC")
    ytvis = commands.add_parser(
        "ytvis",
        help="YouTube-VIS AP and AR, OVIS occlusion levels",
        description="Scores tracks by YouTube-VIS AP and AR, as the official evaluator does.",
        epilog=YTVIS_EXAMPLE,
        formatter_class=raw,
    )
    ytvis.add_argument("--gt", required=True, metavar="FILE", help="annotations, YouTube-VIS json")
    ytvis.add_argument("--results", required=True, metavar="FILE", help="predicted tracks, json")
    ytvis.add_argument("--output", metavar="FILE", help="write the metrics there (json, percent)")
    ytvis.add_argument("--out", metavar="DIR", help="write all files of a report there")
    ytvis.add_argument("--ovis", action="store_true", help="add the occlusion levels of OVIS")
    ytvis.add_argument("--class-agnostic", action="store_true", help="merge all classes into one")
    ytvis.add_argument(
        "--per-class", action="store_true", help="put the AP of every class into the metrics"
    )
    ytvis.add_argument(
        "--strict",
        action="store_true",
        help="repeat the official evaluator's fault with annotation id 0",
    )
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Scores, prints and writes."""
    args = parse(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    from vidseg.evaluation import report, score_ytvis

    scores = score_ytvis(
        args.gt,
        args.results,
        class_agnostic=args.class_agnostic,
        occlusion=args.ovis,
        strict=args.strict,
    )
    print(report.format_scores(scores))
    metrics = {
        f"segm/{name}": value
        for name, value in report.percent_metrics(scores, per_class=args.per_class).items()
    }
    if args.output:
        report.write_metrics(Path(args.output), metrics)
    if args.out:
        directory = Path(args.out)
        report.write_metrics(directory / "metrics.json", metrics)
        report.write_per_class(directory / "per_class.csv", scores)
        report.write_zip(directory / "results.zip", Path(args.results))
    return 0


if __name__ == "__main__":
    run_command(main)
