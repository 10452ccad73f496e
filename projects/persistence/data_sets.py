"""The generated data sets ``persistence_<variant>_<split>``, and ``persistence_<variant>_128_...``.

Splits are ``train``, ``val``, ``test`` and ``train_400``, the first 400 clips of ``train``, by
which an evaluation tells the gap between training and test. Nothing is generated or stored here:
a record says which clip is meant, and the mapper makes it.

The clips of 128 pixels show twice as large spheres: ``MIN_SIGMA``, ``MAX_SIGMA`` and ``PATCH`` of
``MODEL.PERSISTENCE`` that are twice as large fit them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vidseg.data import DatasetCatalog, Records

from .variants import SPLITS, VARIANTS

__all__ = ["CLASSES", "register_persistence"]

CLASSES = ["transient", "persistent"]
"""Names of the labels 0 and 1."""

_NUM_CLIPS = {"train": 4000, "val": 300, "test": 400}
_PART = ("train_400", 400)
_SIZES = {64: "", 128: "128_"}  # pixels, as in the names
_NUM_FRAMES = 16


@dataclass(frozen=True)
class _Loader:
    """Lists the clips of a data set; comparable, so that it may be registered twice."""

    variant: str
    split: str
    size: int
    num_clips: int

    def __call__(self) -> Records:
        records = [self._record(index) for index in range(self.num_clips)]
        return Records(records, classes=CLASSES, category_ids=list(range(len(CLASSES))))

    def _record(self, index: int) -> dict[str, Any]:
        return {
            "variant": self.variant,
            "split": self.split,
            "index": index,
            "video_id": f"{self.variant}_{self.split}_{index:04d}",
            "length": _NUM_FRAMES,
            "height": self.size,
            "width": self.size,
            "file_names": [],
        }


def register_persistence() -> None:
    """Adds all of them to the catalog."""
    for variant in VARIANTS:
        for size, infix in _SIZES.items():
            for split in SPLITS:
                _register(variant, split, size, f"{infix}{split}", _NUM_CLIPS[split])
            _register(variant, "train", size, f"{infix}{_PART[0]}", _PART[1])


def _register(variant: str, split: str, size: int, ending: str, num_clips: int) -> None:
    DatasetCatalog.register(
        f"persistence_{variant}_{ending}",
        _Loader(variant, split, size, num_clips),
        evaluator="object_persistence",
        item="clip",
        classes=list(CLASSES),
        category_ids=list(range(len(CLASSES))),
    )


register_persistence()
