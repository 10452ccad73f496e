"""The embedded data set ``shapes_vis``: generated once, in YouTube-VIS format, with exact masks.

Three levels (``easy``, ``standard``, ``hard``, see ``shapes_scene.random_scene``) of three splits
each: ``shapes_vis_<level>_train`` and ``shapes_vis_<level>_val`` are videos from disjoint seeds,
and ``shapes_vis_<level>_frames`` is a set of unrelated single frames (videos of length one) for
image pretraining; in those of ``standard`` the colour does not tell the class, because a network
that may guess by the colour learns the shapes late. The files go into a cache folder
(``$VIDSEG_CACHE``, else ``~/.cache/vidseg``), where the first use writes them and later uses find
them.
"""

from __future__ import annotations

import io
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vidseg import rle
from vidseg.errors import DataError
from vidseg.files import write_folder

from .catalog import DatasetCatalog
from .shapes_scene import CLASSES, LEVELS, Scene, random_scene, render_frame
from .ytvis import load_ytvis_json

__all__ = ["cache_root", "generate_split", "register_shapes_vis"]

_VERSION = 3
_JSON_NAME = "instances.json"
_HEIGHT, _WIDTH = 96, 128
_MIN_VISIBLE_PIXELS = 12
_OCCLUSION_LEVELS = ((0.95, "no_occlusion"), (0.5, "slight_occlusion"), (0.0, "severe_occlusion"))

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Split:
    folder: str
    seed: int
    num_videos: int
    length: int


# Share of the objects in their class's colour where a split differs from its level.
_COLOUR_IS_CLASS = {("standard", "frames"): 0.0}
_SPLITS = {
    "train": _Split("train", 1, 500, 20),
    "val": _Split("valid", 2, 100, 20),
    "frames": _Split("frames", 3, 10000, 1),
}


def register_shapes_vis() -> None:
    """Adds the nine data sets to the catalog; nothing is generated before one of them is read."""
    for level in LEVELS:
        for split in _SPLITS:
            folder = _split_folder(level, split)
            DatasetCatalog.register(
                f"shapes_vis_{level}_{split}",
                _Loader(level, split),
                classes=list(CLASSES),
                evaluator="ytvis",
                root=str(folder),
                json_file=str(folder / _JSON_NAME),
                image_root=str(folder / "JPEGImages"),
            )


def cache_root() -> Path:
    """Folder that generated data sets live in."""
    named = os.environ.get("VIDSEG_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vidseg"


def generate_split(
    folder: str | Path,
    level: str,
    *,
    seed: int,
    num_videos: int,
    length: int,
    colour_is_class: float | None = None,
) -> None:
    """Writes ``instances.json`` and ``JPEGImages/`` of one split below ``folder``.

    The folder appears as a whole or not at all (see ``files.write_folder``).

    Args:
        folder: where to; what is there already stays.
        level: one of ``shapes_scene.LEVELS``.
        seed: number of the split; videos of different seeds share nothing.
        num_videos: how many videos.
        length: frames of each video.
        colour_is_class: see ``shapes_scene.random_scene``.
    """

    def write(draft: Path) -> None:
        content = _empty_json()
        for number in range(num_videos):
            rng = np.random.default_rng((_VERSION, seed, LEVELS.index(level), number))
            scene = random_scene(
                rng,
                level,
                height=_HEIGHT,
                width=_WIDTH,
                length=length,
                colour_is_class=colour_is_class,
            )
            _add_video(content, scene, video_id=number + 1, image_root=draft / "JPEGImages")
        (draft / _JSON_NAME).write_text(json.dumps(content))

    write_folder(Path(folder), write)


@dataclass(frozen=True)
class _Loader:
    """Reads a split; comparable, so that registering it again is recognised as the same."""

    level: str
    split: str

    def __call__(self) -> list[dict[str, Any]]:
        folder = _split_folder(self.level, self.split)
        if folder.exists() and not (folder / _JSON_NAME).exists():
            raise DataError(
                f"{folder} holds a part of shapes_vis_{self.level}_{self.split} only, without "
                f"{_JSON_NAME}; remove it to have it generated again"
            )
        if not folder.exists():
            size = _SPLITS[self.split]
            _logger.info("generating shapes_vis_%s_%s in %s", self.level, self.split, folder)
            generate_split(
                folder,
                self.level,
                seed=size.seed,
                num_videos=size.num_videos,
                length=size.length,
                colour_is_class=_COLOUR_IS_CLASS.get((self.level, self.split)),
            )
        try:
            return load_ytvis_json(folder / _JSON_NAME, folder / "JPEGImages", strict=False)
        except DataError as error:
            raise DataError(f"{error}; remove {folder} to have it generated again") from error


def _split_folder(level: str, split: str) -> Path:
    return cache_root() / f"shapes_vis-v{_VERSION}" / level / _SPLITS[split].folder


def _empty_json() -> dict[str, list[dict[str, Any]]]:
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)]
    return {"videos": [], "categories": categories, "annotations": []}


def _add_video(
    content: dict[str, list[dict[str, Any]]], scene: Scene, *, video_id: int, image_root: Path
) -> None:
    name = f"{video_id:05d}"
    (image_root / name).mkdir(parents=True)
    tracks = [_empty_track(video_id, item.label, scene.length) for item in scene.objects]
    file_names = []
    for frame in range(scene.length):
        image, masks, full_areas = render_frame(scene, frame)
        file_names.append(f"{name}/{frame:05d}.jpg")
        picture = io.BytesIO()
        Image.fromarray(image).save(picture, format="JPEG", quality=95)
        # Not left to Pillow, which does not notice that a full disk took a part of it only.
        (image_root / file_names[-1]).write_bytes(picture.getbuffer())
        for track, mask, full_area in zip(tracks, masks, full_areas, strict=True):
            _add_mask(track, frame, mask, int(full_area))
    for track in tracks:
        if any(track["segmentations"]):
            track["id"] = len(content["annotations"]) + 1
            content["annotations"].append(track)
    content["videos"].append(
        {
            "id": video_id,
            "width": scene.width,
            "height": scene.height,
            "length": scene.length,
            "file_names": file_names,
        }
    )


def _empty_track(video_id: int, label: int, length: int) -> dict[str, Any]:
    per_frame = ("segmentations", "bboxes", "areas", "occlusion")
    track: dict[str, Any] = {key: [None] * length for key in per_frame}
    track.update(video_id=video_id, category_id=label + 1, iscrowd=0)
    track.update(width=_WIDTH, height=_HEIGHT)
    return track


def _add_mask(track: dict[str, Any], frame: int, mask: np.ndarray, full_area: int) -> None:
    area = int(mask.sum())
    if area < _MIN_VISIBLE_PIXELS:
        return
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(cols[0]), int(rows[0])
    track["segmentations"][frame] = rle.to_text(rle.encode(mask))
    track["bboxes"][frame] = [x, y, int(cols[-1]) - x + 1, int(rows[-1]) - y + 1]
    track["areas"][frame] = area
    visible = area / full_area
    track["occlusion"][frame] = next(word for bound, word in _OCCLUSION_LEVELS if visible >= bound)


register_shapes_vis()
