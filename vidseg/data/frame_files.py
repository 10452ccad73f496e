"""Frames of videos in image files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from vidseg.errors import DataError

from .catalog import Record
from .transforms import Resize

__all__ = ["load_frames", "read_image", "to_tensor"]


def load_frames(
    record: Record, indices: Sequence[int], *, size: tuple[int, int] | None = None
) -> Tensor:
    """Reads frames of a video.

    Args:
        record: see ``catalog.Record``.
        indices: which frames.
        size: (H, W) to resize to; the stored size if left out.

    Returns:
        uint8 ``(T, 3, H, W)`` RGB.

    Raises:
        DataError: if a frame cannot be read or has another size than stated.
    """
    source = (record["height"], record["width"])
    resize = Resize(source, size or source)
    return to_tensor([resize.image(read_image(record, index)) for index in indices])


def read_image(record: Record, index: int) -> np.ndarray:
    """Reads one frame upright, uint8 ``(H, W, 3)``.

    Raises:
        DataError: as ``load_frames``.
    """
    if not record["file_names"]:
        raise DataError(_no_pictures(record))
    path = record["file_names"][index]
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            pixels = np.asarray((upright or image).convert("RGB"))
    except FileNotFoundError:
        raise DataError(f"the frame {path} is missing; {_origin(record, index)} names it") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"the frame {path} cannot be read: {error}") from None
    if pixels.shape[:2] != (record["height"], record["width"]):
        height, width = pixels.shape[:2]
        raise DataError(
            f"the frame {path} is {height} high and {width} wide, but {_origin(record, index)} "
            f"says height {record['height']} and width {record['width']}"
        )
    return pixels


def to_tensor(frames: Sequence[np.ndarray]) -> Tensor:
    """Stacks uint8 images to ``(T, 3, H, W)``."""
    return torch.from_numpy(np.ascontiguousarray(np.stack(frames).transpose(0, 3, 1, 2)))


def _no_pictures(record: Record) -> str:
    if "video_file" in record:
        where, remedy = f" ({record['video_file']})", "extract its frames to a folder, or "
    else:
        where, remedy = "", ""
    return (
        f"video {record['video_id']}{where} has no pictures to read; {remedy}name a mapper of its "
        "kind in DATASETS.DATASET_TYPE and DATASETS.DATASET_TYPE_TEST"
    )


def _origin(record: Record, index: int) -> str:
    file = record.get("json_file", "the data set")
    return f"video {record['video_id']} in {file}, file_names[{index}],"
