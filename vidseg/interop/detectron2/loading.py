"""vidseg's clips and videos for detectron2's trainers and evaluators.

``build_train_loader`` and ``build_test_loader`` stand where ``DefaultTrainer`` has methods of these
names: vidseg reads, mixes and augments, and every draw follows from ``SEED`` alone.
``VideoDatasetMapper`` stands where detectron2's own loaders take a ``mapper``, for data sets of
``register_datasets``.

Shapes: T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from vidseg import data
from vidseg.config import CfgNode
from vidseg.data.mappers import Rejected, build_mapper

from .samples import from_sample

__all__ = ["VideoDatasetMapper", "build_test_loader", "build_train_loader"]

Inputs = list[dict[str, Any]]


class VideoDatasetMapper:
    """Makes clips, or whole test videos, of the dicts of ``register_datasets`` (videos).

    Args:
        cfg: of vidseg; reads ``INPUT``. ``from_d2_config`` gives it.
        is_train: clips with ground truth, else whole videos without.
        kind: the vidseg mapper, as in ``DATASETS.DATASET_TYPE``.

    Raises:
        UserError: if there is no mapper of that name, or a value of the config is out of range.
    """

    def __init__(self, cfg: CfgNode, *, is_train: bool, kind: str = "video_instance") -> None:
        self._mapper = build_mapper(cfg, kind, is_train=is_train)
        self._image_format = str(cfg.INPUT.FORMAT)

    def __call__(self, dataset_dict: Mapping[str, Any]) -> dict[str, Any] | None:
        """Gives the dict of a video (see ``from_sample``); None if a clip shows no object.

        detectron2's loaders try another video then.

        Raises:
            DataError: if a frame or a mask cannot be read.
        """
        # Their loaders seed torch in every worker.
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        sample = self._mapper(dict(dataset_dict), rng)
        if isinstance(sample, Rejected):
            return None
        return from_sample(sample, image_format=self._image_format)


def build_train_loader(cfg: CfgNode, *, start_iteration: int = 0) -> Iterable[Inputs]:
    """Builds the endless loader of ``DATASETS.TRAIN``, for ``DefaultTrainer.build_train_loader``.

    Args:
        cfg: of vidseg.
        start_iteration: iteration of the first batch. detectron2's trainer keeps no place in the
            data: one that resumes has to be told, or it sees the same batches again.

    Raises:
        UserError: see ``vidseg.data.build_train_loader``.
    """
    loader = data.build_train_loader(cfg, start_iteration=start_iteration)
    return _Converted(loader, str(cfg.INPUT.FORMAT))


def build_test_loader(cfg: CfgNode, name: str) -> Iterable[Inputs]:
    """Builds the loader of a test set, one whole video per batch, in order; it has a length.

    Args:
        cfg: of vidseg.
        name: of a data set in vidseg's catalog, or a path.

    Raises:
        UserError: see ``vidseg.data.build_test_loader``.
    """
    return _Converted(data.build_test_loader(cfg, name), str(cfg.INPUT.FORMAT))


class _Converted:
    """Gives the batches of a vidseg loader as dicts of videos."""

    def __init__(self, loader: Any, image_format: str) -> None:
        self._loader = loader
        self._image_format = image_format

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Inputs]:
        for samples in self._loader:
            yield [from_sample(sample, image_format=self._image_format) for sample in samples]
