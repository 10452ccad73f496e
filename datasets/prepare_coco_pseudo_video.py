r"""Makes short videos with a YouTube-VIS json file of the images of a COCO instance file.

Example:
    python datasets/prepare_coco_pseudo_video.py coco/annotations/instances_val2017.json \
        --images coco/val2017 --target ovis --out coco_video

writes coco_video/instances.json and coco_video/JPEGImages/<image id>/00000.jpg and so on. A virtual
camera glides and turns over each image, always within it, and the masks go along; what it sees is
brought to the size of the image. Training can also make such clips as it goes (DATASET_TYPE
image_instance); with files they are the same for everybody, and can be evaluated on.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A checkout works without being installed.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import numpy as np
from feature_folder import make_new_folder, number
from PIL import Image
from tqdm import tqdm
from vis_json import VisJson

from vidseg import rle
from vidseg.data.catalog import Metadata, Record, Records
from vidseg.data.categories import FAMILIES, FROM_COCO, category_map
from vidseg.data.coco import load_coco_json
from vidseg.data.instance_json import read_content
from vidseg.errors import DataError, run_command

_COCO_NAMES = {1: "person", 2: "bicycle", 3: "car", 17: "cat", 18: "dog", 19: "horse", 21: "cow"}
_MAX_ANGLE = 45.0  # degrees


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("json_file", type=Path, help="COCO instance file")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="its pictures")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder")
    parser.add_argument(
        "--target",
        metavar="SET",
        help=f"classes to map to: of a data set ({', '.join(FAMILIES)}; COCO classes by the "
        "published tables), or of a YouTube-VIS json file (by name); objects of others are left "
        "out (default: the classes of the file)",
    )
    parser.add_argument(
        "--frames", type=number(int, 2), default=8, metavar="T", help="frames of a video (8)"
    )
    parser.add_argument(
        "--min-zoom",
        type=number(float, 0.1, 1.0),
        default=0.6,
        metavar="Z",
        help="smallest share of the sides of an image that is seen (0.6)",
    )
    parser.add_argument(
        "--max-angle",
        type=number(float, 0, _MAX_ANGLE),
        default=10.0,
        metavar="A",
        help="how far the camera turns to either side, in degrees (10)",
    )
    parser.add_argument(
        "--limit", type=number(int, 1), metavar="N", help="so many images, drawn at random (all)"
    )
    parser.add_argument("--seed", type=number(int, 0), default=0, help="of all that is drawn (0)")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Writes the folder."""
    args = parse(arguments)
    records = load_coco_json(args.json_file, args.images, strict=False)
    if not records.annotated:
        raise DataError(f"{args.json_file} has no annotations")
    classes, labels = _classes(args.target, records, args.json_file)
    chosen = [
        record
        for record in records
        if record["video_id"] not in records.damaged
        and any(labels[item["category_id"]] >= 0 for item in record["annotations"][0])
    ]
    if args.limit is not None and args.limit < len(chosen):
        drawn = np.random.default_rng(args.seed).choice(len(chosen), args.limit, replace=False)
        chosen = [chosen[place] for place in sorted(drawn.tolist())]

    def write(folder: Path) -> None:
        content = VisJson(classes)
        for record in tqdm(chosen, unit="image", disable=not sys.stderr.isatty()):
            # An image looks the same whatever others are drawn.
            rng = np.random.default_rng([args.seed, *str(record["video_id"]).encode()])
            _add_video(content, record, classes, labels, folder, args, rng)
        content.write(folder / "instances.json", folder, shown=args.out / "instances.json")

    make_new_folder(args.out, write)
    if records.damaged:
        print(f"left out, since they are missing: {len(records.damaged)} images")


