"""vidseg's data sets in detectron2's catalogs, by name and on request only.

Two layouts. ``"video"``: one dict per video, as the video systems that are built on detectron2 lay
them out: ``file_names``, ``height``, ``width``, ``length``, ``video_id`` and ``annotations``, a
list of objects for each frame, with their track under ``id``. ``"image"``: one dict per frame in
detectron2's standard form, with ``file_name``, ``image_id`` and ``annotations``, with their track
under ``track_id``; what trains on images trains on these. A frame of a video also has ``video_id``
and ``frame_index``, and images are numbered through; a single image keeps its id.

detectron2's own loader filters and counts the objects of images. For the video layout switch that
off: ``DATALOADER.FILTER_EMPTY_ANNOTATIONS False``, and ``ASPECT_RATIO_GROUPING False``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from vidseg import rle
from vidseg.data import DatasetCatalog, Metadata, Record
from vidseg.errors import ConfigError, DataError

from .available import require

__all__ = ["register_datasets"]

logger = logging.getLogger(__name__)

_OWNER = "is_of_vidseg"  # attribute of the metadata


def register_datasets(names: str | Sequence[str], *, layout: str = "video") -> list[str]:
    """Adds data sets of vidseg to detectron2's ``DatasetCatalog`` and ``MetadataCatalog``.

    Nothing is read before detectron2 asks for it, unless the classes are only known from the file.
    The metadata has ``thing_classes``, ``thing_dataset_id_to_contiguous_id``, ``evaluator_type``
    (``"coco"`` for images), ``image_root`` and, for videos, ``json_file``. A name may be registered
    any number of times.

    Args:
        names: of vidseg's catalog, or paths that it takes.
        layout: ``"video"``, or ``"image"``, which appends ``_images`` to the names.

    Returns:
        The names in detectron2's catalog. One that somebody else has there gets the prefix
        ``vidseg.``, which is logged.

    Raises:
        ConfigError: if there is no such layout.
        DataError: if a data set is unknown or does not hold frames.
    """
    if layout not in _LAYOUTS:
        raise ConfigError(f"there is no layout {layout!r}; choose video or image")
    return [_register(name, layout) for name in ([names] if isinstance(names, str) else names)]


def _register(name: str, layout: str) -> str:
    catalogs = require("data")
    known = DatasetCatalog.metadata(name)
    if known.feature_dim:
        raise DataError(f"{name} holds features, which detectron2 has no form for")
    wanted = f"{name}_images" if layout == "image" else name
    registered = catalogs.DatasetCatalog.list()
    is_taken = wanted in registered and not _is_ours(catalogs, wanted)
    chosen = f"vidseg.{wanted}" if is_taken else wanted
    if chosen in registered:
        return chosen
    if is_taken:
        logger.warning("detectron2 has a data set %s already; vidseg's is %s", wanted, chosen)
    dicts_of = _LAYOUTS[layout]
    catalogs.DatasetCatalog.register(chosen, lambda: dicts_of(name))
    catalogs.MetadataCatalog.get(chosen).set(**_metadata(known, layout))
    return chosen


def _is_ours(catalogs: Any, name: str) -> bool:
    return bool(catalogs.MetadataCatalog.get(name).get(_OWNER, False))


def _metadata(known: Metadata, layout: str) -> dict[str, Any]:
    about: dict[str, Any] = {
        _OWNER: True,
        "thing_classes": list(known.classes),
        "thing_dataset_id_to_contiguous_id": {
            category: label for label, category in enumerate(known.category_ids)
        },
        "evaluator_type": "coco" if layout == "image" else known.evaluator,
        "image_root": known.image_root,
    }
    # Of images, their evaluator writes a file of its own: ours lists videos.
    return about if layout == "image" else {**about, "json_file": known.json_file}


def _video_dicts(name: str) -> list[dict[str, Any]]:
    dicts = []
    for record in DatasetCatalog.get(name):
        annotations = record.get("annotations")
        made = dict(record)
        if annotations is not None:
            made["annotations"] = [
                [_object(item, record) for item in frame] for frame in annotations
            ]
        dicts.append(made)
    return dicts


def _image_dicts(name: str) -> list[dict[str, Any]]:
    dicts: list[dict[str, Any]] = []
    for record in DatasetCatalog.get(name):
        if len(record["file_names"]) != record["length"]:
            raise DataError(
                f"{name}: video {record['video_id']} has no image files; register it as videos, "
                "and let the mapper of vidseg read them"
            )
        for index, file_name in enumerate(record["file_names"]):
            made = {
                "file_name": file_name,
                "height": record["height"],
                "width": record["width"],
                "image_id": record["video_id"],
            }
            if record["length"] > 1:
                made.update(image_id=len(dicts), video_id=record["video_id"], frame_index=index)
            if "annotations" in record:
                frame = [_object(item, record) for item in record["annotations"][index]]
                for item in frame:
                    item["track_id"] = item.pop("id")
                made["annotations"] = frame
            dicts.append(made)
    return dicts


def _object(item: dict[str, Any], record: Record) -> dict[str, Any]:
    """Gives an object of a frame with what detectron2 wants of it: its box, and a compressed mask.

    Raises:
        DataError: if the mask is broken.
    """
    segmentation, box = item["segmentation"], item.get("bbox")
    try:
        if isinstance(segmentation, dict):
            segmentation = rle.from_text(segmentation)
        if box is None:
            mask = rle.from_segmentation(segmentation, record["height"], record["width"])
            box = rle.boxes([mask])[0].tolist() if mask is not None else [0.0] * 4
    except ValueError as error:
        where = record.get("json_file") or "data set"
        raise DataError(f"{where}: annotation {item['id']}: segmentation: {error}") from None
    mode = require("structures").BoxMode.XYWH_ABS
    return {**item, "segmentation": segmentation, "bbox": box, "bbox_mode": mode}


_LAYOUTS: dict[str, Callable[[str], list[dict[str, Any]]]] = {
    "video": _video_dicts,
    "image": _image_dicts,
}
