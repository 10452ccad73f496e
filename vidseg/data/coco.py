"""Reading of COCO instance files: every image is a video of one frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .catalog import Record, Records
from .instance_json import Form, Part, load_records, take

__all__ = ["load_coco_json"]


def load_coco_json(
    json_file: str | Path,
    image_root: str | Path,
    *,
    content: dict[str, Any] | None = None,
    strict: bool = True,
) -> Records:
    """Reads and checks a COCO instance file.

    Args:
        json_file: the file.
        image_root: folder that ``file_name`` is relative to.
        content: the parsed file, if the caller has it already.
        strict: see ``instance_json.load_records``.

    Returns:
        One record per image, by ascending id, laid out as ``ytvis.load_ytvis_json`` does it with
        one frame; ``video_id`` is the image id.

    Raises:
        DataError: if the file is missing or broken; names the file, the item and the key.
    """
    form = Form("image", "images", _read_image, _read_parts)
    return load_records(form, json_file, image_root, content, strict=strict)


def _read_image(image: Any, path: Path, image_root: Path) -> Record:
    return {
        "video_id": take(image, "id", path, "an image"),
        "file_names": [str(image_root / take(image, "file_name", path, "image"))],
        "height": int(take(image, "height", path, "image")),
        "width": int(take(image, "width", path, "image")),
        "length": 1,
        "json_file": str(path),
    }


def _read_parts(annotation: Any, _record: Record, _path: Path) -> Iterator[Part]:
    yield "segmentation", annotation.get("segmentation"), annotation.get("bbox")
