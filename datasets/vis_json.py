"""What the scripts that convert annotations share: building a YouTube-VIS json file.

Shapes: H W pixels.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidseg import rle
from vidseg.errors import DataError, UserError, nearest
from vidseg.files import make_folder, write_atomically
from vidseg.rle import RLE

__all__ = [
    "VisJson",
    "add_output_options",
    "image_size",
    "paste",
    "read_picture",
    "reason",
    "subfolders",
]


def add_output_options(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds the options that all of these scripts have."""
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"json file to write ({default})")
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="classes in the order of their ids from 1; give the same for training and validation "
        "(those found, sorted)",
    )


class VisJson:
    """Collects videos and objects.

    Args:
        classes: names in the order of their ids from 1; ``None``: those of the objects, sorted.
    """

    def __init__(self, classes: Sequence[str] | None = None) -> None:
        if classes and len(set(classes)) < len(classes):
            raise UserError(f"--classes names a class twice: {' '.join(classes)}")
        self._classes = classes
        self._videos: list[dict[str, Any]] = []
        self._objects: list[tuple[str, dict[str, Any]]] = []

    def add_video(self, files: Sequence[Path], size: tuple[int, int]) -> int:
        """Adds a video.

        Args:
            files: its frames.
            size: (H, W).

        Returns:
            Its id.
        """
        height, width = size
        video = {"id": len(self._videos) + 1, "height": height, "width": width}
        self._videos.append({**video, "length": len(files), "file_names": list(files)})
        return len(self._videos)

    def add_object(
        self, video_id: int, name: str, masks: Mapping[int, RLE], where: str, *, crowd: bool = False
    ) -> None:
        """Adds an object; one without a pixel in any frame is left out.

        Args:
            video_id: its video.
            name: its class.
            masks: by frame; empty ones count as absent.
            where: what has it, for messages.
            crowd: whether it is a region that evaluation ignores.

        Raises:
            DataError: if the class is none of those given, or a mask has another size than the
                video.
        """
        if self._classes is not None and name not in self._classes:
            close = nearest(name, self._classes)
            hint = f"nearest: {', '.join(close)}" if close else "add it to --classes"
            raise DataError(f"{where}: {name!r} is none of the classes given; {hint}")
        video = self._videos[video_id - 1]
        size = (video["height"], video["width"])
        entry: dict[str, Any] = {
            key: [None] * video["length"] for key in ("segmentations", "bboxes", "areas")
        }
        for frame, mask in masks.items():
            if tuple(mask["size"]) != size:
                raise DataError(
                    f"{where}: a mask of frame {frame} is {list(mask['size'])} high and wide, its "
                    f"picture {list(size)}"
                )
            area = rle.area(mask)
            if area:
                entry["segmentations"][frame] = rle.to_text(mask)
                entry["bboxes"][frame] = rle.boxes([mask])[0].tolist()
                entry["areas"][frame] = area
        if any(entry["segmentations"]):
            about = {"video_id": video_id, "iscrowd": int(crowd)}
            self._objects.append((name, {**about, "height": size[0], "width": size[1], **entry}))

    def write(self, path: Path, image_root: Path, *, shown: Path | None = None) -> None:
        """Writes the file, and prints what is in it.

        Args:
            path: of the file.
            image_root: folder that frames are named relative to.
            shown: what it will be called, if it is moved.

        Raises:
            DataError: if there is no object.
        """
        if not self._objects:
            raise DataError(
                f"{shown or image_root} has {len(self._videos)} videos, but no object in them"
            )
        classes = list(self._classes or sorted({name for name, _ in self._objects}))
        root = image_root.resolve()
        content = {
            "image_root": Path(os.path.relpath(root, path.resolve().parent)).as_posix(),
            "categories": [{"id": k + 1, "name": name} for k, name in enumerate(classes)],
            "videos": [
                {
                    **video,
                    "file_names": [
                        Path(os.path.relpath(file.resolve(), root)).as_posix()
                        for file in video["file_names"]
                    ],
                }
                for video in self._videos
            ],
            "annotations": [
                {"id": number, "category_id": classes.index(name) + 1, **entry}
                for number, (name, entry) in enumerate(self._objects, start=1)
            ],
        }
        if path.is_dir():
            raise UserError(f"--out {path} is a folder; name the file to write")
        make_folder(path.resolve().parent, "the folder")
        text = json.dumps(content).encode()
        write_atomically(path, lambda file: file.write(text))
        print(f"{shown or path}: {len(self._videos)} videos, {len(self._objects)} objects")


def subfolders(folder: Path) -> list[Path]:
    """Gives the folders in a folder, sorted, hidden ones left out.

    Raises:
        DataError: if there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def reason(error: Exception) -> str:
    """Says what is wrong with an entry, for those who wrote it."""
    return f"it lacks {error.args[0]!r}" if isinstance(error, KeyError) else str(error)


def image_size(path: Path) -> tuple[int, int]:
    """Gives (H, W) of a picture.

    Raises:
        DataError: if it cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.height, image.width
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def read_picture(path: Path) -> tuple[str, np.ndarray]:
    """Reads a picture as it is stored.

    Returns:
        Mode of Pillow and the array: ``(H, W)`` indices of mode ``P``, else ``(H, W)`` or
        ``(H, W, C)``.

    Raises:
        DataError: if it cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def paste(part: np.ndarray, left: int, top: int, size: tuple[int, int]) -> np.ndarray:
    """Gives a mask ``(H, W)`` in which a part ``(h, w)`` stands, cut at the borders.

    Args:
        part: bool ``(h, w)``.
        left: column of its first pixel.
        top: row of its first pixel.
        size: (H, W).
    """
    mask = np.zeros(size, dtype=bool)
    part = part[max(0, -top) :, max(0, -left) :]
    target = mask[max(0, top) :, max(0, left) :][: part.shape[0], : part.shape[1]]
    target[...] = part[: target.shape[0], : target.shape[1]]
    return mask
