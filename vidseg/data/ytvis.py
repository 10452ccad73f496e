"""Reading of YouTube-VIS json files (YouTube-VIS 2019/2021/2022, OVIS and anybody's own).

The file holds ``videos`` (id, file_names, height, width, length), ``categories`` (id, name) and
``annotations``, one per object: id, video_id, category_id, iscrowd and, with one entry per frame,
``segmentations`` (RLE, polygons or null), ``bboxes`` and ``areas``. Test splits lack annotations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseg.errors import DataError

from .catalog import Record, Records, dataset_root
from .coco import load_coco_json
from .features import load_feature_index
from .instance_json import Form, Part, load_records, read_content, take

__all__ = ["JsonFile", "find_image_root", "load_ytvis_json"]

_FRAME_FOLDERS = ("JPEGImages", "images")


@dataclass(frozen=True)
class JsonFile:
    """Reads one file when called: YouTube-VIS, COCO or an index of documents; comparable.

    Args:
        json_file: the annotation file; relative paths lie below the data set root.
        image_root: folder of the frames; ``""``: found beside the file.
        hint: how to get the data, added to the message when files are missing.
    """

    json_file: str
    image_root: str = ""
    hint: str = ""

    def __call__(self) -> Records:
        """Gives the records; those without all their frames are told in ``Records.damaged``.

        Raises:
            DataError: if the file or all frames are missing, or the file is broken.
        """
        self.require()
        path = dataset_root() / self.json_file
        content = read_content(path)
        if "documents" in content:
            records = load_feature_index(path, content=content)
            records.about["evaluator"] = ""  # whose it is depends on the model
            return records
        if self.image_root:
            root = dataset_root() / self.image_root
        else:
            root = find_image_root(path, content)
        is_coco = "images" in content and "videos" not in content
        load = load_coco_json if is_coco else load_ytvis_json
        return load(path, root, content=content, strict=False)

    def require(self) -> None:
        """Checks that the file is there and, if its place is known, the folder of the frames.

        Raises:
            DataError: if not; says how to get them.
        """
        for name in filter(None, (self.json_file, self.image_root)):
            path = dataset_root() / name
            if path.exists():
                continue
            message = f"{path} is missing"
            if self.hint:
                from .checks.layouts import seen_elsewhere  # which needs the catalog

                message += f"{seen_elsewhere(name, dataset_root())}; {self.hint}"
            raise DataError(message)


def load_ytvis_json(
    json_file: str | Path,
    image_root: str | Path,
    *,
    content: dict[str, Any] | None = None,
    strict: bool = True,
) -> Records:
    """Reads and checks a YouTube-VIS file.

    Args:
        json_file: the file.
        image_root: folder that ``file_names`` are relative to.
        content: the parsed file, if the caller has it already.
        strict: see ``instance_json.load_records``.

    Returns:
        One record per video, by ascending id: ``file_names`` (with the folder), ``height``,
        ``width``, ``length``, ``video_id``, ``json_file`` and, if the file has annotations,
        ``annotations``: per frame the objects that are there, as ``id``, ``category_id``
        (contiguous, by ascending id of the file), ``segmentation``, ``bbox``, ``iscrowd``.

    Raises:
        DataError: if the file is missing or broken; names the file, the item and the key.
    """
    form = Form("video", "frames", _read_video, _read_parts)
    return load_records(form, json_file, image_root, content, strict=strict)


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


def _read_video(video: Any, path: Path, image_root: Path) -> Record:
    video_id = take(video, "id", path, "a video")
    names = take(video, "file_names", path, "video")
    height, width = (take(video, key, path, "video") for key in ("height", "width"))
    if not isinstance(names, list):
        raise DataError(f"{path}: video {video_id}: file_names is no list, but {names!r}")
    if not names:
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


def _read_parts(annotation: Any, record: Record, path: Path) -> Iterator[Part]:
    segmentations = take(annotation, "segmentations", path, "annotation")
    if len(segmentations) != record["length"]:
        raise DataError(
            f"{path}: annotation {annotation['id']} has {len(segmentations)} segmentations, "
            f"but video {record['video_id']} has {record['length']} frames"
        )
    boxes = annotation.get("bboxes") or [None] * len(segmentations)
    if len(boxes) != len(segmentations):
        raise DataError(
            f"{path}: annotation {annotation['id']} has {len(segmentations)} segmentations, "
            f"but {len(boxes)} bboxes"
        )
    for frame, (segmentation, box) in enumerate(zip(segmentations, boxes, strict=True)):
        yield f"segmentations[{frame}]", segmentation, box
