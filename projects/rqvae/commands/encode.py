"""``encode``: features to a codes file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vidseg.commands import Failures, add_command, add_model_options, load_model_config, positive

from .shared import build

__all__ = ["add_parser", "run"]

EXAMPLE = """example:
  python -m vidseg.projects.rqvae encode --config-file projects/rqvae/rqvae_sliding_window.yaml \\
      --input features/ --output codes.rqc

The input is a folder of .npy, .npz or .pt files (T, D), the index.json of one, one such file, or
the name of a data set. A damaged document is named and left out; the exit code is then 1.
"""


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(commands, "encode", "Turns features into codes.", EXAMPLE)
    add_model_options(parser)
    parser.add_argument("--input", required=True, metavar="PATH", help="features")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="codes file")
    parser.add_argument(
        "--levels", type=positive, metavar="N", help="codes per window (all codebooks)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Encodes, and reports what it took."""
    from vidseg.data.documents import read_documents
    from vidseg.errors import UserError
    from vidseg.files import make_folder

    cfg = load_model_config(args)
    num_codebooks = cfg.MODEL.RQVAE.NUM_CODEBOOKS
    if args.levels and args.levels > num_codebooks:
        raise UserError(f"--levels {args.levels}: the model has {num_codebooks} codebooks")
    if args.output.is_dir():
        raise UserError(f"--output {args.output} is a folder; give the name of a file")
    from ..codes_file import write_codes
    from ..codes_header import CodesHeader
    from ..coding import encode_records, frame_rate_of

    records = read_documents(args.input)
    model = build(cfg, args.weights)
    make_folder(args.output.parent, "--output: the folder")
    rate = frame_rate_of(records, cfg.MODEL.RQVAE.FRAME_RATE)
    header = CodesHeader.of_model(model, rate, args.levels)
    failures = Failures()
    total = 0

    def counted() -> Any:
        nonlocal total
        for document in encode_records(model, records, failures, args.levels):
            total += document.num_frames
            yield document

    count = write_codes(args.output, counted(), header)
    size = args.output.stat().st_size
    print(
        f"{count} of {len(records)} documents, {total} frames -> {args.output}: {size} bytes, "
        f"{8 * size * rate / total:.0f} bits/s, 1/{total * model.input_dim * 4 / size:.0f} of the "
        "features"
    )
    return failures.exit_code
