"""What json files of instances have in common, whether they list videos or images.

``ytvis`` and ``coco`` each describe their form; everything around it is read here. Whatever is
wrong in a file is told in one sentence that names the file, the item and the key.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidseg.errors import DataError
from vidseg.files import read_json
from vidseg.mask_runs import MaskError, read_areas
from vidseg.rle import MIN_POLYGON_NUMBERS, from_text

from .catalog import Record, Records

__all__ = ["Form", "Part", "load_records", "read_content", "take"]

Part = tuple[str, Any, Any]
"""An object in one frame: key of its segmentation for messages, the segmentation, its box."""


@dataclass(frozen=True)
class Form:
    """What differs between the forms.

    Args:
        item: ``"video"`` or ``"image"``; the file lists them under the plural.
        frames: what the pictures are called in a message.
        read_item: makes the record of an item, without annotations, from the item, the path of
            the file and the folder of the frames.
        read_parts: gives what an annotation says about every frame of its record, from the
            annotation, the record and the path of the file.
    """

    item: str
    frames: str
    read_item: Callable[[Any, Path, Path], Record]
    read_parts: Callable[[Any, Record, Path], Iterable[Part]]


def load_records(
    form: Form,
    json_file: str | Path,
    image_root: str | Path,
    content: dict[str, Any] | None,
    *,
    strict: bool,
) -> Records:
    """Reads and checks a file.

    Args:
        form: of the file.
        json_file: the file.
        image_root: folder that file names are relative to.
        content: the parsed file, if the caller has it already.
        strict: refuse a file of which any frame is missing; else such items are told in
            ``Records.damaged``.

    Returns:
        One record per item, by ascending id.

    Raises:
        DataError: if the file is missing or broken, or no item has all its frames.
    """
    path = Path(json_file)
    content = read_content(path) if content is None else content
    with _told(f"{path}: categories"):
        classes, category_ids = _read_categories(content, path)
    records = _read_items(form, content, path, Path(image_root))
    annotated = content.get("annotations") is not None
    if annotated:
        labels = {category: label for label, category in enumerate(category_ids)}
        _add_annotations(form, content, records, labels, path)
        _check_runs(form, records, path)
    with _told(f"{path}: {form.item}s"):
        ordered = [records[key] for key in sorted(records)]
    damaged = _missing_frames(form, ordered, Path(image_root), path)
    if damaged and (strict or len(damaged) == len(ordered)):
        raise DataError(next(iter(damaged.values())))
    return Records(
        ordered,
        classes=classes,
        category_ids=category_ids,
        annotated=annotated,
        image_root=str(image_root),
        damaged=damaged,
    )


def read_content(path: Path) -> dict[str, Any]:
    """Reads an annotation file as far as that it is json with an object at the top.

    Raises:
        DataError: if it is missing, no json (with the line) or another kind of json.
    """
    content = read_json(path, what="annotation file")
    if not isinstance(content, dict):
        raise DataError(
            f"{path} holds a {type(content).__name__}, expected an object with videos or images"
        )
    return content


def take(item: Any, key: str, path: Path, what: str) -> Any:
    """Gives ``item[key]``.

    Raises:
        DataError: if it is missing; names file, item and key.
    """
    if not isinstance(item, dict) or item.get(key) is None:
        label = f" {item['id']}" if isinstance(item, dict) and key != "id" and "id" in item else ""
        raise DataError(f"{path}: {what}{label} lacks the key {key}")
    return item[key]


def _read_categories(content: dict[str, Any], path: Path) -> tuple[list[str], list[int]]:
    """Gives names and ids of the classes by ascending id."""
    names: dict[int, str] = {}
    for category in _list(content, "categories", path):
        key = take(category, "id", path, "a category")
        if key in names:
            raise DataError(f"{path}: two categories have the id {key}")
        names[key] = str(category.get("name", key))
    if not names:
        raise DataError(f"{path}: categories is empty")
    ids = sorted(names)
    return [names[key] for key in ids], ids


def _read_items(
    form: Form, content: dict[str, Any], path: Path, image_root: Path
) -> dict[Any, Record]:
    plural = f"{form.item}s"
    records: dict[Any, Record] = {}
    for item in _list(content, plural, path):
        with _told(f"{path}: {form.item} {_id_of(item)}"):
            record = form.read_item(item, path, image_root)
            key = record["video_id"]
            if key in records:
                raise DataError(f"{path}: two {plural} have the id {key}")
            records[key] = record
    if not records:
        raise DataError(f"{path}: {plural} is empty")
    return records


def _add_annotations(
    form: Form,
    content: dict[str, Any],
    records: dict[Any, Record],
    labels: dict[int, int],
    path: Path,
) -> None:
    for record in records.values():
        record["annotations"] = [[] for _ in range(record["length"])]
    seen: set[Any] = set()
    for annotation in _list(content, "annotations", path):
        with _told(f"{path}: annotation {_id_of(annotation)}"):
            key = take(annotation, "id", path, "an annotation")
            if key in seen:
                raise DataError(f"{path}: two annotations have the id {key}")
            seen.add(key)
            _add_annotation(form, annotation, records, labels, path)


def _add_annotation(
    form: Form, annotation: Any, records: dict[Any, Record], labels: dict[int, int], path: Path
) -> None:
    where = f"{path}: annotation {annotation['id']}"
    owner = take(annotation, f"{form.item}_id", path, "annotation")
    category = take(annotation, "category_id", path, "annotation")
    if owner not in records:
        raise DataError(f"{where} has {form.item}_id {owner!r}, which is no {form.item}")
    if category not in labels:
        raise DataError(f"{where} has category_id {category!r}, which is not in categories")
    record = records[owner]
    crowd = int(annotation.get("iscrowd") or 0)
    for frame, (name, segmentation, box) in enumerate(form.read_parts(annotation, record, path)):
        kept = _clean_segmentation(segmentation, record, f"{where}, {name}", form.item)
        if kept is not None:
            record["annotations"][frame].append(
                {
                    "id": annotation["id"],
                    "category_id": labels[category],
                    "segmentation": kept,
                    "bbox": box,
                    "iscrowd": crowd,
                }
            )


def _clean_segmentation(segmentation: Any, record: Record, where: str, item: str) -> Any:
    """Checks a segmentation without decoding it; ``None`` if the object is absent.

    Polygons that are no area (fewer than three points, an odd number of coordinates) are dropped.
    """
    if not segmentation:
        return None
    if isinstance(segmentation, list):
        kept = [p for p in segmentation if _is_polygon(p)]
        return kept or None
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise DataError(f"{where} is neither an RLE (size, counts) nor a list of polygons")
    size, (height, width) = segmentation["size"], (record["height"], record["width"])
    if list(size) != [height, width]:
        raise DataError(
            f"{where} has size {list(size)}, but the {item} is {height} high and {width} wide"
        )
    return segmentation


def _check_runs(form: Form, records: dict[Any, Record], path: Path) -> None:
    """Refuses an RLE whose runs do not cover its size, of which decoding may make anything."""
    texts: list[str] = []
    places: list[tuple[Record, int, dict[str, Any]]] = []
    numbers = []  # of texts, by record
    for record in records.values():
        known = len(texts)
        for frame, items in enumerate(record["annotations"]):
            for item in items:
                mask = item["segmentation"]
                if type(mask) is dict and type(mask["counts"]) is str:
                    texts.append(mask["counts"])
                    places.append((record, frame, item))
                elif type(mask) is dict:
                    with _told(_place_of(form, (record, frame, item), path)):
                        from_text(mask)
        numbers.append(len(texts) - known)
    heights, widths = (
        np.repeat([record[side] for record in records.values()], numbers)
        for side in ("height", "width")
    )
    try:
        read_areas(texts, heights, widths)
    except MaskError as error:
        raise DataError(f"{_place_of(form, places[error.index], path)}: {error}") from None


def _place_of(form: Form, place: tuple[Record, int, dict[str, Any]], path: Path) -> str:
    record, frame, item = place
    where = f"{path}: annotation {item['id']}, {form.item} {record['video_id']}"
    return f"{where}, frame {frame}" if form.item == "video" else where


def _is_polygon(polygon: Any) -> bool:
    if not isinstance(polygon, list):
        return False
    return len(polygon) >= MIN_POLYGON_NUMBERS and len(polygon) % 2 == 0


def _list(content: dict[str, Any], key: str, path: Path) -> list[Any]:
    value = content.get(key)
    if value is None:
        found = ", ".join(sorted(content)) or "none"
        raise DataError(f"{path} lacks the key {key}; found: {found}")
    if not isinstance(value, list):
        raise DataError(f"{path}: {key} is a {type(value).__name__}, expected a list")
    return value


def _missing_frames(
    form: Form, records: Iterable[Record], image_root: Path, path: Path
) -> dict[Any, str]:
    """Looks for all frames, so that a missing one is told at the start and not hours later.

    Returns:
        A message by id for every record of which a frame is missing.
    """
    listed: dict[str, set[str]] = {}
    damaged: dict[Any, str] = {}
    for record in records:
        for file_name in record["file_names"]:
            folder, name = os.path.split(file_name)
            if folder not in listed:
                listed[folder] = _names_in(folder)
            # A name may differ from the listed one in case where the file system does not care.
            if name not in listed[folder] and not os.path.exists(file_name):
                damaged[record["video_id"]] = (
                    f"the {form.frames} of {path} are missing: there is no {file_name}; file names "
                    f"are looked up below {image_root}"
                )
                break
    return damaged


def _names_in(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def _id_of(item: Any) -> str:
    return str(item.get("id", "without id")) if isinstance(item, dict) else repr(item)[:40]


@contextlib.contextmanager
def _told(where: str) -> Iterator[None]:
    """Turns what a value of a wrong kind sets off into a sentence that names the place."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
        raise DataError(f"{where} cannot be read: {error}") from error
