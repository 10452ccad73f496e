"""Data sets of videos without labels: any folder of video files, of folders of pictures, or both.

A folder that holds pictures itself is one video. Nothing says what is in the videos, so such a set
is for models that learn without labels, and to look at what a model sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidseg.errors import DataError
from vidseg.video.images import list_images, list_videos, name_videos
from vidseg.video.io import VideoReader

from .catalog import Record, Records, dataset_root

__all__ = ["VideoFolder", "holds_videos", "load_video_folder", "video_images"]


@dataclass(frozen=True)
class VideoFolder:
    """Reads a folder of videos when called; comparable.

    Args:
        folder: relative paths lie below the data set root.
    """

    folder: str

    def __call__(self) -> Records:
        """Gives the records; videos that cannot be opened are told in ``Records.damaged``.

        Raises:
            DataError: if the folder is missing, or none of its videos can be opened.
        """
        self.require()
        return load_video_folder(dataset_root() / self.folder)

    def require(self) -> None:
        """Checks that the folder is there.

        Raises:
            DataError: if not.
        """
        folder = dataset_root() / self.folder
        if not folder.is_dir():
            raise DataError(f"the folder of videos {folder} is missing")


def holds_videos(folder: Path) -> bool:
    """Tells whether a folder is a video or holds some; hidden files do not count."""
    found = list_videos(folder)
    if found != [folder]:
        return True
    try:
        return bool(list_images(folder))
    except DataError:
        return False


def load_video_folder(folder: str | Path) -> Records:
    """Finds the videos of a folder, in natural order, and opens each.

    Returns:
        One record per video: ``video_id`` (its name without suffix), ``height``, ``width``,
        ``length`` (as its header announces it: a damaged file may hold fewer frames),
        ``json_file`` (the folder) and ``file_names`` of the pictures, or ``video_file`` and no
        ``file_names``.

    Raises:
        DataError: if none can be opened.
    """
    root = Path(folder)
    paths = list_videos(root)
    records: list[Record] = []
    damaged: dict[Any, str] = {}
    for path, name in zip(paths, name_videos(paths), strict=True):
        record: Record = {"video_id": name, "json_file": str(root), "file_names": []}
        if path.is_dir():
            record["file_names"] = [str(file) for file in list_images(path)]
        else:
            record["video_file"] = str(path)
        try:
            record.update(_measure(path))
        except DataError as error:
            damaged[name] = str(error)
            record.update(height=0, width=0, length=0)
        records.append(record)
    if len(damaged) == len(records):
        raise DataError(next(iter(damaged.values())))
    return Records(
        records, annotated=False, image_root=str(root), damaged=damaged, about={"evaluator": ""}
    )


def video_images(record: Record) -> Iterator[np.ndarray]:
    """Decodes the file of a record of ``load_video_folder``, uint8 ``(H, W, 3)`` each.

    Raises:
        DataError: if it cannot be opened or not a single frame decodes.
    """
    return iter(VideoReader(record["video_file"]))


def _measure(path: Path) -> dict[str, int]:
    reader = VideoReader(path)
    height, width = reader.info.size
    length = reader.info.num_frames
    if length is None:
        length = sum(1 for _ in reader)
    return {"height": height, "width": width, "length": length}
