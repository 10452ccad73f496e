"""Single pictures: loading files and checking arrays, always as uint8 ``(H, W, 3)`` RGB."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidseg.errors import DataError
from vidseg.files import write_atomically

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "as_image",
    "list_images",
    "list_videos",
    "load_image",
    "name_videos",
    "natural_key",
    "save_image",
]

IMAGE_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"],
)
VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in ("mp4", "mov", "m4v", "avi", "mkv", "webm", "mpg", "mpeg", "ts", "wmv", "gif")
)


def natural_key(path: str | Path) -> list[tuple[int, int, str]]:
    """Gives a sorting key under which ``frame2`` comes before ``frame10``."""
    parts = re.split(r"(\d+)", Path(path).name.lower())
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]


def list_images(folder: str | Path) -> list[Path]:
    """Lists the picture files of a folder in natural order, hidden ones left out.

    Raises:
        DataError: if there is none.
    """
    files = [path for path in Path(folder).iterdir() if not path.name.startswith(".")]
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if images:
        return sorted(images, key=natural_key)
    videos = sum(path.suffix.lower() in VIDEO_SUFFIXES for path in files)
    hint = f"; give its {videos} video files one by one" if videos else ""
    raise DataError(f"folder {folder} holds no pictures (JPEG, PNG, ...){hint}")


def list_videos(path: Path) -> list[Path]:
    """Lists the videos that a path stands for, in natural order.

    A folder that holds no pictures itself stands for the video files and the folders of pictures
    in it; whatever else, also what does not exist, for itself.
    """
    if not path.is_dir():  # a file, or a live source
        return [path]
    inside = sorted((p for p in path.iterdir() if p.name[0] != "."), key=natural_key)
    if any(p.suffix.lower() in IMAGE_SUFFIXES for p in inside):
        return [path]
    videos = [p for p in inside if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file()]
    folders = [p for p in inside if p.is_dir() and _has_images(p)]
    return [*videos, *folders] or [path]


def _has_images(folder: Path) -> bool:
    return any(p.suffix.lower() in IMAGE_SUFFIXES for p in folder.iterdir())


def name_videos(paths: Iterable[Path]) -> Iterator[str]:
    """Gives each video a name for files, another one also where two have the same."""
    taken: set[str] = set()
    for path in paths:
        stem = path.resolve().stem if path.is_file() else path.resolve().name
        if not path.exists():  # a live source, or a mistake
            stem = {"-": "stdin"}.get(stem, stem.replace(":", ""))
        name, number = stem, 2
        while name in taken:
            name, number = f"{stem}_{number}", number + 1
        taken.add(name)
        yield name


def load_image(path: str | Path) -> np.ndarray:
    """Reads one picture, turned upright as its EXIF orientation asks.

    Returns:
        uint8 ``(H, W, 3)`` RGB; transparency is dropped, 16-bit grey is scaled to 8 bits.

    Raises:
        DataError: if the file is missing, empty, cut off or no picture.
    """
    from PIL import Image, ImageOps

    path = Path(path)
    if not path.is_file():
        raise DataError(f"no such picture: {path}")
    if path.stat().st_size == 0:
        raise DataError(f"picture {path} is empty (0 bytes)")
    try:
        with Image.open(path) as image:
            return _to_rgb(ImageOps.exif_transpose(image))
    except Image.UnidentifiedImageError:
        raise DataError(f"{path} is not a picture that can be read") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"picture {path} is damaged: {error}") from error


def as_image(item: Any) -> np.ndarray:
    """Checks one frame held in memory and gives it as uint8 ``(H, W, 3)``, a view if possible.

    Args:
        item: uint8 array or tensor ``(H, W, 3)``, ``(3, H, W)`` or grey ``(H, W)``; or a PIL image.

    Raises:
        DataError: on another type, shape or dtype.
    """
    if hasattr(item, "convert") and hasattr(item, "getexif"):
        return _to_rgb(item)
    if hasattr(item, "detach"):
        item = item.detach().cpu().numpy()
    if not isinstance(item, np.ndarray):
        raise DataError(
            f"a frame must be an array, a tensor or a picture, got {type(item).__name__}"
        )
    if item.dtype != np.uint8:
        raise DataError(f"a frame must be uint8 with values 0 to 255, got {item.dtype}")
    if item.ndim == 2:
        item = item[:, :, None].repeat(3, axis=2)
    elif item.ndim == 3 and item.shape[2] != 3 and item.shape[0] == 3:
        item = item.transpose(1, 2, 0)
    if item.ndim != 3 or item.shape[2] != 3 or 0 in item.shape:
        raise DataError(f"a frame must have the shape (H, W, 3) or (3, H, W), got {item.shape}")
    return item


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):
        return (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)[:, :, None].repeat(3, 2)
    return np.array(image.convert("RGB"))


def save_image(image: Image.Image, path: Path) -> None:
    """Writes a picture, with its folder; the suffix decides the format.

    Raises:
        DataError: if it cannot be written; a picture of that name is then untouched.
    """
    from PIL import Image

    content = io.BytesIO()
    # Pillow does not notice when a nearly full disk takes only a part of what it writes.
    image.save(content, format=Image.registered_extensions()[path.suffix.lower()])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: file.write(content.getbuffer()))
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
