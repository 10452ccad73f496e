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
_FRAMES = {
    "ytvis": "<video>/00000.jpg",
    "ovis": "<video>/img_0000001.jpg",
    "coco": "000000000009.jpg",
}
_YTVIS = "get it from https://youtube-vos.org/dataset/vis/ (registration)"
_OVIS = "get it from https://songbai.site/ovis/"
_COCO = "get images and annotations of 2017 from https://cocodataset.org/#download"


def register_builtin(catalog: Catalog) -> None:
    """Adds the public data sets; importing the synthetic module adds the embedded ones."""
    for year in ("2019", "2021"):
        for split, folder in _SPLITS.items():
            root = f"ytvis_{year}"
            step = f"{_YTVIS}, and rename {folder}/instances.json to {folder}.json"
            images = f"{root}/{folder}/JPEGImages"
            _add(catalog, f"{root}_{split}", f"{root}/{folder}.json", images, root, step)
    for year in ("2022", "2023"):
        # The valid splits of these years extend 2021 and share its classes.
        root = f"ytvis_{year}/valid"
        json_file, images = f"{root}/instances.json", f"{root}/JPEGImages"
        _add(catalog, f"ytvis_{year}_val", json_file, images, "ytvis_2021", _YTVIS)
    for split, folder in _SPLITS.items():
        json_file = f"ovis/annotations/annotations_{folder}.json"
        _add(catalog, f"ovis_{split}", json_file, f"ovis/{folder}", "ovis", _OVIS)
    for target in ("ytvis2019", "ytvis2021", "ovis"):
        step = f"{_COCO}, and run: python datasets/prepare_coco_to_vis.py {target}"
        for split in ("train", "val"):
            name = f"coco2{target}_{split}"
            json_file = f"coco/annotations/{name}.json"
            _add(catalog, name, json_file, f"coco/{split}2017", "coco", step)
    for split in ("train", "val"):
        json_file = f"coco/annotations/instances_{split}2017.json"
        _add(catalog, f"coco_2017_{split}", json_file, f"coco/{split}2017", "coco", _COCO)
    from . import synthetic  # noqa: F401  (registers on import, needs the catalog to exist)


def _add(
    catalog: Catalog, name: str, json_file: str, image_root: str, family: str, step: str
) -> None:
    classes = FAMILIES.get(family, [])
    frames = _FRAMES[family.partition("_")[0]]
    hint = _hint(json_file, f"{image_root}/{frames}", step)
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


def _hint(json_file: str, frames: str, step: str) -> str:
    return (
        "expected below $VIDSEG_DATASETS (or ./datasets):\n"
        f"    {json_file}\n"
        f"    {frames}\n"
        f"to prepare it, {step}; see datasets/README.md"
    )
