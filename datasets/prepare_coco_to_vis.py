"""Reduces the COCO instance files to the classes that a video data set has too.

Example:
    python datasets/prepare_coco_to_vis.py ovis

reads coco/annotations/instances_{train,val}2017.json below the data set root and writes
coco2ovis_{train,val}.json beside them. Ids stay those of COCO; training maps them
(DATASETS.DATASET_NEED_MAP) and makes clips of the images as it goes. Images that lose all of their
objects are left out. Videos on disk are made by prepare_coco_pseudo_video.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

# A checkout works without being installed.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from vidseg.data.catalog import dataset_root
from vidseg.data.categories import FROM_COCO
from vidseg.data.instance_json import read_content
from vidseg.errors import DataError, run_command
from vidseg.files import write_atomically

_TARGETS = {"ytvis2019": "ytvis_2019", "ytvis2021": "ytvis_2021", "ovis": "ovis"}


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", choices=sorted(_TARGETS), help="the video data set")
    parser.add_argument(
        "--splits", nargs="+", default=["train", "val"], choices=["train", "val"], help="which"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Writes one file per split."""
    args = parse(arguments)
    folder = dataset_root() / "coco" / "annotations"
    for split in args.splits:
        source = folder / f"instances_{split}2017.json"
        content = read_content(source)
        try:
            subset = _reduce(content, set(FROM_COCO[_TARGETS[args.target]]))
        except (KeyError, TypeError) as error:
            raise DataError(f"{source} is no COCO instance file: {error}") from None
        path = folder / f"coco2{args.target}_{split}.json"
        text = json.dumps(subset).encode()
        write_atomically(path, lambda file, text=text: file.write(text))
        print(f"{path}: {len(subset['images'])} images, {len(subset['annotations'])} objects")


def _reduce(content: dict[str, Any], category_ids: set[int]) -> dict[str, Any]:
    annotations = [a for a in content["annotations"] if a["category_id"] in category_ids]
    images = {annotation["image_id"] for annotation in annotations}
    return {
        **content,
        "categories": [c for c in content["categories"] if c["id"] in category_ids],
        "images": [image for image in content["images"] if image["id"] in images],
        "annotations": annotations,
    }


if __name__ == "__main__":
    run_command(main)
