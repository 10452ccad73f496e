"""Reading of label maps: a picture per frame, a folder per video.

Shapes: T frames of H x W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidseg.errors import DataError, nearest

__all__ = ["frame_names", "label_videos", "read_ids", "read_labels"]

Ints = NDArray[np.integer[Any]]

_LABEL_MODES = {"1", "L", "P", "I", "I;16", "I;16L", "I;16B"}


def label_videos(
    gt: str | os.PathLike[str],
    results: str | os.PathLike[str],
    *,
    names: Collection[str] | None = None,
) -> Iterator[tuple[str, Ints, Ints]]:
    """Reads pairs of label maps, video after video in the order of names.

    A video is a folder of PNG files, in the order of their names, or has them in a folder ``mask``
    as in VSPW. Videos that are in ``results`` alone are not looked at.

    Args:
        gt: folder of annotated videos.
        results: folder of predicted videos, with a file of the same name for each annotated one.
        names: videos to read; all by default.

    Yields:
        The video's name, its annotation and its prediction, int32 ``(T, H, W)`` each.

    Raises:
        DataError: if a folder or file is missing or broken, or the sizes of two pictures differ.
    """
    truth = _videos(Path(gt), "ground truth", names)
    found = _videos(Path(results), "results", names)
    for name, files in truth.items():
        if name not in found:
            close = nearest(name, found, n=1)
            hint = f"; the nearest name there is {close[0]}" if close else ""
            raise DataError(f"results folder {results} has no video {name}{hint}")
        by_name = {file.name: file for file in found[name]}
        maps: list[tuple[Ints, Ints]] = []
        for file in files:
            if file.name not in by_name:
                raise DataError(
                    f"results folder {results} has no {file.name} of video {name}; every annotated "
                    "frame needs a prediction"
                )
            maps.append((read_labels(file), read_labels(by_name[file.name])))
            for path, labels in zip((file, by_name[file.name]), maps[-1], strict=True):
                if labels.shape != maps[0][0].shape:
                    sizes = [f"{one.shape[1]}x{one.shape[0]}" for one in (labels, maps[0][0])]
                    raise DataError(
                        f"{path} is {sizes[0]} pixels, the first annotation of its video {sizes[1]}"
                    )
        truth_maps, found_maps = zip(*maps, strict=True)
        yield name, np.stack(truth_maps), np.stack(found_maps)


def frame_names(folder: str | os.PathLike[str], name: str) -> list[str]:
    """Gives the names of the frames of a video, without their ends.

    Args:
        folder: see ``label_videos``.
        name: of the video.

    Raises:
        DataError: see there.
    """
    return [file.stem for file in _videos(Path(folder), "ground truth", [name])[name]]


def read_labels(path: Path) -> Ints:
    """Reads a picture of labels, int32 ``(H, W)``: grey levels, or places in a palette.

    Raises:
        DataError: if it is missing, broken, or in colour.
    """
    picture = _open(path)
    if picture.mode not in _LABEL_MODES:
        raise DataError(
            f"{path} is a picture of mode {picture.mode}, expected labels: grey levels or a palette"
        )
    return np.asarray(picture).astype(np.int32)


def read_ids(path: Path) -> NDArray[np.int64]:
    """Reads a picture of segment ids R + 256 G + 65536 B, int64 ``(H, W)``; 0 is void.

    Raises:
        DataError: if it is missing, broken, or not in colour.
    """
    picture = _open(path)
    if picture.mode not in ("RGB", "RGBA"):
        raise DataError(f"{path} is a picture of mode {picture.mode}, expected ids as RGB")
    colours = np.asarray(picture).astype(np.int64)
    return np.asarray(colours[..., 0] + 256 * colours[..., 1] + 65536 * colours[..., 2])


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's ways of finding damage
        raise DataError(f"{path} cannot be read as a picture: {error}") from None


def _videos(folder: Path, what: str, names: Collection[str] | None) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise DataError(f"{what} folder {folder} does not exist")
    videos: dict[str, list[Path]] = {}
    for one in sorted(folder.iterdir()):
        if names is not None and one.name not in names:
            continue
        inner = one / "mask"
        files = sorted((inner if inner.is_dir() else one).glob("*.png"))
        if files:
            videos[one.name] = files
    if not videos:
        raise DataError(
            f"{what} folder {folder} has no videos: expected folders of PNG files, one per video"
        )
    return videos
