"""Reading of YouTube-VIS json files (YouTube-VIS 2019/2021/2022, OVIS and anybody's own).

The file holds ``videos`` (id, file_names, height, width, length), ``categories`` (id, name) and
``annotations``, one per object: id, video_id, category_id, iscrowd and, with one entry per frame,
``segmentations`` (RLE, polygons or null), ``bboxes`` and ``areas``. Test splits lack annotations.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseg.errors import DataError
from vidseg.rle import MIN_POLYGON_NUMBERS

from .catalog import Record, Records

__all__ = [
    "JsonFile",
    "clean_segmentation",
    "find_image_root",
    "load_ytvis_json",
    "read_categories",
    "read_json",
    "take",
]

_FRAME_FOLDERS = ("JPEGImages", "images")


@dataclass(frozen=True)
class JsonFile:
    """Reads one file when called, YouTube-VIS or COCO by its contents; comparable.

    Args:
        json_file: the annotation file; relative paths lie below the data set root.
        image_root: folder of the frames; ``""``: found beside the file.
        hint: how to get the data, added to the message when files are missing.
    """

    json_file: str
    image_root: str = ""
    hint: str = ""

    def __call__(self) -> Records:
        """Gives the records.

        Raises:
            DataError: if the file or the frames are missing, or the file is broken.
        """
        from .catalog import dataset_root
        from .coco import load_coco_json

        path = dataset_root() / self.json_file
        if self.hint and not path.exists():
            raise DataError(f"{path} is missing; {self.hint}")
        content = read_json(path)
        if self.image_root:
            root = dataset_root() / self.image_root
        else:
            root = find_image_root(path, content)
        is_coco = "images" in content and "videos" not in content
        load = load_coco_json if is_coco else load_ytvis_json
        return load(path, root, content=content)


def load_ytvis_json(
    json_file: str | Path, image_root: str | Path, *, content: dict[str, Any] | None = None
) -> Records:
    """Reads and checks a YouTube-VIS file.

    Args:
        json_file: the file.
        image_root: folder that ``file_names`` are relative to.
        content: the parsed file, if the caller has it already.

    Returns:
        One record per video, by ascending id: ``file_names`` (with the folder), ``height``,
        ``width``, ``length``, ``video_id``, ``json_file`` and, if the file has annotations,
        ``annotations``: per frame the objects that are there, as ``id``, ``category_id``
        (contiguous, by ascending id of the file), ``segmentation``, ``bbox``, ``iscrowd``.

    Raises:
        DataError: if the file is missing or broken; names the file, the item and the key.
    """
    path = Path(json_file)
    content = read_json(path) if content is None else content
    classes, category_ids = read_categories(content, path)
    videos = _list(content, "videos", path)
    if not videos:
        raise DataError(f"{path}: videos is empty")
    records: dict[Any, Record] = {}
    for video in videos:
        record = _read_video(video, path, Path(image_root))
        if record["video_id"] in records:
            raise DataError(f"{path}: two videos have the id {record['video_id']}")
        records[record["video_id"]] = record
    annotated = content.get("annotations") is not None
    if annotated:
        for record in records.values():
            record["annotations"] = [[] for _ in range(record["length"])]
        labels = {category: label for label, category in enumerate(category_ids)}
        seen: set[Any] = set()
        for annotation in _list(content, "annotations", path):
            _add_annotation(annotation, records, labels, seen, path)
    ordered = [records[key] for key in sorted(records)]
    _check_frames_exist(ordered[0], Path(image_root), path)
    return Records(
        ordered,
        classes=classes,
        category_ids=category_ids,
        annotated=annotated,
        image_root=str(image_root),
    )


def find_image_root(json_file: Path, content: dict[str, Any]) -> Path:
    """Gives the folder of the frames of a file that lies anywhere.

    It is what the file's key ``image_root`` names, else a usual folder beside the file, else the
    file's own folder.
    """
    parent = json_file.parent
    if isinstance(content.get("image_root"), str):
        return parent / content["image_root"]
    found = [parent / name for name in _FRAME_FOLDERS if (parent / name).is_dir()]
    return found[0] if found else parent


def read_json(path: Path) -> dict[str, Any]:
    """Reads a json file whose top level is an object.

    Raises:
        DataError: if it is missing, no json (with the line) or another kind of json.
    """
    try:
        with path.open(encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path} is not valid json: {error.msg} in line {error.lineno}, column {error.colno}"
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not valid json: it is not UTF-8 text") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, expected an object with videos")
    return content


def read_categories(content: dict[str, Any], path: Path) -> tuple[list[str], list[int]]:
    """Gives names and ids of the classes by ascending id.

    Raises:
        DataError: if there are none, or a key is missing or an id occurs twice.
    """
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


def clean_segmentation(segmentation: Any, height: int, width: int, where: str) -> Any:
    """Checks a segmentation without decoding it; ``None`` if the object is absent.

    Polygons that are no area (fewer than three points, an odd number of coordinates) are dropped.

    Raises:
        DataError: if it has an unknown form or an RLE of another size; begins with ``where``.
    """
    if not segmentation:
        return None
    if isinstance(segmentation, list):
        kept = [p for p in segmentation if _is_polygon(p)]
        return kept or None
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise DataError(f"{where} is neither an RLE (size, counts) nor a list of polygons")
    size = segmentation["size"]
    if list(size) != [height, width]:
        raise DataError(
            f"{where} has size {list(size)}, but the video is {height} high and {width} wide"
        )
    return segmentation


def take(item: Any, key: str, path: Path, what: str) -> Any:
    """Gives ``item[key]``.

    Raises:
        DataError: if it is missing; names file, item and key.
    """
    if not isinstance(item, dict) or item.get(key) is None:
        label = f" {item['id']}" if isinstance(item, dict) and key != "id" and "id" in item else ""
        raise DataError(f"{path}: {what}{label} lacks the key {key}")
    return item[key]


def _list(content: dict[str, Any], key: str, path: Path) -> list[Any]:
    value = content.get(key)
    if value is None:
        found = ", ".join(sorted(content)) or "none"
        raise DataError(f"{path} lacks the key {key}; found: {found}")
    if not isinstance(value, list):
        raise DataError(f"{path}: {key} is a {type(value).__name__}, expected a list")
    return value


def _read_video(video: Any, path: Path, image_root: Path) -> Record:
    video_id = take(video, "id", path, "a video")
    names = take(video, "file_names", path, "video")
    height, width = (take(video, key, path, "video") for key in ("height", "width"))
    if not isinstance(names, list) or not names:
        raise DataError(f"{path}: video {video_id} has no frames: file_names is empty")
    length = video.get("length", len(names))
    if length != len(names):
        raise DataError(
            f"{path}: video {video_id} has length {length}, but {len(names)} file_names"
        )
    if not all(isinstance(side, int) and side > 0 for side in (height, width)):
        raise DataError(
            f"{path}: video {video_id} has height {height!r} and width {width!r}, "
            "expected positive integers"
        )
    return {
        "file_names": [str(image_root / name) for name in names],
        "height": height,
        "width": width,
        "length": length,
        "video_id": video_id,
        "json_file": str(path),
    }


def _add_annotation(
    annotation: Any,
    records: dict[Any, Record],
    labels: dict[int, int],
    seen: set[Any],
    path: Path,
) -> None:
    key = take(annotation, "id", path, "an annotation")
    if key in seen:
        raise DataError(f"{path}: two annotations have the id {key}")
    seen.add(key)
    video_id = take(annotation, "video_id", path, "annotation")
    category = take(annotation, "category_id", path, "annotation")
    segmentations = take(annotation, "segmentations", path, "annotation")
    if video_id not in records:
        raise DataError(f"{path}: annotation {key} has video_id {video_id}, which is no video")
    if category not in labels:
        raise DataError(
            f"{path}: annotation {key} has category_id {category}, which is not in categories"
        )
    record = records[video_id]
    if len(segmentations) != record["length"]:
        raise DataError(
            f"{path}: annotation {key} has {len(segmentations)} segmentations, "
            f"but video {video_id} has {record['length']} frames"
        )
    boxes = annotation.get("bboxes") or [None] * len(segmentations)
    crowd = int(annotation.get("iscrowd") or 0)
    for frame, (segmentation, box) in enumerate(zip(segmentations, boxes, strict=False)):
        where = f"{path}: annotation {key}, segmentations[{frame}]"
        kept = clean_segmentation(segmentation, record["height"], record["width"], where)
        if kept is not None:
            record["annotations"][frame].append(
                {
                    "id": key,
                    "category_id": labels[category],
                    "segmentation": kept,
                    "bbox": box,
                    "iscrowd": crowd,
                }
            )


def _is_polygon(polygon: Any) -> bool:
    if not isinstance(polygon, list):
        return False
    return len(polygon) >= MIN_POLYGON_NUMBERS and len(polygon) % 2 == 0


def _check_frames_exist(record: Record, image_root: Path, path: Path) -> None:
    """Looks at one frame, so that a wrong folder is told at the start and not by a worker."""
    first = Path(record["file_names"][0])
    if not first.exists():
        raise DataError(
            f"the frames of {path} are missing: there is no {first}; file_names are looked up "
            f"below {image_root}"
        )
