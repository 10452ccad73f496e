"""What an evaluator is, how it is found, and how it hears of the other ranks."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vidseg.errors import ConfigError
from vidseg.registry import Registry

if TYPE_CHECKING:
    from vidseg.config import CfgNode
    from vidseg.data import Metadata

__all__ = [
    "EVALUATOR_REGISTRY",
    "Evaluator",
    "Metrics",
    "build_evaluator",
    "gather_on_main",
    "run_on_main",
]

T = TypeVar("T")

Metrics = dict[str, dict[str, float]]
"""``{task: {metric: value}}``; AP, HOTA, J&F, F1 and accuracy are percent."""

EVALUATOR_REGISTRY: Registry[type[Evaluator]] = Registry("EVALUATOR")
"""Evaluators by the name that the metadata of a data set gives.

Called as ``cls(**cls.from_config(cfg, metadata, output_dir))``; must return an ``Evaluator``.
"""


class Evaluator(ABC):
    """Collects predictions sample by sample and scores them at the end.

    Subclasses are registered in ``EVALUATOR_REGISTRY`` and offer ``from_config``.
    """

    @classmethod
    @abstractmethod
    def from_config(cls, cfg: CfgNode, metadata: Metadata, output_dir: Path) -> dict[str, Any]:
        """Translates a config and a data set into the arguments of ``__init__``.

        Args:
            cfg: of the run.
            metadata: of the data set that will be evaluated.
            output_dir: folder for the files of this evaluation.
        """

    @abstractmethod
    def reset(self) -> None:
        """Forgets all predictions."""

    @abstractmethod
    def process(self, samples: Sequence[dict[str, Any]], predictions: Sequence[Any]) -> None:
        """Takes the predictions of some samples.

        Args:
            samples: as they were given to the model.
            predictions: what the model returned, one per sample.
        """

    @abstractmethod
    def evaluate(self) -> Metrics:
        """Gathers the predictions of all ranks, writes files and gives the metrics on every rank.

        All ranks must call it. A task without any ground truth has no metrics.
        """


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_dir: str | os.PathLike[str]
) -> Evaluator:
    """Makes the evaluator that the metadata of a data set names.

    Args:
        cfg: of the run.
        dataset_name: of the catalog, or the path of a json file.
        output_dir: folder for the files of this evaluation, created when they are written.

    Raises:
        UserError: if the data set or its evaluator is unknown, or the data set has none.
    """
    from vidseg.data import DatasetCatalog  # on demand: files are scored without torch

    metadata = DatasetCatalog.metadata(dataset_name)
    if not metadata.evaluator:
        raise ConfigError(
            f"{dataset_name} cannot be scored: it has no evaluator, like all sets of pictures; "
            "name a video data set in DATASETS.TEST"
        )
    evaluator = EVALUATOR_REGISTRY.get(metadata.evaluator)
    return evaluator(**evaluator.from_config(cfg, metadata, Path(output_dir)))


def gather_on_main(part: T) -> list[T]:
    """Collects one object of every rank on rank 0, in rank order; other ranks get ``[]``."""
    distributed = _distributed()
    if distributed is None:
        return [part]
    if distributed.get_rank() == 0:
        parts: list[Any] = [None] * distributed.get_world_size()
        distributed.gather_object(part, parts, dst=0)
        return parts
    distributed.gather_object(part, None, dst=0)
    return []


def run_on_main(work: Callable[[], T]) -> T:
    """Calls a function on rank 0 only and gives its result, or raises its error, on every rank."""
    distributed = _distributed()
    if distributed is None:
        return work()
    outcome: list[Any] = [None, None]
    if distributed.get_rank() == 0:
        try:
            outcome[0] = work()
        except Exception as error:  # whatever it is: the other ranks wait for this message
            outcome[1] = error
    distributed.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def _distributed() -> Any:
    """Gives ``torch.distributed`` if several ranks take part, else ``None``."""
    import torch.distributed as distributed  # on demand: files are scored without torch

    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    return distributed if distributed.get_world_size() > 1 else None
