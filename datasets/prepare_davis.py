"""Makes a YouTube-VIS json file of DAVIS 2016 or 2017.

Example:
    python datasets/prepare_davis.py DAVIS --split train --semantics davis_semantics.json

reads DAVIS/ImageSets/2017/train.txt, JPEGImages/480p/<sequence>/ and Annotations/480p/<sequence>/,
and writes DAVIS/train.json. Every index of a palette is an object, 255 is none; what is white in a
black and white picture is one. Without --semantics, all objects are of the class "object". A
sequence of which some frames have no annotation (those of the test splits) is refused.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

# A checkout works without being installed.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import numpy as np
from vis_json import VisJson, add_output_options, image_size, read_picture

from vidseg import rle
from vidseg.errors import DataError, run_command
from vidseg.files import read_json
from vidseg.video.images import list_images

_VOID = 255
_GREY = 128  # of black and white, what is white


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="folder of JPEGImages/, Annotations/, ImageSets/")
    parser.add_argument("--split", default="train", help="name of the list of sequences (train)")
    parser.add_argument("--year", default="2017", help="folder of the list: 2016 or 2017 (2017)")
    parser.add_argument(
        "--resolution", default="480p", metavar="FOLDER", help="480p or Full-Resolution (480p)"
    )
    parser.add_argument(
        "--annotations", default="Annotations", metavar="FOLDER", help="(Annotations)"
    )
    parser.add_argument(
        "--semantics", type=Path, metavar="FILE", help="classes of the objects by sequence, json"
    )
    add_output_options(parser, "ROOT/SPLIT.json")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Writes the file."""
    args = parse(arguments)
    sequences = _sequences(args.root / "ImageSets" / args.year / f"{args.split}.txt")
    semantics = read_json(args.semantics, what="file of classes") if args.semantics else None
    images = args.root / "JPEGImages" / args.resolution
    content = VisJson(args.classes)
    for sequence in sequences:
        names = _names(semantics, sequence, args.semantics)
        masks = args.root / args.annotations / args.resolution / sequence
        _add_sequence(content, images / sequence, masks, names)
    content.write(args.out or args.root / f"{args.split}.json", images)


def _sequences(path: Path) -> list[str]:
    """Gives the sequences of a list: names, or since 2016 the paths of picture and annotation."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise DataError(
            f"the list of sequences {path} cannot be read: {reason}; expected are "
            "ImageSets/<year>/<split>.txt, JPEGImages/480p/<sequence>/00000.jpg and "
            "Annotations/480p/<sequence>/00000.png"
        ) from None
    first = [line.split()[0] for line in lines if line.strip()]
    names = [Path(word).parent.name if "/" in word else word for word in first]
    if not names:
        raise DataError(f"the list of sequences {path} is empty")
    return list(dict.fromkeys(names))


def _names(semantics: Any, sequence: str, path: Path | None) -> dict[str, str] | None:
    """Gives the classes of a sequence by index; ``None`` if nothing says them."""
    if semantics is None:
        return None
    if not isinstance(semantics, dict) or not isinstance(semantics.get(sequence), dict):
        raise DataError(f"{path} does not say the classes of the sequence {sequence}")
    return {str(key): str(name) for key, name in semantics[sequence].items()}


def _add_sequence(
    content: VisJson, images: Path, masks: Path, names: dict[str, str] | None
) -> None:
    for folder in (images, masks):
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}")
    frames = list_images(images)
    annotations = [masks / f"{frame.stem}.png" for frame in frames]
    missing = [path for path in annotations if not path.is_file()]
    if missing:
        raise DataError(
            f"{masks} has no annotation for {len(missing)} of {len(frames)} frames, such as "
            f"{missing[0].name}; videos of a test split cannot be used"
        )
    video_id = content.add_video(frames, image_size(frames[0]))
    objects: dict[int, dict[int, rle.RLE]] = defaultdict(dict)
    for place, path in enumerate(annotations):
        indices = _read_indices(path)
        for index in np.unique(indices).tolist():
            if index not in (0, _VOID):
                objects[index][place] = rle.encode(indices == index)
    for index in sorted(objects):
        if names is not None and str(index) not in names:
            raise DataError(f"{masks}: nothing says the class of object {index}")
        name = "object" if names is None else names[str(index)]
        content.add_object(video_id, name, objects[index], f"{masks}, object {index}")


def _read_indices(path: Path) -> np.ndarray:
    """Gives the object of every pixel, ``(H, W)``, 0 where there is none."""
    mode, pixels = read_picture(path)
    if mode == "P":
        return pixels
    if mode == "1":
        return pixels.astype(np.uint8)
    if pixels.ndim == 3:
        colours = pixels[..., :3]
        if (colours != colours[..., :1]).any():
            raise DataError(
                f"{path} has colours without a palette, objects cannot be told from them; take the "
                "file as published"
            )
        pixels = colours[..., 0]
    is_void = pixels == _VOID
    if 0 < np.where(is_void, 0, pixels).max() < _GREY:  # indices that lost their palette
        return pixels
    return (pixels >= _GREY).astype(np.uint8)


if __name__ == "__main__":
    run_command(main)
