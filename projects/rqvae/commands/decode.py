"""``decode``: a codes file back to features."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vidseg.commands import Failures, add_command, add_model_options, load_model_config

from .shared import build

__all__ = ["add_parser", "run"]

EXAMPLE = """example:
  python -m vidseg.projects.rqvae decode --config-file projects/rqvae/rqvae_sliding_window.yaml \\
      --input codes.rqc --output rebuilt/

Written for each document: DIR/<id>.npy, float32 (T, D), of the original length and scale.
"""


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(commands, "decode", "Rebuilds features from codes.", EXAMPLE)
    add_model_options(parser)
    parser.add_argument("--input", required=True, type=Path, metavar="FILE", help="codes file")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="for .npy files")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Decodes all documents."""
    from vidseg.files import make_folder

    cfg = load_model_config(args)
    from ..codes_file import CodesFile
    from ..coding import decode_file

    codes = CodesFile(args.input)
    model = build(cfg, args.weights)
    codes.check_model(model)
    make_folder(args.output, "--output: the folder")
    failures = Failures()
    count = decode_file(model, codes, args.output, failures)
    print(f"{count} of {len(codes)} documents -> {args.output}")
    return failures.exit_code
