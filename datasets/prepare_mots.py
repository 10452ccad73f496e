"""Makes a YouTube-VIS json file of KITTI MOTS or MOTSChallenge (MOTS20).

Example:
    python datasets/prepare_mots.py KITTI_MOTS --sequences 0000 0001 --out KITTI_MOTS/train.json
    python datasets/prepare_mots.py MOTS20/train

KITTI MOTS: instances/<sequence>/<frame>.png or instances_txt/<sequence>.txt, with the pictures in
training/image_02/<sequence>/. MOTSChallenge: <sequence>/gt/gt.txt and <sequence>/img1/. Regions to
be ignored become crowds of every class, which evaluation leaves out. Frames without a line have no
object.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

# A checkout works without being installed.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import numpy as np
from vis_json import VisJson, add_output_options, image_size, read_picture, subfolders

from vidseg import rle
from vidseg.errors import DataError, run_command
from vidseg.video.images import list_images

_CLASSES = {1: "car", 2: "pedestrian"}
_IGNORED = 10  # the class of regions to be ignored, and with 10000 their id
_IDS = 1000  # an id is 1000 times the class and the number of the object

Line = tuple[int, int, int, rle.RLE]  # frame as it is numbered, id, class, mask


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="folder of the data set")
    parser.add_argument("--images", type=Path, help="folder of pictures by sequence (see above)")
    parser.add_argument("--sequences", nargs="+", metavar="NAME", help="which (all)")
    add_output_options(parser, "ROOT/instances.json")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Writes the file."""
    args = parse(arguments)
    sources = _sources(args.root)
    sequences = args.sequences or sorted(sources)
    is_challenge = any(source.parent.name == "gt" for source in sources.values())
    images = args.images or (args.root if is_challenge else args.root / "training" / "image_02")
    content = VisJson(args.classes)
    for sequence in sequences:
        if sequence not in sources:
            known = ", ".join(sorted(sources))
            raise DataError(f"{args.root} has no annotations of {sequence}; found: {known}")
        folder = images / sequence
        inner = folder / "img1"
        _add_sequence(content, inner if inner.is_dir() else folder, sources[sequence])
    content.write(args.out or args.root / "instances.json", images)


def _sources(root: Path) -> dict[str, Path]:
    """Gives the file or folder of annotations of each sequence."""
    for name, found in (
        ("instances_txt", {path.stem: path for path in root.glob("instances_txt/*.txt")}),
        ("instances", {path.name: path for path in root.glob("instances/*") if path.is_dir()}),
    ):
        if found and (root / name).is_dir():
            return found
    challenge = {
        folder.name: folder / "gt" / "gt.txt"
        for folder in subfolders(root)
        if (folder / "gt" / "gt.txt").is_file()
    }
    if not challenge:
        raise DataError(
            f"{root} has neither instances_txt/*.txt nor instances/<sequence>/ nor "
            "<sequence>/gt/gt.txt"
        )
    return challenge


def _add_sequence(content: VisJson, images: Path, source: Path) -> None:
    if not images.is_dir():
        raise DataError(f"there is no folder {images}; name that of the pictures with --images")
    frames = list_images(images)
    unnumbered = [frame for frame in frames if not frame.stem.isdecimal()]
    if unnumbered:
        raise DataError(f"{unnumbered[0]} is not named by the number of its frame")
    places = {int(frame.stem): place for place, frame in enumerate(frames)}
    video_id = content.add_video(frames, image_size(frames[0]))
    lines = _read_pictures(source) if source.is_dir() else _read_text(source)
    objects: dict[tuple[int, int], dict[int, rle.RLE]] = defaultdict(dict)
    ignored: dict[int, rle.RLE] = {}
    for number, key, label, mask in lines:
        if number not in places:
            raise DataError(f"{source}: there is no picture of frame {number} in {images}")
        place = places[number]
        if label == _IGNORED:
            ignored[place] = rle.union([ignored[place], mask]) if place in ignored else mask
        elif label not in _CLASSES:
            raise DataError(f"{source}: frame {number}: the class {label} of {key} is none of 1, 2")
        elif place in objects[label, key]:
            raise DataError(f"{source}: frame {number} has the object {key} twice")
        else:
            objects[label, key][place] = mask
    for (label, key), masks in sorted(objects.items()):
        content.add_object(video_id, _CLASSES[label], masks, f"{source}, object {key}")
    for label in sorted({label for label, _ in objects}):
        where = f"{source}, ignored regions"
        content.add_object(video_id, _CLASSES[label], ignored, where, crowd=True)


def _read_text(path: Path) -> Iterator[Line]:
    """Reads lines of frame, id, class, height, width and the counts of an RLE."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise DataError(f"{path} cannot be read: {reason}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        words = line.split(" ")
        try:
            frame, key, label, height, width = map(int, words[:5])
            mask = rle.from_text({"size": [height, width], "counts": words[5]})
            rle.require_cover(mask)
        except (ValueError, IndexError):
            raise DataError(
                f"{path}, line {number}: expected frame, id, class, height, width and an RLE"
            ) from None
        yield frame, key, label, mask


def _read_pictures(folder: Path) -> Iterator[Line]:
    for path in list_images(folder):
        _, ids = read_picture(path)
        if ids.ndim != 2 or not path.stem.isdecimal():
            raise DataError(f"{path} is no picture of ids with the number of its frame as name")
        for key in np.unique(ids).tolist():
            if key:
                yield int(path.stem), key, key // _IDS, rle.encode(ids == key)


if __name__ == "__main__":
    run_command(main)
