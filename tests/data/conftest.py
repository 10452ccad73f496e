from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vidseg import rle

HEIGHT, WIDTH = 24, 32


class SmallSet:
    """A YouTube-VIS data set on disk: two videos of 6 and 1 frames; tests spoil its json."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "instances.json"
        self.content = self._build()
        self.write()

    def write(self, change: Callable[[dict[str, Any]], object] | None = None) -> str:
        content = copy.deepcopy(self.content)
        if change is not None:
            change(content)
        self.path.write_text(json.dumps(content))
        return str(self.path)

    def frame(self, video: int, frame: int) -> Path:
        return self.folder / "JPEGImages" / self.content["videos"][video]["file_names"][frame]

    def _build(self) -> dict[str, Any]:
        content: dict[str, Any] = {
            "videos": [],
            "categories": [{"id": 7, "name": "square"}, {"id": 3, "name": "bar"}],
            "annotations": [],
        }
        for video_id, length in ((4, 6), (2, 1)):
            names = [f"v{video_id}/{t:03d}.png" for t in range(length)]
            video = {"id": video_id, "file_names": names, "height": HEIGHT, "width": WIDTH}
            content["videos"].append({**video, "length": length})
            for t, name in enumerate(names):
                path = self.folder / "JPEGImages" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.full((HEIGHT, WIDTH, 3), 10 * t, dtype=np.uint8)
                pixels[4:12, 2 + t : 10 + t] = 200
                Image.fromarray(pixels).save(path)
            for category in (7, 3):
                self._add_track(content, video_id, category, length)
        return content

    def _add_track(
        self, content: dict[str, Any], video_id: int, category: int, length: int
    ) -> None:
        segmentations: list[Any] = []
        for t in range(length):
            mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
            if category == 7:
                mask[4:12, 2 + t : 10 + t] = True
            elif t < 3:
                mask[16:20, 20:30] = True
            segmentations.append(rle.to_text(rle.encode(mask)) if mask.any() else None)
        content["annotations"].append(
            {
                "id": len(content["annotations"]) + 1,
                "video_id": video_id,
                "category_id": category,
                "iscrowd": 0,
                "segmentations": segmentations,
                "bboxes": [None] * length,
                "areas": [None] * length,
            }
        )


@pytest.fixture
def small_set(tmp_path: Path) -> SmallSet:
    return SmallSet(tmp_path / "small")
