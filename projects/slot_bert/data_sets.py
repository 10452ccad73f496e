"""The generated data sets ``moving_shapes_<split>``.

Splits are ``train`` and ``val``; ``hard_train`` and ``hard_val``, with strong patterns; and
``hidden_val``, where an object passes behind another one and frames are dropped. A record says
which clip is meant, and the mapper ``slot_clips`` draws it; ``INPUT.SLOT_BERT.MOVING_SHAPES`` says
how long the clips are, how many there are to train on, and the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vidseg.data import DatasetCatalog, Records

from .shape_scene import CANVAS

__all__ = ["NUM_FRAMES", "register_moving_shapes", "shape_record"]

NUM_FRAMES = 24
"""Length of the clips, unless the config gives another."""

_NUM_CLIPS = {"train": 500, "val": 64, "hard_train": 500, "hard_val": 64, "hidden_val": 64}
_CLASSES = ["object"]


@dataclass(frozen=True)
class _Loader:
    """Lists the clips of a split; comparable, so that it may be registered twice."""

    split: str

    def __call__(self) -> Records:
        records = [shape_record(self.split, index) for index in range(_NUM_CLIPS[self.split])]
        return Records(records, classes=_CLASSES, category_ids=[1])


def shape_record(split: str, index: int) -> dict[str, Any]:
    """Gives the record of a generated clip.

    Args:
        split: a name of ``moving_shapes.SPLITS``.
        index: from 0, without end.
    """
    return {
        "split": split,
        "index": index,
        "video_id": f"{split}_{index:04d}",
        "length": NUM_FRAMES,
        "height": CANVAS,
        "width": CANVAS,
        "file_names": [],
    }


def register_moving_shapes() -> None:
    """Adds all of them to the catalog."""
    for split in _NUM_CLIPS:
        DatasetCatalog.register(
            f"moving_shapes_{split}",
            _Loader(split),
            evaluator="slot_discovery",
            item="clip",
            classes=list(_CLASSES),
            category_ids=[1],
        )


register_moving_shapes()
