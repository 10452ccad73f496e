"""Records to clips of frames: drawn or read, reduced and, in training, cut out and mirrored.

Shapes: T frames of H x W pixels, M objects.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidseg.data import Record, Records
from vidseg.data.mappers import DATASET_MAPPER_REGISTRY, Sample
from vidseg.data.synthetic import cache_root
from vidseg.errors import ConfigError

from .clip_reading import FrameCache, read_frames, read_label_maps, reduce_frames, reduce_labels
from .data_sets import shape_record
from .moving_shapes import MovingShapes

__all__ = ["ClipSampling", "SlotClipMapper"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClipSampling:
    """How training clips are cut out.

    Args:
        num_frames: of a clip; a shorter video is taken whole.
        flip: chance of a mirrored clip.
        vertical_flip: chance of one that is upside down.

    Raises:
        ConfigError: if one of them is out of its range.
    """

    num_frames: int = 1
    flip: float = 0.5
    vertical_flip: float = 0.0

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.num_frames < 1:
            raise ConfigError(
                f"INPUT.SLOT_BERT.NUM_FRAMES is {self.num_frames}; give a positive number"
            )
        for key, chance in (("FLIP", self.flip), ("VERTICAL_FLIP", self.vertical_flip)):
            if not 0 <= chance <= 1:
                raise ConfigError(f"INPUT.SLOT_BERT.{key} is {chance}; give a chance in [0, 1]")

    def draw(self, length: int, rng: np.random.Generator) -> tuple[range, list[int]]:
        """Draws the frames of a clip of a video, and which axes of ``(T, 3, H, W)`` are turned."""
        count = min(self.num_frames, length)
        start = int(rng.integers(length - count + 1))
        chances = rng.random(2) < (self.flip, self.vertical_flip)
        return range(start, start + count), [axis for axis in (-1, -2) if chances[-1 - axis]]


@DATASET_MAPPER_REGISTRY.register(name="slot_clips")
class SlotClipMapper:
    """Makes training clips or whole test videos, of generated clips or of any videos.

    Nothing of training clips but their frames is used: annotations are for the evaluation alone.

    Args:
        sampling: of training clips; None: test mode, all frames.
        size: (H, W) that frames are reduced to, (0, 0) to leave them.
        shape_seed: of the generated clips.
        shape_frames: their length.
        num_shape_clips: how many of them to train on.

    Raises:
        ConfigError: if a number is out of its range.
    """

    reads = "frames"
    num_classes_key = ""

    def __init__(
        self,
        sampling: ClipSampling | None,
        *,
        size: Sequence[int] = (0, 0),
        shape_seed: int = 0,
        shape_frames: int = 24,
        num_shape_clips: int = 500,
    ) -> None:
        if len(size) != 2 or min(size) < 0 or (0 in size and any(size)):
            raise ConfigError(
                f"INPUT.SLOT_BERT.SIZE is {list(size)}; give height and width in pixels, or "
                "[0, 0] to leave the frames as they are"
            )
        for key, value, least in (
            ("SEED", shape_seed, 0),
            ("NUM_FRAMES", shape_frames, 1),
            ("NUM_CLIPS", num_shape_clips, 1),
        ):
            if value < least:
                raise ConfigError(
                    f"INPUT.SLOT_BERT.MOVING_SHAPES.{key} is {value}; give {least} or more"
                )
        self.sampling = sampling
        self.size = (int(size[0]), int(size[1]))
        self.shape_seed = shape_seed
        self.shape_frames = shape_frames
        self.num_shape_clips = num_shape_clips
        self._cache = FrameCache(self.size)

    @classmethod
    def from_config(
        cls, cfg: Any, *, is_train: bool, category_map: np.ndarray | None = None
    ) -> dict[str, Any]:
        """Gives the arguments of ``__init__``; there are no categories that could be mapped."""
        node = cfg.INPUT.SLOT_BERT
        sampling = ClipSampling(node.NUM_FRAMES, node.FLIP, node.VERTICAL_FLIP)
        return {
            "sampling": sampling if is_train else None,
            "size": node.SIZE,
            "shape_seed": node.MOVING_SHAPES.SEED,
            "shape_frames": node.MOVING_SHAPES.NUM_FRAMES,
            "num_shape_clips": node.MOVING_SHAPES.NUM_CLIPS,
        }

    def select(self, records: Records, name: str, *, drop_empty: bool) -> list[Record]:
        """Gives the records to train on: all, and of generated clips as many as are wanted."""
        if "split" in records[0]:
            split = records[0]["split"]
            return [shape_record(split, index) for index in range(self.num_shape_clips)]
        gigabytes = sum(map(self._kept_bytes, records)) / 1e9
        folder = cache_root() / FrameCache.folder_name
        _logger.info(
            "%s: the frames of %d videos are kept in %s (%.1f GB) as they are first read",
            name,
            len(records),
            folder,
            gigabytes,
        )
        return list(records)

    def _kept_bytes(self, record: Record) -> int:
        height, width = self._frame_size(record)
        return int(record["length"]) * height * width * 3

    def _frame_size(self, record: Record) -> tuple[int, int]:
        return self.size if any(self.size) else (record["height"], record["width"])

    def sample_bytes(self, record: Record) -> int:
        """Gives the size of a whole test video in memory, with its label maps."""
        height, width = self._frame_size(record)
        length = self.shape_frames if "split" in record else record["length"]
        return int(length) * height * width * (3 + 2)

    def __call__(self, record: Record, rng: np.random.Generator) -> Sample:
        """Makes a sample.

        Args:
            record: see ``catalog.Record`` and ``data_sets``; not modified.
            rng: source of all draws; unused in test mode.

        Returns:
            - ``frames`` uint8 ``(T, 3, H, W)`` RGB;
            - ``video_id``, ``length`` of the whole video, ``height`` and ``width`` of its source,
              ``frame_indices``, ``file_names`` of these frames;
            - in test mode, ``label_maps`` int16 ``(T, H, W)``: 0 background, k the k-th object, -1
              not to be counted; None if the data set has none; and ``dropped`` bool ``(T,)``, the
              frames that a model is not to look at;
            - of generated clips in test mode, ``hidden`` bool ``(M, T)``, see ``ShapeClip``.

        Raises:
            DataError: if a frame or a mask cannot be read.
        """
        if self.sampling is None:
            return self._drawn(record) if "split" in record else self._read(record)
        if "split" in record:
            indices, turned = self.sampling.draw(self.shape_frames, rng)
            frames = self._shapes(record).clip(record["index"], indices).frames
            frames, length = reduce_frames(frames, self._frame_size(record)), self.shape_frames
        else:
            video = self._cache.open(record)
            length = len(video)
            indices, turned = self.sampling.draw(length, rng)
            pixels = np.ascontiguousarray(video[indices.start : indices.stop].transpose(0, 3, 1, 2))
            frames = torch.from_numpy(pixels)
        return _sample(record, frames.flip(turned), indices, length)

    def _drawn(self, record: Record) -> Sample:
        clip = self._shapes(record).clip(record["index"])
        size = self._frame_size(record)
        indices = range(self.shape_frames)
        sample = _sample(record, reduce_frames(clip.frames, size), indices, self.shape_frames)
        sample["label_maps"] = reduce_labels(clip.label_maps, size)
        sample["dropped"], sample["hidden"] = clip.dropped, clip.hidden
        return sample

    def _read(self, record: Record) -> Sample:
        size = self._frame_size(record)
        frames = read_frames(record, size)
        sample = _sample(record, frames, range(len(frames)), len(frames))
        sample["label_maps"] = read_label_maps(record, size)
        sample["dropped"] = torch.zeros(len(frames), dtype=torch.bool)
        return sample

    def _shapes(self, record: Record) -> MovingShapes:
        return MovingShapes(record["split"], num_frames=self.shape_frames, seed=self.shape_seed)


def _sample(record: Record, frames: Tensor, indices: range, length: int) -> Sample:
    return {
        "frames": frames,
        "video_id": record["video_id"],
        "length": length,
        "height": record["height"],
        "width": record["width"],
        "frame_indices": indices,
        "file_names": [record["file_names"][i] for i in indices if record["file_names"]],
    }
