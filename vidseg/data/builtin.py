"""The names that published configs use, and the embedded data sets.

All paths are relative to the data set root (``catalog.dataset_root``); ``datasets/README.md`` says
how to fill it. Nothing is read before a data set is asked for.
"""

from __future__ import annotations

from .catalog import Catalog
from .categories import FAMILIES
from .ytvis import JsonFile

__all__ = ["register_builtin"]

_SPLITS = {"train": "train", "val": "valid", "test": "test"}


def register_builtin(catalog: Catalog) -> None:
    """Adds the public data sets; importing the synthetic module adds the embedded ones."""
    for year in ("2019", "2021"):
        for split, folder in _SPLITS.items():
            root = f"ytvis_{year}"
            images = f"{root}/{folder}/JPEGImages"
            _add(catalog, f"{root}_{split}", f"{root}/{folder}.json", images, family=root)
    for year in ("2022", "2023"):
        # The valid splits of these years extend 2021 and share its classes.
        root = f"ytvis_{year}/valid"
        _add(
            catalog,
            f"ytvis_{year}_val",
            f"{root}/instances.json",
            f"{root}/JPEGImages",
            family="ytvis_2021",
        )
    for split, folder in _SPLITS.items():
        json_file = f"ovis/annotations/annotations_{folder}.json"
        _add(catalog, f"ovis_{split}", json_file, f"ovis/{folder}", family="ovis")
    for target in ("ytvis2019", "ytvis2021", "ovis"):
        for split in ("train", "val"):
            name = f"coco2{target}_{split}"
            json_file = f"coco/annotations/{name}.json"
            _add(catalog, name, json_file, f"coco/{split}2017", family="coco")
    for split in ("train", "val"):
        json_file = f"coco/annotations/instances_{split}2017.json"
        _add(catalog, f"coco_2017_{split}", json_file, f"coco/{split}2017", family="coco")
    from . import synthetic  # noqa: F401  (registers on import, needs the catalog to exist)


def _add(catalog: Catalog, name: str, json_file: str, image_root: str, *, family: str) -> None:
    classes = FAMILIES.get(family, [])
    hint = _hint(json_file, image_root, family)
    catalog.register(
        name,
        JsonFile(json_file, image_root, hint),
        classes=list(classes),
        category_ids=list(range(1, len(classes) + 1)),
        evaluator="" if family == "coco" else "ytvis",
        root=json_file.split("/", 1)[0],
        json_file=json_file,
        image_root=image_root,
        prepare=hint,
        family=family,
    )


def _hint(json_file: str, image_root: str, family: str) -> str:
    frames = "<image>.jpg" if family == "coco" else "<video>/00000.jpg"
    command = ""
    if "coco2" in json_file:
        target = json_file.rsplit("/", 1)[1].removeprefix("coco2").rsplit("_", 1)[0]
        command = f"; make it with: python datasets/prepare_coco_to_vis.py {target}"
    return (
        "expected below $VIDSEG_DATASETS (or ./datasets): "
        f"{json_file} and {image_root}/{frames}{command}; see datasets/README.md"
    )
