"""Reading of COCO instance files: every image is a video of one frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidseg.errors import DataError

from .catalog import Record, Records
from .ytvis import clean_segmentation, read_categories, read_json, take

__all__ = ["load_coco_json"]


def load_coco_json(
    json_file: str | Path, image_root: str | Path, *, content: dict[str, Any] | None = None
) -> Records:
    """Reads and checks a COCO instance file.

    Args:
        json_file: the file.
        image_root: folder that ``file_name`` is relative to.
        content: the parsed file, if the caller has it already.

    Returns:
        One record per image, by ascending id, laid out as ``ytvis.load_ytvis_json`` does it with
        one frame; ``video_id`` is the image id.

    Raises:
        DataError: if the file is missing or broken; names the file, the item and the key.
    """
    path = Path(json_file)
    content = read_json(path) if content is None else content
    classes, category_ids = read_categories(content, path)
    records = {}
    for image in take(content, "images", path, "the file"):
        record = _read_image(image, path, Path(image_root))
        records[record["video_id"]] = record
    if not records:
        raise DataError(f"{path}: images is empty")
    annotated = content.get("annotations") is not None
    if annotated:
        for record in records.values():
            record["annotations"] = [[]]
        labels = {category: label for label, category in enumerate(category_ids)}
        for annotation in content["annotations"]:
            _add_annotation(annotation, records, labels, path)
    ordered = [records[key] for key in sorted(records)]
    first = Path(ordered[0]["file_names"][0])
    if not first.exists():
        raise DataError(f"the images of {path} are missing: there is no {first}")
    return Records(
        ordered,
        classes=classes,
        category_ids=category_ids,
        annotated=annotated,
        image_root=str(image_root),
    )


def _read_image(image: Any, path: Path, image_root: Path) -> Record:
    return {
        "video_id": take(image, "id", path, "an image"),
        "file_names": [str(image_root / take(image, "file_name", path, "image"))],
        "height": int(take(image, "height", path, "image")),
        "width": int(take(image, "width", path, "image")),
        "length": 1,
        "json_file": str(path),
    }


def _add_annotation(
    annotation: Any, records: dict[Any, Record], labels: dict[int, int], path: Path
) -> None:
    key = take(annotation, "id", path, "an annotation")
    image_id = take(annotation, "image_id", path, "annotation")
    category = take(annotation, "category_id", path, "annotation")
    if image_id not in records:
        raise DataError(f"{path}: annotation {key} has image_id {image_id}, which is no image")
    if category not in labels:
        raise DataError(
            f"{path}: annotation {key} has category_id {category}, which is not in categories"
        )
    record = records[image_id]
    kept = clean_segmentation(
        annotation.get("segmentation"),
        record["height"],
        record["width"],
        f"{path}: annotation {key}, segmentation",
    )
    if kept is not None:
        record["annotations"][0].append(
            {
                "id": key,
                "category_id": labels[category],
                "segmentation": kept,
                "bbox": annotation.get("bbox"),
                "iscrowd": int(annotation.get("iscrowd") or 0),
            }
        )
