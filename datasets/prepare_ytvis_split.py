"""Splits a YouTube-VIS json file by videos into a training and a validation part.

Example:
    python datasets/prepare_ytvis_split.py datasets/ytvis_2021/train.json --val-share 0.1

writes train_split_train.json and train_split_val.json beside it, for the same frames. Videos are
drawn by the seed; ids and categories are kept.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from vidseg.data import DatasetCatalog
from vidseg.data.instance_json import read_content
from vidseg.data.ytvis import find_image_root
from vidseg.errors import UserError, run_command


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("json_file", type=Path, help="file to split, with annotations")
    parser.add_argument("--val-share", type=float, default=0.1, help="share of videos (0.1)")
    parser.add_argument("--seed", type=int, default=0, help="which videos are drawn (0)")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Writes both files."""
    args = parse(arguments)
    content = read_content(args.json_file)
    ids = sorted(video["id"] for video in content.get("videos", []))
    num_val = round(len(ids) * args.val_share)
    if not 0 < num_val < len(ids):
        raise UserError(
            f"--val-share {args.val_share} of the {len(ids)} videos in {args.json_file} leaves "
            "one part empty"
        )
    order = np.random.default_rng(args.seed).permutation(len(ids))
    image_root = os.path.relpath(_image_root(args.json_file, content), args.json_file.parent)
    held_back = {ids[place] for place in order[:num_val]}
    for part, kept in (("val", held_back), ("train", set(ids) - held_back)):
        path = args.json_file.with_name(f"{args.json_file.stem}_split_{part}.json")
        subset = {
            **content,
            "image_root": image_root,
            "videos": [v for v in content["videos"] if v["id"] in kept],
            "annotations": [a for a in content.get("annotations", []) if a["video_id"] in kept],
        }
        path.write_text(json.dumps(subset))
        print(f"{path}: {len(subset['videos'])} videos, {len(subset['annotations'])} objects")


def _image_root(json_file: Path, content: dict[str, Any]) -> Path:
    """Gives the folder of the frames: as published, if it is a published file."""
    for name in DatasetCatalog.names():
        known = DatasetCatalog.registered(name)
        if known.json_file and Path(known.json_file).resolve() == json_file.resolve():
            return Path(known.image_root).resolve()
    return find_image_root(json_file, content)


if __name__ == "__main__":
    run_command(main)
