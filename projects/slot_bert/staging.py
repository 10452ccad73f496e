"""How far a run has come, and parts of the model that do not train yet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

__all__ = ["at_rest", "progress_of"]


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
