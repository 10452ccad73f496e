#!/usr/bin/env python
"""Writes a trained video model as graphs that run without vidseg: torch.export and ONNX."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

# A checkout works without being installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vidseg.commands import add_model_options, load_model_config, positive
from vidseg.errors import run_command

TOLERANCE = 1e-4  # of the largest number of an output

EXAMPLE = """example:
  python tools/export.py --config-file projects/dvis_daq/online.yaml --format both \\
      --output output/exported

Written to DIR: segmenter.pt2 and segmenter.onnx (frames to mask logits, class logits, query
embeddings and mask features, every frame by itself), of online models also tracker.pt2 and
tracker.onnx (a frame and the state to its tracks and the next state), and export.json, which says
what they take and give. Every file is loaded again and compared with the model on random frames.

By default the graphs take any number of frames of any size; some runtimes want one: --size 480x640.
A tracker's state has room for --max-tracks at a time. Exit code 1: a file is not like the model.

examples/run_exported.py tracks a folder of pictures with nothing but the ONNX files.
"""


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the command line; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_options(parser)
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="for the files")
    parser.add_argument(
        "--format", choices=["torch", "onnx", "both"], default="torch", help="which files (torch)"
    )
    parser.add_argument(
        "--size",
        type=_size,
        metavar="HxW",
        help="frames of one size, after resizing; or dynamic (the default)",
    )
    parser.add_argument(
        "--frames",
        type=positive,
        metavar="N",
        help="frames that the segmenter takes at once, with --size HxW (1)",
    )
    parser.add_argument(
        "--frame-dtype", choices=["uint8", "float32"], default="uint8", help="of frames (uint8)"
    )
    parser.add_argument(
        "--max-tracks", type=positive, default=64, metavar="N", help="room of the state (64)"
    )
    args = parser.parse_intermixed_args(argv)
    if args.frames and not args.size:
        parser.error("--frames: only with --size HxW; otherwise the graph takes any number")
    return args


def main(argv: list[str]) -> int:
    """Exports, and reports on every file."""
    args = parse(argv)
    cfg = load_model_config(args)  # mistakes show at once
    import torch

    from vidseg.export import FORMATS, ExportRequest, check_exports, check_packages, export_model
    from vidseg.modeling.meta_arch import ExportOptions, FrameSize
    from vidseg.predictor import VideoPredictor

    formats = tuple(FORMATS) if args.format == "both" else (args.format,)
    if "onnx" in formats:
        check_packages()
    check_exports(cfg)
    request = ExportRequest(
        formats,
        FrameSize(args.frames or 1, *args.size) if args.size else None,
        ExportOptions(getattr(torch, args.frame_dtype), args.max_tracks),
    )
    predictor = VideoPredictor.from_config(cfg, args.weights or None, device="cpu")
    code = 0
    for exported in export_model(predictor, args.output, request):
        told = ", ".join(f"{case.relative:.1e} at {case.size}" for case in exported.comparisons)
        print(f"{exported.path}: differs from the model by {told} of the largest number")
        for case in exported.comparisons:
            if case.differing or case.relative > TOLERANCE:
                code = 1
                outputs = f" (not the same: {', '.join(case.differing)})" if case.differing else ""
                print(
                    f"warning: {exported.path} is not like the model at {case.size}{outputs}",
                    file=sys.stderr,
                )
    print(f"described in {args.output / 'export.json'}")
    return code


def _size(text: str) -> tuple[int, int] | None:
    """Reads ``480x640``, or ``dynamic``."""
    if text == "dynamic":
        return None
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None or 0 in (int(side) for side in match.groups()):
        raise argparse.ArgumentTypeError("must be HEIGHTxWIDTH, such as 480x640, or dynamic")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    run_command(main)