def _classes(target: str | None, records: Records, json_file: Path) -> tuple[list[str], np.ndarray]:
    """Gives the class names of the videos and, by class of the file, theirs, -1 for none."""
    about = {"classes": records.classes, "category_ids": records.category_ids}
    if target is None:
        return records.classes, np.arange(len(records.classes))
    if target in FROM_COCO:
        for key, name in zip(records.category_ids, records.classes, strict=True):
            if name != _COCO_NAMES.get(key, name):
                raise DataError(
                    f"{json_file}: category {key} is {name!r}, in COCO it is "
                    f"{_COCO_NAMES[key]!r}; map other classes by name: give --target a json file"
                )
        names = FAMILIES[target]
        known = Metadata(target, names, list(range(1, len(names) + 1)), family=target)
        return names, category_map(Metadata(str(json_file), **about, family="coco"), known)
    if not target.endswith(".json"):
        raise DataError(f"--target {target}: neither {', '.join(FAMILIES)} nor a json file")
    content = read_content(Path(target))
    try:
        by_id = {one["id"]: str(one["name"]) for one in content["categories"]}
        names = [by_id[key] for key in sorted(by_id)]
    except (KeyError, TypeError):
        raise DataError(f"{target} has no categories with id and name") from None
    known = Metadata(target, names, sorted(by_id))
    return names, category_map(Metadata(str(json_file), **about), known)


def _add_video(
    content: VisJson,
    record: Record,
    classes: list[str],
    labels: np.ndarray,
    folder: Path,
    args: argparse.Namespace,
    rng: np.random.Generator,
) -> None:
    """Draws a video of an image and adds it with its objects."""
    size = (record["height"], record["width"])
    image = _read(Path(record["file_names"][0]), size)
    views = list(_glide(size, args.frames, args.min_zoom, args.max_angle, rng))
    files = []
    for frame, view in enumerate(views):
        files.append(folder / "JPEGImages" / str(record["video_id"]) / f"{frame:05d}.jpg")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        view.show(image, Image.Resampling.BICUBIC).save(files[-1], quality=95)
    video_id = content.add_video(files, size)
    for item in record["annotations"][0]:
        label = int(labels[item["category_id"]])
        if label < 0:
            continue
        where = f"{record['json_file']}: annotation {item['id']}"
        try:
            mask = rle.from_segmentation(item["segmentation"], *size)
        except ValueError as error:
            raise DataError(f"{where}: {error}") from None
        if mask is None:
            continue
        picture = Image.fromarray(rle.decode(mask).astype(np.uint8))
        masks = {
            frame: rle.encode(np.asarray(view.show(picture, Image.Resampling.NEAREST)))
            for frame, view in enumerate(views)
        }
        content.add_object(video_id, classes[label], masks, where, crowd=bool(item["iscrowd"]))


def _read(path: Path, size: tuple[int, int]) -> Image.Image:
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if (image.height, image.width) != size:
        found = f"{image.height} high and {image.width} wide"
        raise DataError(f"{path} is {found}, but stated to be {size[0]} and {size[1]}")
    return image


@dataclass(frozen=True)
class _View:
    """What the camera sees: a turned rectangle of the image, of the image's proportions.

    Args:
        centre: x and y, in pixels.
        zoom: share of the sides of the image.
        angle: in radians.
    """

    centre: tuple[float, float]
    zoom: float
    angle: float

    def show(self, picture: Image.Image, resampling: Image.Resampling) -> Image.Image:
        """Gives what is seen of a picture, at the size of the picture."""
        width, height = picture.size
        cos, sin = (self.zoom * f(self.angle) for f in (math.cos, math.sin))
        x, y = self.centre
        left = x - cos * width / 2 + sin * height / 2
        top = y - sin * width / 2 - cos * height / 2
        matrix = (cos, -sin, left, sin, cos, top)
        return picture.transform(picture.size, Image.Transform.AFFINE, matrix, resampling)


def _glide(
    size: tuple[int, int], length: int, min_zoom: float, max_angle: float, rng: Any
) -> Iterator[_View]:
    """Gives the views of a camera that moves evenly from one place to another.

    No view reaches beyond the image: zoom and place are drawn as shares of what its angle allows.
    """
    height, width = size
    # zoom, angle, x and y, each in its range
    start, end = rng.uniform([0, -1, -1, -1], [1, 1, 1, 1], (2, 4))
    for share in np.linspace(0, 1, length):
        near, turn, right, down = (start + share * (end - start)).tolist()
        angle = math.radians(max_angle) * turn
        cos, sin = math.cos(angle), abs(math.sin(angle))
        # sides of the upright rectangle around the view of zoom 1
        across, high = width * cos + height * sin, width * sin + height * cos
        largest = min(width / across, height / high)
        zoom = min(largest, min_zoom + near * (1 - min_zoom))
        x = width / 2 + right * (width - zoom * across) / 2
        y = height / 2 + down * (height - zoom * high) / 2
        yield _View((x, y), zoom, angle)


if __name__ == "__main__":
    run_command(main)
