#!/usr/bin/env python
"""Makes the pictures of the README from trained weights: tracks.webp (moving) and strip.jpg."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# A checkout works without being installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vidseg import rle
from vidseg.errors import DataError, run_command

EXAMPLE = """example:
  python docs/make_pictures.py --config-file projects/dvis_daq/online.yaml \\
      --weights output/dvis_daq/online/model_final.pth --videos 4 5 6

Without --weights, those of the finished run in OUTPUT_DIR are used.
"""
CONFIG = "projects/dvis_daq/offline.yaml"
MAX_BYTES = 300_000  # of a picture: it is part of every clone
QUALITIES = range(80, 0, -10)
GAP = 6  # pixels between pictures
NUM_COLUMNS = 3
NUM_MOMENTS = 6


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the command line; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default=CONFIG, metavar="F", help=f"default: {CONFIG}")
    parser.add_argument("--weights", default="", metavar="W", help="weights file")
    parser.add_argument("--dataset", default="shapes_vis_standard_val", metavar="NAME")
    parser.add_argument("--videos", type=int, nargs="+", default=[1, 2, 3], metavar="ID")
    parser.add_argument("--min-score", type=float, default=0.3, help="of the tracks to draw (0.3)")
    parser.add_argument("--scale", type=int, default=2, help="enlargement of the frames (2)")
    parser.add_argument("--output", type=Path, default=Path("docs"), metavar="DIR")
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    """Predicts, draws and writes."""
    args = parse(argv)
    from vidseg import VideoPredictor
    from vidseg.data import DatasetCatalog
    from vidseg.video.draw import drawings

    records = {record["video_id"]: record for record in DatasetCatalog.get(args.dataset)}
    if missing := [number for number in args.videos if number not in records]:
        raise DataError(f"--videos: {args.dataset} has no video {missing[0]}")
    classes = DatasetCatalog.metadata(args.dataset).classes
    predictor = VideoPredictor.from_config(args.config_file, weights=args.weights or None)
    predicted = []
    for number in args.videos:
        result = predictor.predict(records[number]["file_names"])
        objects = drawings(result, class_names=classes, min_score=args.min_score)
        predicted.append(paint(records[number], objects, args.scale))
    truth = paint(records[args.videos[0]], annotated(records[args.videos[0]], classes), args.scale)

    args.output.mkdir(parents=True, exist_ok=True)
    save([grid(frames) for frames in zip(*predicted, strict=False)], args.output / "tracks.webp")
    rows = moments(truth), moments(predicted[0])
    strip = grid([*rows[0], *rows[1]], num_columns=len(rows[0]))
    save([strip], args.output / "strip.jpg")


def annotated(record: dict[str, Any], classes: list[str]) -> list[list[Any]]:
    """Gives what is annotated in a video, frame by frame, to be drawn like a prediction."""
    from vidseg.video.draw import Drawing

    frames: list[list[Any]] = []
    for objects in record["annotations"]:
        frames.append([])
        for item in objects:
            mask = rle.from_segmentation(item["segmentation"], record["height"], record["width"])
            if mask is not None:
                frames[-1].append(Drawing(mask, item["id"], classes[item["category_id"]]))
    return frames


def paint(record: dict[str, Any], objects: list[list[Any]], scale: int) -> list[Any]:
    """Draws the objects onto the enlarged frames of a video; gives uint8 ``(H, W, 3)`` arrays."""
    from vidseg.video.draw import FramePainter

    size = record["height"] * scale, record["width"] * scale
    painter = FramePainter(size)
    pixel = np.ones((scale, scale), dtype=bool)
    painted = []
    for name, present in zip(record["file_names"], objects, strict=True):
        with Image.open(name) as image:
            frame = np.asarray(image.convert("RGB").resize(size[::-1], Image.Resampling.BICUBIC))
        enlarged = [
            replace(item, mask=rle.encode(np.kron(rle.decode(item.mask), pixel)))
            for item in present
        ]
        painted.append(painter.paint(frame, enlarged))
    return painted


def save(frames: list[Any], path: Path) -> None:
    """Writes a picture, moving if there are several frames, at the best quality that is small."""
    first, *rest = map(Image.fromarray, frames)
    moving: dict[str, Any] = {"save_all": True, "append_images": rest, "duration": 120, "loop": 0}
    for quality in QUALITIES:
        first.save(path, quality=quality, **(moving if rest else {}))
        if path.stat().st_size <= MAX_BYTES:
            break
    print(f"{path}: {path.stat().st_size // 1000} kB at quality {quality}")


def moments(frames: list[Any]) -> list[Any]:
    """Picks evenly spaced frames."""
    step = max(1, len(frames) // NUM_MOMENTS)
    return frames[::step][:NUM_MOMENTS]


def grid(pictures: Any, num_columns: int = NUM_COLUMNS) -> Any:
    """Lays pictures of one size out in rows, on white."""
    pictures = list(pictures)
    height, width, _ = pictures[0].shape
    num_columns = min(num_columns, len(pictures))
    num_rows = -(-len(pictures) // num_columns)
    shape = (num_rows * (height + GAP) - GAP, num_columns * (width + GAP) - GAP, 3)
    canvas = np.full(shape, 255, dtype=np.uint8)
    for place, picture in enumerate(pictures):
        top, left = place // num_columns * (height + GAP), place % num_columns * (width + GAP)
        canvas[top : top + height, left : left + width] = picture
    return canvas


if __name__ == "__main__":
    run_command(main)
