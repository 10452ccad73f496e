"""Makes a YouTube-VIS json file of videos that were annotated with LabelMe.

Example:
    python datasets/prepare_labelme.py my_set

reads my_set/<video>/<frame>.json beside the pictures, or only my_set/<frame>.json, and writes
my_set/instances.json. Shapes of one label and one group id are the same object in all frames of
their video; so are those of a label without a group id, if no frame has two. With --join, several
in a frame are parts of one object. Polygons, rectangles, circles and masks are read, other shapes
(points, lines) are left out and counted. A frame without a file has no object, and a file without
a picture of its name is named.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import io
import math
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

# A checkout works without being installed.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import numpy as np
from vis_json import VisJson, add_output_options, image_size, paste, reason, subfolders

from vidseg import rle
from vidseg.errors import DataError, run_command
from vidseg.files import read_json
from vidseg.video.images import IMAGE_SUFFIXES, list_images

_CIRCLE_POINTS = 64
_FEWEST_POINTS = {"polygon": 3, "rectangle": 2, "circle": 2, "mask": 1}

Key = tuple[str, int | None]  # label and group id


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="folder of videos, or of the frames of one")
    parser.add_argument(
        "--join",
        action="store_true",
        help="shapes of one label without group id are parts of one object, also within a frame",
    )
    add_output_options(parser, "ROOT/instances.json")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Writes the file."""
    args = parse(arguments)
    folders = [folder for folder in subfolders(args.root) if _has_frames(folder)]
    if not folders and _has_frames(args.root):
        folders = [args.root]
    if not folders:
        raise DataError(f"{args.root} holds no folder of pictures with json files beside them")
    content = VisJson(args.classes)
    skipped: Counter[str] = Counter()
    out = args.out or args.root / "instances.json"
    for folder in folders:
        _add_video(content, folder, args.join, skipped)
        _tell_unused(folder, out)
    content.write(out, args.root)
    if skipped:
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(skipped.items()))
        print(f"left out, since they are no area: {told}")


def _has_frames(folder: Path) -> bool:
    suffixes = {path.suffix.lower() for path in folder.iterdir()}
    return ".json" in suffixes and bool(suffixes & IMAGE_SUFFIXES)


def _tell_unused(folder: Path, out: Path) -> None:
    pictures = {path.stem for path in list_images(folder)}
    files = sorted(path.name for path in folder.glob("*.json") if path.stem not in pictures)
    unused = [name for name in files if (folder / name).resolve() != out.resolve()]
    if unused:
        print(f"{folder}: {len(unused)} files have no picture of their name, such as {unused[0]}")


def _add_video(content: VisJson, folder: Path, join: bool, skipped: Counter[str]) -> None:
    frames = list_images(folder)
    size = image_size(frames[0])
    video_id = content.add_video(frames, size)
    objects: dict[Key, dict[int, rle.RLE]] = defaultdict(dict)
    for place, frame in enumerate(frames):
        path = frame.with_suffix(".json")
        if not path.is_file():
            continue
        for key, masks in _read_frame(path, size, skipped).items():
            if len(masks) > 1 and key[1] is None and not join:
                raise DataError(
                    f"{path}: {len(masks)} shapes have the label {key[0]!r} and no group id; give "
                    "those of one object the same group id in all frames, or --join if they are "
                    "parts of one"
                )
            objects[key][place] = rle.union(masks)
    for (label, group), found in objects.items():
        where = f"{folder}, {label}" + ("" if group is None else f" of group {group}")
        content.add_object(video_id, label, found, where)


def _read_frame(
    path: Path, size: tuple[int, int], skipped: Counter[str]
) -> dict[Key, list[rle.RLE]]:
    """Gives the masks of a frame by object."""
    content = read_json(path, what="LabelMe file")
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise DataError(f"{path} is no LabelMe file: it has no list of shapes")
    stated = (content.get("imageHeight") or size[0], content.get("imageWidth") or size[1])
    if stated != size:
        raise DataError(f"{path} is for pictures of {list(stated)} rows and columns, not {size}")
    masks: dict[Key, list[rle.RLE]] = defaultdict(list)
    for number, shape in enumerate(content["shapes"]):
        try:
            if not isinstance(shape, dict):
                raise ValueError("it is no object of json")
            kind = shape.get("shape_type") or "polygon"
            label = shape["label"]
            if not isinstance(label, str) or not label:
                raise ValueError(f"its label is {label!r}")
            mask = _rasterise(shape, kind, size)
            group = shape.get("group_id")
            if group is not None and not isinstance(group, int):
                raise ValueError(f"its group id is {group!r}")
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: shape {number} cannot be read: {reason(error)}") from None
        if mask is None:
            skipped[f"{kind}s"] += 1
        else:
            masks[label, group].append(mask)
    return masks


def _rasterise(shape: dict[str, Any], kind: str, size: tuple[int, int]) -> rle.RLE | None:
    """Gives the mask of a shape; ``None`` of one that has no area."""
    try:
        points = np.array([(float(x), float(y)) for x, y in shape["points"]]).reshape(-1, 2)
    except (TypeError, ValueError):
        raise ValueError("its points are no pairs of numbers") from None
    if not np.isfinite(points).all():
        raise ValueError("it has coordinates that are no finite numbers")
    if len(points) < _FEWEST_POINTS.get(kind, 0):
        raise ValueError(f"it is a {kind} of {len(points)} points")
    if kind == "rectangle":
        (left, top), (right, bottom) = points.min(0), points.max(0)
        points = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    elif kind == "circle":
        centre, radius = points[0], math.dist(points[0], points[1])
        angles = np.arange(_CIRCLE_POINTS) * 2 * np.pi / _CIRCLE_POINTS
        points = centre + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
    elif kind == "mask":
        left, top = np.round(points.min(0)).astype(int).tolist()
        return rle.encode(paste(_decode_mask(shape["mask"]), left, top, size))
    elif kind != "polygon":
        return None
    return rle.from_polygons([points.ravel().tolist()], *size)


def _decode_mask(text: str) -> np.ndarray:
    """Reads a picture in base64, bool ``(h, w)``."""
    from PIL import Image

    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise ValueError("its mask is no base64") from None
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("L")) > 0
    except (OSError, SyntaxError, ValueError):
        raise ValueError("its mask is no picture") from None


if __name__ == "__main__":
    run_command(main)
