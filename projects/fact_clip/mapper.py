"""Records of videos with frame labels to samples: frames are sampled, labels by majority.

Shapes: L frames of the video, T frames of the sample (every ``sr``-th), D features per frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from vidseg.data import DATASET_MAPPER_REGISTRY, DatasetCatalog, Record, Records, SequenceMapper
from vidseg.data.mappers import Sample
from vidseg.errors import ConfigError, DataError

from .class_split import held_out_classes
from .samples import IGNORED
from .warping import warp_frames

__all__ = ["IGNORED", "ActionFrameMapper", "sample_labels"]


@DATASET_MAPPER_REGISTRY.register(name="action_frames")
class ActionFrameMapper(SequenceMapper):
    """Makes samples of videos with frame labels: whole ones, or random crops in training.

    Args:
        sampling_rate: every how many frames one is taken; the label is that of most of them.
        num_frames: length of a crop in sampled frames; 0 takes videos whole.
        is_train: whether labels are required; samples for tests have ``full_labels`` too.
        drop_columns: numbers of the features that are set to 0, so that no model sees them.
        warp: speeds at which training plays a video, see ``warping.warp_frames``.
        segment_warp: and each of its segments.
        held_out: gives, of the names of all classes, the numbers of those whose labels training
            must not see: their frames are ignored, and speeds drawn as if they had no label.
        drops: whether videos that show one of them are left out altogether.
        category_map: class of the model by class of the record, -1 to ignore the frame.

    Raises:
        ConfigError: if ``sampling_rate`` is less than 1, or ``num_frames``, a number of a column or
            a warp negative.
    """

    num_classes_key = "FACT.n_classes"
    counts_classes = True  # 0: those of the training set

    def __init__(
        self,
        *,
        sampling_rate: int = 1,
        num_frames: int = 0,
        is_train: bool = False,
        drop_columns: tuple[int, ...] = (),
        warp: float = 0.0,
        segment_warp: float = 0.0,
        held_out: Callable[[Sequence[str]], frozenset[int]] | None = None,
        drops: bool = False,
        category_map: np.ndarray | None = None,
    ) -> None:
        if sampling_rate < 1:
            raise ConfigError(f"sr is {sampling_rate}; give 1 to take every frame, 2 every second")
        if any(column < 0 for column in drop_columns):
            raise ConfigError(f"FACT.drop_columns is {list(drop_columns)}; numbers count from 0")
        for key, value in (("warp", warp), ("segment_warp", segment_warp)):
            if not 0 <= value < math.inf:
                raise ConfigError(f"FACT.{key} is {value}; give 0 for none, or up to about 1")
        super().__init__(num_frames=num_frames, category_map=category_map)
        self.num_frames *= sampling_rate  # that of the class above counts frames of the video
        self.sampling_rate = sampling_rate
        self.is_train = is_train
        self.drop_columns = list(drop_columns)
        self.warp, self.segment_warp = warp, segment_warp
        self.held_out, self.drops = held_out, drops
        self._hidden: list[int] = []  # classes of the records, known once these are selected

    @classmethod
    def from_config(
        cls, cfg: Any, *, is_train: bool, category_map: np.ndarray | None = None
    ) -> dict[str, Any]:
        """Gives the arguments of ``__init__``."""
        return {
            **super().from_config(cfg, is_train=is_train, category_map=category_map),
            "sampling_rate": cfg.sr,
            "is_train": is_train,
            "drop_columns": tuple(cfg.FACT.drop_columns),
            "warp": cfg.FACT.warp if is_train else 0.0,
            "segment_warp": cfg.FACT.segment_warp if is_train else 0.0,
            "held_out": partial(held_out_classes, cfg) if is_train else None,
            "drops": cfg.CLIP.unseen_mode == "drop",
        }

    def select(self, records: Records, name: str, *, drop_empty: bool) -> list[Record]:
        """Gives the records to train on: all, or with ``drops`` those without held out classes.

        Raises:
            ConfigError: if the features have no column of a number in ``drop_columns``.
            DataError: if one has no labels, or none is left.
        """
        for record in records:
            self._check_columns(record)
            if "labels" not in record:
                place = DatasetCatalog.registered(name).json_file or name
                raise DataError(
                    f"{place}: the video {record['video_id']!r} has no frame labels to train on"
                )
        if self.held_out is None:
            return list(records)
        held_out = self.held_out(DatasetCatalog.metadata(name).classes)
        self._hidden = sorted(held_out)
        if not self.drops:
            return list(records)
        kept = [record for record in records if held_out.isdisjoint(record["labels"])]
        if records and not kept:
            raise DataError(
                f"{name}: every video shows a class of CLIP.unseen or CLIP.pseudo_unseen, so that "
                "CLIP.unseen_mode drop leaves none to train on; use mask, or hold out fewer"
            )
        return kept

    def __call__(self, record: Record, rng: np.random.Generator) -> Sample:
        """Makes a sample.

        Args:
            record: see ``layout.SplitFile``, or ``vidseg.data.features``; not modified.
            rng: draws the place of a crop.

        Returns:
            What ``SequenceMapper`` gives, with ``features`` float32 ``(T, D)`` of every
            ``sampling_rate``-th frame, ``labels`` int64 ``(T,)`` (``IGNORED`` where no class is
            meant), ``frame_indices`` their places in the video, ``frame_rate`` theirs, ``length``
            T of the whole video, and in tests ``full_labels`` int64 ``(L,)``, one per frame of the
            video.

        Raises:
            ConfigError: if the features have no column of a number in ``drop_columns``.
            DataError: if a file cannot be read, has another shape than before or holds anything
                that is no finite number.
        """
        sample = super().__call__(record, rng)
        if self.drop_columns:
            self._check_columns(record)
            sample["features"][:, self.drop_columns] = 0.0
        rate = self.sampling_rate
        if "labels" in sample and not self.is_train:
            sample["full_labels"] = sample["labels"]
        if rate > 1:
            sample["length"] = -(-sample["length"] // rate)
            sample["frame_indices"] = sample["frame_indices"][::rate]
            for key in ("features", "mask"):
                if key in sample:
                    sample[key] = sample[key][::rate].contiguous()
            if "labels" in sample:
                sample["labels"] = sample_labels(sample["labels"], rate)
            if "frame_rate" in sample:
                sample["frame_rate"] /= rate
        if self.warp or self.segment_warp:
            self._warp(sample, rng)
        return sample

    def _warp(self, sample: Sample, rng: np.random.Generator) -> None:
        labels = sample["labels"].numpy()
        frames = torch.from_numpy(
            warp_frames(labels, whole=self.warp, segment=self.segment_warp, rng=rng)
        )
        for key in ("features", "labels", "mask"):
            if key in sample:
                sample[key] = sample[key][frames]
        sample["frame_indices"] = [sample["frame_indices"][frame] for frame in frames.tolist()]

    def _labels(self, labels: Any) -> torch.Tensor:
        numbers = super()._labels(labels)
        is_hidden = torch.from_numpy(np.isin(labels, self._hidden))
        return numbers.masked_fill((numbers < 0) | is_hidden, IGNORED)

    def _check_columns(self, record: Record) -> None:
        width = record["feature_dim"]
        wrong = [column for column in self.drop_columns if column >= width]
        if wrong:
            raise ConfigError(
                f"FACT.drop_columns names {wrong[0]}, but {record['file_names'][0]} has {width} "
                f"features per frame, numbered from 0 to {width - 1}"
            )


def sample_labels(labels: torch.Tensor, rate: int) -> torch.Tensor:
    """Gives the most frequent label of each ``rate`` frames; the one met first wins a tie.

    Args:
        labels: int64 ``(L,)``.
        rate: frames per label, at least 1; the last label may stand for fewer.

    Returns:
        int64 ``(ceil(L / rate),)``.

    Source: FACT (Lu and Elhamifar, CVPR 2024), published code.
    """
    if rate == 1 or not len(labels):
        return labels
    padding = -len(labels) % rate
    other = int(labels.min()) - 1
    windows = torch.nn.functional.pad(labels, (0, padding), value=other).view(-1, rate)
    counts = (windows[:, :, None] == windows[:, None, :]).sum(-1)  # (T, rate)
    counts[windows == other] = 0
    # argmax of torch takes any of several maxima.
    first = (counts == counts.amax(1, keepdim=True)).to(torch.int8).numpy().argmax(1)
    return windows[torch.arange(len(windows)), torch.from_numpy(first)]
