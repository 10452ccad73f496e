"""Several evaluators of the same predictions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidseg.errors import ConfigError
from vidseg.files import read_json

from .base import EVALUATOR_REGISTRY, Evaluator, Metrics, evaluator_names
from .report import write_metrics

if TYPE_CHECKING:
    from vidseg.config import CfgNode
    from vidseg.data import Metadata

__all__ = ["EvaluatorGroup"]


class EvaluatorGroup(Evaluator):
    """Scores what a model has predicted once by several evaluators.

    Files of the first lie in ``output_dir``, those of another in a folder of its name below;
    ``metrics.json`` in ``output_dir`` has the metrics of all.

    What has to be kept of a video is kept once for all evaluators that inherit the same ``encode``.

    Args:
        members: evaluators by name, the data set's own first.
        output_dir: of the first.

    Raises:
        ConfigError: if one of them keeps its own books, see ``Evaluator``.
    """

    def __init__(self, members: Mapping[str, Evaluator], output_dir: Path) -> None:
        self._members = dict(members)
        self._output_dir = Path(output_dir)
        for name, member in self._members.items():
            kind = type(member)
            if (kind.process, kind.evaluate) != (Evaluator.process, Evaluator.evaluate):
                raise ConfigError(
                    f"TEST.EXTRA_EVALUATORS: the evaluator {name!r} keeps its own books, so it "
                    "cannot share predictions with others; name it alone in TEST.EVALUATOR"
                )
        self._keepers: dict[str, str] = {}  # by name: whose encode keeps what the member scores
        first_of: dict[Any, str] = {}
        for name, member in self._members.items():
            self._keepers[name] = first_of.setdefault(type(member).encode, name)
        self.reset()

    @classmethod
    def from_config(cls, cfg: CfgNode, metadata: Metadata, output_dir: Path) -> dict[str, Any]:
        """Makes the members, see the base class."""
        members: dict[str, Evaluator] = {}
        for name in evaluator_names(cfg, metadata):
            kind = EVALUATOR_REGISTRY.get(name)
            folder = output_dir / name if members else output_dir
            members[name] = kind(**kind.from_config(cfg, metadata, folder))
        return {"members": members, "output_dir": output_dir}

    def reset(self) -> None:
        """Forgets all predictions."""
        super().reset()
        for member in self._members.values():
            member.reset()

    def encode(self, sample: dict[str, Any], prediction: Any) -> dict[str, Any]:
        """Gives what the members keep of a prediction, by their names."""
        return {
            name: member.encode(sample, prediction)
            for name, member in self._members.items()
            if self._keepers[name] == name
        }

    def score(self, results: Mapping[Any, Any]) -> Metrics:
        """Has all members score, and gives the metrics of all; of one task, the first one's."""
        metrics: Metrics = {}
        for name, member in self._members.items():
            for task, figures in member.score(_Part(results, self._keepers[name])).items():
                metrics[task] = {**figures, **metrics.get(task, {})}
        flat = {
            f"{task}/{name}": float(value)
            for task, figures in metrics.items()
            for name, value in figures.items()
            if isinstance(value, int | float)
        }
        if flat:
            write_metrics(self._output_dir / "metrics.json", self._written() | flat)
        return metrics

    def _written(self) -> dict[str, float]:
        """Gives what the first member has written, which may be more than it returned."""
        path = self._output_dir / "metrics.json"
        content = read_json(path) if path.is_file() else {}
        return {name: math.nan if value is None else value for name, value in content.items()}


class _Part(Mapping[Any, Any]):
    """Shows what one member has kept of each video."""

    def __init__(self, results: Mapping[Any, Any], name: str) -> None:
        self._results = results
        self._name = name

    def __getitem__(self, key: Any) -> Any:
        return self._results[key][self._name]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)
