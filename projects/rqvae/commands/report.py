"""``report``: a page with pictures about a trained model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vidseg.commands import Failures, add_command, add_model_options, load_model_config, use_run

from .shared import build

__all__ = ["add_parser", "run"]

EXAMPLE = """examples:
  python -m vidseg.projects.rqvae report --run output/rqvae/sliding_window
  python -m vidseg.projects.rqvae report --config-file projects/rqvae/rqvae_sliding_window.yaml \\
      --weights model.pth --input features/ --output output/report

Written: report.md, usage.png (use of every codebook), snr_by_level.png, document.png (a document,
its reconstruction and the error), retrieval.png (queries and what is found). --run DIR stands for
the config and the weights of a finished run; its report goes to DIR/report and tells the metrics
of its evaluations, too.
"""


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(commands, "report", "Draws what a model does with a data set.", EXAMPLE)
    add_model_options(parser, required=False)
    parser.add_argument("--input", metavar="PATH", help="features (the first of DATASETS.TEST)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="for page and pictures")
    parser.add_argument("--document", default="", metavar="ID", help="to draw (the median one)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Surveys the data set and writes the page."""
    from vidseg.data.documents import read_documents
    from vidseg.errors import UserError
    from vidseg.files import make_folder

    _complete(args)
    cfg = load_model_config(args)
    source = args.input or next(iter(cfg.DATASETS.TEST), "")
    if not source:
        raise UserError("--input: DATASETS.TEST of the config is empty; say which documents")
    from ..reporting import survey, write_report

    records = read_documents(source, "--input" if args.input else "DATASETS.TEST")
    model = build(cfg, args.weights)
    make_folder(args.output, "--output: the folder")
    failures = Failures()
    found = survey(model, records, cfg.MODEL.RQVAE.FRAME_RATE, failures)
    page = write_report(
        model,
        records,
        found,
        args.output,
        source=source,
        document=args.document,
        run_dir=args.run_dir,
    )
    print(f"{len(found.tokens)} of {len(records)} documents -> {page}")
    return failures.exit_code


def _complete(args: argparse.Namespace) -> None:
    """Fills in what ``--run`` stands for.

    Raises:
        UserError: if neither or both of run and config are given, or the run has no config.
    """
    from vidseg.errors import UserError

    if bool(args.run_dir) == bool(args.config_file):
        raise UserError("report needs either --run DIR or --config-file F")
    use_run(args)
    if args.run_dir:
        args.output = args.output or args.run_dir / "report"
    if not args.output:
        raise UserError("report: --output DIR is needed with --config-file")
