"""Reads ordinary videos at the size that a model looks at, and their masks as label maps.

Shapes: T frames of H x W pixels.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg import rle
from vidseg.data.catalog import Record
from vidseg.data.frame_files import read_image
from vidseg.data.synthetic import cache_root
from vidseg.data.transforms import Resize, nearest_indices
from vidseg.data.video_folder import video_images
from vidseg.errors import DataError
from vidseg.files import write_atomically

__all__ = ["FrameCache", "read_frames", "read_label_maps", "reduce_frames", "reduce_labels"]

_VERSION = 1  # of the files
_MOST_SUMMED = 128  # uint8 numbers that an int16 holds the sum of
_logger = logging.getLogger(__name__)


def reduce_frames(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Gives uint8 frames ``(T, 3, H, W)`` another size; a pixel is the mean of what it covers."""
    if tuple(frames.shape[-2:]) == size:
        return frames
    height, width = frames.shape[-2] // size[0], frames.shape[-1] // size[1]
    is_whole = (height * size[0], width * size[1]) == tuple(frames.shape[-2:])
    if is_whole and height * width <= _MOST_SUMMED:  # many times as fast as floats
        total = torch.zeros(*frames.shape[:-2], *size, dtype=torch.int16)
        for row, column in itertools.product(range(height), range(width)):
            total += frames[..., row::height, column::width]
        return ((total + height * width // 2) // (height * width)).to(torch.uint8)
    return F.interpolate(frames.float(), size=size, mode="area").round_().to(torch.uint8)


def reduce_labels(label_maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Gives label maps ``(T, H, W)`` another size; each pixel has the label of one old pixel."""
    rows, columns = (
        torch.from_numpy(nearest_indices(*sides))
        for sides in zip(label_maps.shape[-2:], size, strict=True)
    )
    return label_maps[:, rows][:, :, columns]


def read_frames(record: Record, size: tuple[int, int]) -> Tensor:
    """Reads all frames of a video.

    Args:
        record: see ``catalog.Record``.
        size: (H, W) to resize to.

    Returns:
        uint8 ``(T, 3, H, W)``; a damaged video file may have fewer frames than the record says.

    Raises:
        DataError: if a frame cannot be read.
    """
    images = np.stack(list(_images(record, size)))
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def _images(record: Record, size: tuple[int, int]) -> Iterator[np.ndarray]:
    resize = Resize((record["height"], record["width"]), size)
    if "video_file" in record:
        yield from map(resize.image, video_images(record))
    else:
        for index in range(len(record["file_names"])):
            yield resize.image(read_image(record, index))


def read_label_maps(record: Record, size: tuple[int, int]) -> Tensor | None:
    """Gives the masks of a video as one map per frame.

    Args:
        record: see ``catalog.Record``.
        size: (H, W) of the maps.

    Returns:
        int16 ``(T, H, W)``: 0 background, k the k-th object by its id, -1 not to be counted: a
        crowd, or more than one object. None if nothing is annotated.

    Raises:
        DataError: if a mask cannot be read.
    """
    if "annotations" not in record:
        return None
    ids = sorted({item["id"] for frame in record["annotations"] for item in frame})
    numbers = {key: number for number, key in enumerate(ids, start=1)}
    maps = np.zeros((record["length"], *size), dtype=np.int16)
    rows, columns = map(nearest_indices, (record["height"], record["width"]), size)
    for place, frame in enumerate(record["annotations"]):
        for item in frame:
            seen = _mask(record, item)[np.ix_(rows, columns)]
            number = -1 if item["iscrowd"] else numbers[item["id"]]
            maps[place][seen] = np.where(maps[place][seen] == 0, number, -1)
    return torch.from_numpy(maps)


def _mask(record: Record, item: dict[str, object]) -> np.ndarray:
    size = (record["height"], record["width"])
    try:
        encoded = rle.from_segmentation(item["segmentation"], *size)
    except ValueError as error:
        encoded, reason = None, str(error)
    else:
        reason = f"it has not the size {size} of the frames"
    if encoded is None or tuple(encoded["size"]) != size:
        where = f"video {record['video_id']} of {record.get('json_file', 'the data set')}"
        raise DataError(f"{where}: the mask of object {item['id']} cannot be read: {reason}")
    return rle.decode(encoded)


class FrameCache:
    """Keeps the frames of videos on disk as they are when read, so that a clip costs a copy.

    Decoding the pictures of a clip takes longer than a training step of a small model. One file per
    video lies below ``$VIDSEG_CACHE/slot_clips``, named after the files that it was made of, their
    age and the size; any of them may be removed. A disk that cannot be written only costs time.

    Args:
        size: (H, W) of the kept frames, (0, 0) for that of the video.
    """

    folder_name = f"slot_clips-v{_VERSION}"

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size
        self._paths: dict[tuple[str, str], Path] = {}
        self._is_writable = True

    def open(self, record: Record) -> np.ndarray:
        """Gives the frames of a video, uint8 ``(T, H, W, 3)``, most likely not yet in memory.

        Raises:
            DataError: if a frame cannot be read.
        """
        height, width = self._size if any(self._size) else (record["height"], record["width"])
        path = self._path(record, (height, width))
        known = _map(path, height, width)
        if known is not None:
            return known
        if self._is_writable:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                _write(path, _images(record, (height, width)))
            except OSError as error:
                self._is_writable = False
                reason = error.strerror or error
                _logger.warning("reduced frames are not kept: %s (%s)", path, reason)
            else:
                written = _map(path, height, width)
                if written is not None:
                    return written
        return np.stack(list(_images(record, (height, width))))

    def _path(self, record: Record, size: tuple[int, int]) -> Path:
        place = (str(record.get("json_file", "")), str(record["video_id"]))
        if place not in self._paths:
            self._paths[place] = cache_root() / self.folder_name / f"{_digest(record, size)}.rgb"
        return self._paths[place]


def _digest(record: Record, size: tuple[int, int]) -> str:
    described: list[object] = [size]
    for name in record["file_names"] or [record["video_file"]]:
        try:
            stat = Path(name).stat()
        except OSError as error:
            raise DataError(f"{name} cannot be read: {error.strerror}") from None
        described.append([str(Path(name).absolute()), stat.st_size, stat.st_mtime_ns])
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:24]


def _map(path: Path, height: int, width: int) -> np.ndarray | None:
    try:
        pixels = np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError):  # not there, or empty
        return None
    frame_bytes = height * width * 3
    if len(pixels) % frame_bytes:
        return None
    return pixels.reshape(-1, height, width, 3)


def _write(path: Path, images: Iterator[np.ndarray]) -> None:
    def fill(file: object) -> None:
        for image in images:
            file.write(np.ascontiguousarray(image).data)  # type: ignore[attr-defined]

    write_atomically(path, fill, durable=False)
