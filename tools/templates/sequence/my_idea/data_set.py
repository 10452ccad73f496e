"""The generated data sets ``my_idea_train`` and ``my_idea_val``.

A document is a chain of activities. A frame of one is a noisy point on the activity's circle, so
that neighbouring frames tell more than one alone. The files go into the cache folder, once.

Shapes: T frames, D features per frame.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidseg.data import DatasetCatalog, Records
from vidseg.data.features import INDEX_NAME, load_feature_index
from vidseg.data.synthetic import cache_root
from vidseg.files import write_folder

__all__ = ["CLASSES", "generate_split"]

CLASSES = ["rest", "walk", "run", "jump"]
"""Names by class number."""

_VERSION = 1  # part of the folder's name: what is generated otherwise gets another folder
_FEATURE_DIM = 16
_FRAME_RATE = 10.0  # frames per second
_SEGMENT_FRAMES = (8, 24)  # shortest and longest
_DOCUMENT_FRAMES = (80, 160)  # likewise
_NOISE = 1.5  # standard deviation; the radius of the circles is 1
_NUM_DOCUMENTS = {"train": 100, "val": 30}

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Loader:
    """Reads a split; comparable, so that registering it again is recognised as the same."""

    split: str

    def __call__(self) -> Records:
        folder = _folder(self.split)
        if not folder.exists():
            _logger.info("generating my_idea_%s in %s", self.split, folder)
            generate_split(folder, self.split)
        return load_feature_index(folder / INDEX_NAME)


def generate_split(folder: Path, split: str) -> None:
    """Writes an index and a ``.npy`` file for every document, whole or not at all.

    Args:
        folder: where to; what is there already stays.
        split: train or val; their documents are drawn independently.
    """

    def write(draft: Path) -> None:
        documents = []
        for number in range(_NUM_DOCUMENTS[split]):
            rng = np.random.default_rng((_VERSION, list(_NUM_DOCUMENTS).index(split), number))
            features, labels = _make_document(rng)
            name = f"{number:03d}"
            np.save(draft / f"{name}.npy", features.astype(np.float32))
            documents.append({"id": name, "path": f"{name}.npy", "labels": labels.tolist()})
        index = {"classes": CLASSES, "frame_rate": _FRAME_RATE, "documents": documents}
        (draft / INDEX_NAME).write_text(json.dumps(index))

    write_folder(folder, write)


def _make_document(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Gives features ``(T, D)`` and labels ``(T,)``."""
    length = int(rng.integers(*_DOCUMENT_FRAMES))
    labels: list[int] = []
    while len(labels) < length:
        others = [label for label in range(len(CLASSES)) if label not in labels[-1:]]
        labels += [int(rng.choice(others))] * int(rng.integers(*_SEGMENT_FRAMES))
    numbers = np.array(labels[:length])
    # Two axes for each activity, the same in all documents.
    axes = np.random.default_rng(_VERSION).normal(size=(len(CLASSES), 2, _FEATURE_DIM))
    axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
    angles = 0.4 * np.arange(length) + rng.uniform(0, 2 * np.pi)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    clean = np.einsum("ta,tad->td", circle, axes[numbers])
    return clean + rng.normal(scale=_NOISE / np.sqrt(_FEATURE_DIM / 4), size=clean.shape), numbers


def _folder(split: str) -> Path:
    return cache_root() / f"my_idea-v{_VERSION}" / split


for _split in _NUM_DOCUMENTS:
    DatasetCatalog.register(
        f"my_idea_{_split}",
        _Loader(_split),
        evaluator="my_idea_frames",
        root=str(_folder(_split)),
        json_file=str(_folder(_split) / INDEX_NAME),
        item="document",
        classes=list(CLASSES),
        category_ids=list(range(len(CLASSES))),
        feature_dim=_FEATURE_DIM,
    )
