"""How far a run has come, and which parts of the model do not train yet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

__all__ = ["Staging", "at_rest", "progress_of"]


@dataclass(frozen=True)
class Staging:
    """When the temporal transformer trains.

    Attributes:
        start: fraction of the run before which it is left out.
        warmup: share of the run, from there on, in which nothing else trains.
    """

    start: float = 0.0
    warmup: float = 0.2

    def has_begun(self, progress: float | None) -> bool:
        """Tells whether the transformer takes part; outside of a run it does."""
        return progress is None or progress >= self.start

    def is_alone(self, progress: float | None) -> bool:
        """Tells whether everything else rests; outside of a run it does not."""
        return progress is not None and self.start <= progress < self.start + self.warmup


def progress_of(samples: Sequence[Mapping[str, Any]]) -> float | None:
    """Gives the fraction of the run that is done, as training tells it; None outside of a run."""
    if "iteration" not in samples[0]:
        return None
    return float(samples[0]["iteration"]) / max(samples[0]["max_iter"], 1)


@contextlib.contextmanager
def at_rest(modules: Sequence[nn.Module], statistics: Sequence[nn.Module] = ()) -> Iterator[None]:
    """Keeps gradients from the parameters of modules while a loss is computed.

    Gradients still pass through them. What was computed stays without gradients afterwards, so the
    backward pass may come later.

    Args:
        modules: do not train.
        statistics: of them those that keep statistics of batches, which stay as they are.
    """
    parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
    modes = [module.training for module in statistics]
    try:
        for module in statistics:
            module.eval()
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
        for module, mode in zip(statistics, modes, strict=True):
            module.train(mode)
