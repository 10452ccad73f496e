"""Records of documents to samples: their frames are read from feature files and perhaps cropped.

Shapes: T frames, D features per frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vidseg.errors import ConfigError, DataError

from .catalog import Record, Records
from .feature_files import read_features
from .mappers import DATASET_MAPPER_REGISTRY, Sample

__all__ = ["SequenceMapper"]


@DATASET_MAPPER_REGISTRY.register(name="sequence")
class SequenceMapper:
    """Makes samples of documents: whole ones, or random crops in training.

    Args:
        num_frames: length of a crop; 0 takes documents whole, and so do those that are not longer.
        category_map: class of the model by class of the record, -1 to ignore the frame.

    Raises:
        ConfigError: if ``num_frames`` is negative.
    """

    reads = "features"
    num_classes_key = ""  # a project that classifies frames derives a mapper with its own key

    def __init__(self, *, num_frames: int = 0, category_map: np.ndarray | None = None) -> None:
        if num_frames < 0:
            raise ConfigError(
                f"INPUT.SEQUENCE.NUM_FRAMES is {num_frames}; give a length in frames, or 0 for all"
            )
        self.num_frames = num_frames
        self.category_map = category_map

    @classmethod
    def from_config(
        cls, cfg: Any, *, is_train: bool, category_map: np.ndarray | None = None
    ) -> dict[str, Any]:
        """Gives the arguments of ``__init__``."""
        num_frames = cfg.INPUT.SEQUENCE.NUM_FRAMES if is_train else 0
        return {"num_frames": num_frames, "category_map": category_map}

    def select(self, records: Records, name: str, *, drop_empty: bool) -> list[Record]:
        """Gives the records to train on: all of them, as a model may need no labels."""
        return list(records)

    @staticmethod
    def sample_bytes(record: Record) -> int:
        """Gives the size of a whole document in memory."""
        return int(record["length"] * record["feature_dim"] * 4)

    def __call__(self, record: Record, rng: np.random.Generator) -> Sample:
        """Makes a sample.

        Args:
            record: see ``features.load_feature_index``; not modified. With ``features`` ``(T, D)``
                itself, no file is read.
            rng: draws the place of the crop.

        Returns:
            ``features`` float32 ``(T, D)``, ``video_id``, ``length`` (of the whole document),
            ``frame_indices`` (a range), ``file_names`` and, where known, ``labels`` int64 ``(T,)``,
            ``topic`` (number of the class of the document), ``frame_rate`` in frames per second and
            ``mask`` bool ``(T,)``, False where a frame is missing and its features are zero.

        Raises:
            DataError: if a file cannot be read, has another shape than before or holds anything
                that is no finite number.
        """
        length = record["length"]
        start, stop = 0, length
        if 0 < self.num_frames < length:
            start = int(rng.integers(length - self.num_frames + 1))
            stop = start + self.num_frames
        features = self._read(record, start, stop)
        sample: Sample = {
            "video_id": record["video_id"],
            "length": length,
            "frame_indices": range(start, stop),
            "file_names": list(record["file_names"]),
        }
        sample.update({key: record[key] for key in ("topic", "frame_rate") if key in record})
        if "labels" in record:
            sample["labels"] = self._labels(record["labels"][start:stop])
        if "mask" in record:
            mask = np.array(record["mask"][start:stop], dtype=bool)
            features[~mask] = 0  # whatever stands there, perhaps NaN, would spread
            sample["mask"] = torch.from_numpy(mask)
        _check_finite(features, record, start)
        sample["features"] = torch.from_numpy(features)
        return sample

    def _read(self, record: Record, start: int, stop: int) -> np.ndarray:
        """Reads frames of a document across its files, float32 ``(stop - start, D)``."""
        if "features" in record:
            with np.errstate(over="ignore"):  # inf is told later
                return np.array(record["features"][start:stop], dtype=np.float32, order="C")
        parts, first = [], 0
        for path, length in zip(record["file_names"], record["lengths"], strict=True):
            begin, end = max(start - first, 0), min(stop - first, length)
            if begin < end:
                parts.append(self._read_part(record, path, begin, end))
            first += length
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _read_part(self, record: Record, path: str, start: int, stop: int) -> np.ndarray:
        key, transposed = record.get("key", ""), record.get("transposed", False)
        part = read_features(path, start, stop, key=key, transposed=transposed)
        if part.shape != (stop - start, record["feature_dim"]):
            raise DataError(
                f"{path} was changed since {record['json_file']} was read: frames {start} to "
                f"{stop - 1} have the shape {part.shape}"
            )
        return part

    def _labels(self, labels: Sequence[int]) -> torch.Tensor:
        numbers = np.array(labels, dtype=np.int64)
        return torch.from_numpy(
            numbers if self.category_map is None else self.category_map[numbers]
        )


def _check_finite(features: np.ndarray, record: Record, start: int) -> None:
    """Refuses NaN and infinity; one of them would end in every weight of the model."""
    # A sum is finite only if all summands are, and takes a fraction of the time and no memory.
    with np.errstate(invalid="ignore"):
        if np.isfinite(features.sum(dtype=np.float64)):
            return
    bad = ~np.isfinite(features).all(axis=1)
    first, frame = 0, start + int(bad.argmax())
    name = record["video_id"]
    for path, length in zip(record["file_names"], record["lengths"], strict=True):
        if first <= frame < first + length:
            name, frame = path, frame - first
            break
        first += length
    raise DataError(
        f"{name} holds NaN or infinity, first in frame {frame} ({int(bad.sum())} of the "
        f"{len(bad)} frames read)"
    )
