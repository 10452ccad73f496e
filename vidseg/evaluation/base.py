"""What an evaluator is, how it is found, and how it hears of the other ranks."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

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
    "collect_on_main",
    "evaluator_names",
    "gather_on_main",
    "headline_of",
    "inference_dir",
    "run_on_main",
]

T = TypeVar("T")

Metrics = dict[str, dict[str, float]]
"""``{task: {metric: value}}``; AP, HOTA, J&F, F1 and accuracy are percent."""

_VIDEOS_AT_ONCE = 16

EVALUATOR_REGISTRY: Registry[type[Evaluator]] = Registry("EVALUATOR")
"""Evaluators by the name that the metadata of a data set gives.

Called as ``cls(**cls.from_config(cfg, metadata, output_dir))``; must return an ``Evaluator``.
"""


class Evaluator(ABC):
    """Collects predictions video by video and scores them at the end.

    Subclasses are registered in ``EVALUATOR_REGISTRY`` and offer ``from_config``, ``encode`` and
    ``score``. What ``encode`` gives is all that is kept of a video, so an evaluation that was
    stopped goes on with the videos that are not finished, and ranks share the work. A subclass that
    does its own bookkeeping overrides ``reset``, ``process`` and ``evaluate`` instead; when its
    evaluation was stopped, it starts anew.

    Attributes:
        results: what was encoded, by video id; whoever runs the evaluation may put another mapping
            here after ``reset``, such as a ``ResultStore``.
        headline: metrics that a table of runs shows, by their flat names (``segm/AP``) or the ends
            of these, in order; if none of them is there, whatever there is.
    """

    results: MutableMapping[Any, Any]
    headline: ClassVar[tuple[str, ...]] = ("AP", "AP50", "AP75", "AR1", "AR10")

    @classmethod
    @abstractmethod
    def from_config(cls, cfg: CfgNode, metadata: Metadata, output_dir: Path) -> dict[str, Any]:
        """Translates a config and a data set into the arguments of ``__init__``.

        Args:
            cfg: of the run.
            metadata: of the data set that will be evaluated.
            output_dir: folder for the files of this evaluation.
        """

    def encode(self, sample: dict[str, Any], prediction: Any) -> Any:
        """Gives what has to be kept of a prediction, as plain json.

        Args:
            sample: as it was given to the model.
            prediction: what the model returned for it.

        Raises:
            DataError: if the prediction cannot be scored.
        """
        raise NotImplementedError

    def score(self, results: Mapping[Any, Any]) -> Metrics:
        """Writes files and gives the metrics; called on rank 0 alone.

        Args:
            results: what ``encode`` gave, by video id, in ascending order of ids. A value is read
                from disk whenever it is asked for. Videos that could not be predicted are missing.
        """
        raise NotImplementedError

    def reset(self) -> None:
        """Forgets all predictions."""
        self.results = {}

    def process(self, samples: Sequence[dict[str, Any]], predictions: Sequence[Any]) -> None:
        """Takes the predictions of some samples; of a video that comes twice, the first counts.

        Args:
            samples: as they were given to the model.
            predictions: what the model returned, one per sample.
        """
        for sample, prediction in zip(samples, predictions, strict=True):
            if sample["video_id"] not in self.results:
                self.results[sample["video_id"]] = self.encode(sample, prediction)

    def evaluate(self) -> Metrics:
        """Gathers the predictions of all ranks, writes files and gives the metrics on every rank.

        All ranks must call it. A task without any ground truth has no metrics.
        """
        collect_on_main(self.results)
        return run_on_main(lambda: self.score(_Ascending(self.results)))


class _Ascending(Mapping[Any, Any]):
    """Shows a mapping in the order of its keys."""

    def __init__(self, content: Mapping[Any, Any]) -> None:
        self._content = content

    def __getitem__(self, key: Any) -> Any:
        return self._content[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(sorted(self._content, key=lambda key: (isinstance(key, str), key)))

    def __len__(self) -> int:
        return len(self._content)

    def __contains__(self, key: object) -> bool:
        return key in self._content


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_dir: str | os.PathLike[str]
) -> Evaluator:
    """Makes the evaluator of a data set, see ``evaluator_names``; several become one.

    Args:
        cfg: of the run.
        dataset_name: of the catalog, or a path.
        output_dir: folder for the files of this evaluation, created when they are written.

    Raises:
        UserError: if the data set or its evaluator is unknown, or the data set has none.
    """
    from vidseg.data import DatasetCatalog  # on demand: files are scored without torch

    metadata = DatasetCatalog.metadata(dataset_name)
    names = evaluator_names(cfg, metadata)
    if not names:
        raise ConfigError(
            f"{dataset_name} cannot be scored: it has no evaluator, like all sets of pictures or "
            "features; name a video data set in DATASETS.TEST, or an evaluator in TEST.EVALUATOR"
        )
    if len(names) > 1:
        from .group import EvaluatorGroup  # which is an evaluator itself

        return EvaluatorGroup(**EvaluatorGroup.from_config(cfg, metadata, Path(output_dir)))
    evaluator = EVALUATOR_REGISTRY.get(names[0])
    return evaluator(**evaluator.from_config(cfg, metadata, Path(output_dir)))


def evaluator_names(cfg: CfgNode, metadata: Metadata) -> tuple[str, ...]:
    """Gives the evaluators of a data set.

    They are ``TEST.EVALUATOR`` of the config, else the set's own if it has one, and then
    ``TEST.EXTRA_EVALUATORS``, each once.
    """
    names = (cfg.TEST.EVALUATOR or metadata.evaluator, *cfg.TEST.EXTRA_EVALUATORS)
    return tuple(dict.fromkeys(str(name) for name in names if name))


def inference_dir(output_dir: str | Path, dataset_name: str) -> Path:
    """Gives the folder for what is inferred on a data set.

    A path is named by its last part and the folder that holds it: files of the same name, one for
    each split, are usual. Options behind it count: a file may be tested in two ways.
    """
    from vidseg.data.catalog import is_path
    from vidseg.data.path_formats import split_options

    name = dataset_name
    if is_path(dataset_name):
        given, options = split_options(dataset_name)
        path = Path(given).resolve()
        words = [f"{key}-{Path(value).name}" for key, value in sorted(options.items())]
        name = "_".join(part for part in (path.parent.name, path.stem, *words) if part)
    return Path(output_dir) / "inference" / name


def headline_of(cfg: CfgNode, dataset_name: str) -> tuple[str, ...]:
    """Gives the metrics that a table of runs on a data set shows, see ``Evaluator``.

    Raises:
        UserError: if the data set or its evaluator is unknown.
    """
    from vidseg.data import DatasetCatalog  # on demand, as above

    names = evaluator_names(cfg, DatasetCatalog.registered(dataset_name))
    headlines = [EVALUATOR_REGISTRY.get(name).headline for name in names]
    return tuple(dict.fromkeys(chain.from_iterable(headlines or [Evaluator.headline])))


def collect_on_main(results: MutableMapping[Any, Any]) -> None:
    """Brings to rank 0 the results that it lacks, a few videos at a time.

    What rank 0 has already, as on a common disk, is not sent.

    Args:
        results: of this rank; that of rank 0 is completed.
    """
    distributed = _distributed()
    if distributed is None:
        return
    holdings = gather_on_main(list(results))

    def missing() -> list[list[Any]]:
        seen = set(results)
        wanted: list[list[Any]] = []
        for held in holdings:
            wanted.append([key for key in held if key not in seen])
            seen.update(held)
        return wanted

    wanted = run_on_main(missing)
    mine = wanted[distributed.get_rank()]
    for start in range(0, max(map(len, wanted)), _VIDEOS_AT_ONCE):
        keys = mine[start : start + _VIDEOS_AT_ONCE]
        for part in gather_on_main({key: results[key] for key in keys}):
            results.update(part)


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
