"""``show``: what every slot sees of videos, as pictures, videos and data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vidseg.commands import (
    Failures,
    add_command,
    add_model_options,
    load_model_config,
    positive,
)

__all__ = ["add_parser", "run"]

EXAMPLE = """example:
  python -m vidseg.projects.slot_bert show --config-file projects/slot_bert/tiny_cpu.yaml \\
      --input street.mp4 frames/ clip.npy --output output/street

Written for each input, under DIR/<name>/: grid.png (frames from top to bottom; original,
segmentation, reconstruction and what each slot sees from left to right), iterations.png (how slot
attention shares the first frame out, iteration by iteration), original, segmentation,
reconstruction, slots and panels (all of them side by side) as .mp4 and .gif, masks.npz and
tracks.json. A folder of pictures is one video; a folder of videos or of such folders stands for
all of them. Without --weights, those of MODEL.WEIGHTS or of the finished run in OUTPUT_DIR are
used. tools/demo.py draws the slots onto the video itself. Exit code 1 if an input failed.
"""


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "show",
        "Writes what every slot sees of videos: pictures, videos and data.",
        EXAMPLE,
    )
    add_model_options(parser)
    parser.add_argument(
        "--input", required=True, nargs="+", metavar="PATH", help="videos, folders, pictures, .npy"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="for the results")
    parser.add_argument(
        "--formats",
        nargs="*",
        default=["mp4", "gif"],
        choices=("mp4", "gif"),
        help="of the videos (both)",
    )
    parser.add_argument(
        "--opacity",
        type=_share,
        default=0.65,
        metavar="A",
        help="of the colours on the frame, 0 to 1 (%(default)s)",
    )
    parser.add_argument(
        "--every", type=positive, default=1, metavar="N", help="take each N-th frame"
    )
    parser.add_argument("--max-frames", type=positive, metavar="N", help="stop after N frames")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Shows every input; one that fails does not stop the others."""
    from vidseg.errors import UserError
    from vidseg.files import make_folder

    if not args.input:
        raise UserError("--input: no path given")
    cfg = load_model_config(args)  # mistakes show at once
    make_folder(args.output, "--output: the folder")
    from vidseg.video.images import list_videos, name_videos
    from vidseg.video.io import VideoReader

    from ..showing import SlotShow

    show = SlotShow.from_config(cfg, args.weights or None)
    inputs = [path for given in args.input for path in list_videos(Path(given))]
    failures = Failures()
    for path, name in zip(inputs, name_videos(inputs), strict=True):
        try:
            reader = VideoReader(path, every=args.every, max_frames=args.max_frames)
            folder = args.output / name
            make_folder(folder, "--output: the folder")
            formats = [] if reader.is_picture else args.formats
            told = show.write(reader, folder, formats=formats, opacity=args.opacity)
            print(f"{path}: {told} -> {folder}", flush=True)
        except UserError as error:
            failures(error)
    if len(inputs) > 1:
        print(f"{len(inputs) - failures.count} of {len(inputs)} inputs shown in {args.output}")
    return failures.exit_code


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError("must lie in 0 to 1")
    return number
