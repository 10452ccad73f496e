"""Numbers that a run produces: a short history of each, smoothed for the log."""

from __future__ import annotations

import re
import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any

__all__ = ["SKIPPED", "ScalarHistory", "is_auxiliary", "is_figure", "is_loss"]

SKIPPED = "skipped_steps"
"""Steps of the whole run so far that were not finite; there is no such scalar before the first."""

# Durations add up to the whole run, so their mean is meant; losses have outliers.
_AVERAGED = ("time", "data_time")
_LATEST = ("lr", SKIPPED)
_NO_PART = (*_AVERAGED, *_LATEST, "iteration", "total_loss", "grad_norm", "max_mem")
_AUXILIARY = re.compile(r".*_\d+$")


def is_loss(name: str) -> bool:
    """Tells whether a scalar of training is a part of the total loss."""
    return name not in _NO_PART and not is_figure(name)


def is_figure(name: str) -> bool:
    """Tells whether what a model gives in training is only logged, as ``slots/used``.

    Such names have a slash. They are in the files of the writers and in no line of the log.
    """
    return "/" in name


def is_auxiliary(name: str) -> bool:
    """Tells whether a loss is that of an auxiliary layer, as ``loss_ce_0``."""
    return _AUXILIARY.fullmatch(name) is not None


class ScalarHistory:
    """The last values of every scalar.

    Args:
        window: how many values of each are remembered.
    """

    def __init__(self, window: int) -> None:
        self.window = max(1, window)
        self._values: dict[str, deque[float]] = {}

    def put(self, scalars: Mapping[str, float]) -> None:
        """Adds one value of each given scalar."""
        for name, value in scalars.items():
            self._values.setdefault(name, deque(maxlen=self.window)).append(float(value))

    def latest(self) -> dict[str, float]:
        """Gives the last value of each scalar."""
        return {name: values[-1] for name, values in self._values.items()}

    def smoothed(self) -> dict[str, float]:
        """Gives the median over the window, for durations the mean, of rate and count the last."""
        return {name: _smooth(name, values) for name, values in self._values.items()}

    def state_dict(self) -> dict[str, Any]:
        """Gives the history as plain lists, for a checkpoint."""
        return {name: list(values) for name, values in self._values.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over a saved history, so that the next log line is that of an unbroken run."""
        self._values = {name: deque(values, maxlen=self.window) for name, values in state.items()}


def _smooth(name: str, values: deque[float]) -> float:
    if name in _LATEST:
        return values[-1]
    if name in _AVERAGED:
        return statistics.fmean(values)
    return statistics.median(values)
