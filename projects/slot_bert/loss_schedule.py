"""How much each loss counts at which point of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vidseg.errors import nearest

__all__ = ["LossSchedule", "Ramp"]


@dataclass(frozen=True)
class Ramp:
    """A weight that changes linearly.

    Attributes:
        start: fraction of the run before which the weight is ``first``.
        end: fraction of the run from which on it is ``last``.
        first: the weight before.
        last: the weight after.
    """

    start: float
    end: float
    first: float
    last: float

    def at(self, progress: float) -> float:
        """Gives the weight at a fraction of the run."""
        if progress >= self.end:
            return self.last
        if progress <= self.start:
            return self.first
        return self.first + (self.last - self.first) * (progress - self.start) / (
            self.end - self.start
        )


class LossSchedule:
    """Constant weights, and ramps in the place of some of them.

    Args:
        weights: of every loss, by name.
        ramps: ``[name, start, end, from, to]``; several of one name follow each other. Before the
            first the weight is its ``from``, after each its ``to``.

    Raises:
        ValueError: for an unknown name, a ramp out of range or two of a name that overlap.
    """

    def __init__(
        self, weights: Mapping[str, float], ramps: Sequence[Sequence[str | float]] = ()
    ) -> None:
        self.weights = dict(weights)
        self.ramps: dict[str, list[Ramp]] = {}
        for name, value in weights.items():
            if value < 0:
                raise ValueError(f"the weight {value} of {name} is negative")
        for entry in ramps:
            name, ramp = _read(entry, self.weights)
            before = self.ramps.setdefault(name, [])
            if before and before[-1].end > ramp.start:
                raise ValueError(f"two ramps of {name} overlap or are not in order: {list(entry)}")
            before.append(ramp)

    def at(self, progress: float) -> dict[str, float]:
        """Gives the weights at a fraction of the run, 0 to 1."""
        return {name: self._weight(name, progress) for name in self.weights}

    def is_used(self, name: str) -> bool:
        """Tells whether a loss ever counts."""
        ramps = self.ramps.get(name)
        if ramps is None:
            return self.weights[name] > 0
        return any(ramp.first > 0 or ramp.last > 0 for ramp in ramps)

    def _weight(self, name: str, progress: float) -> float:
        ramps = self.ramps.get(name)
        if ramps is None:
            return self.weights[name]
        begun = [ramp for ramp in ramps if ramp.start <= progress] or ramps[:1]
        return begun[-1].at(progress)


def _read(entry: Sequence[str | float], known: Mapping[str, float]) -> tuple[str, Ramp]:
    form = "a ramp is [name, start, end, from, to]"
    if isinstance(entry, str) or len(entry) != 5:
        raise ValueError(f"{form}, not {entry!r}")
    name = str(entry[0])
    if name not in known:
        hint = ", ".join(nearest(name, known) or known)
        raise ValueError(f"there is no loss {name!r}; nearest: {hint}")
    try:
        start, end, first, last = map(float, entry[1:])
    except ValueError as error:
        raise ValueError(f"{form}, not {list(entry)!r}") from error
    if not 0 <= start <= end <= 1:
        raise ValueError(f"the ramp {list(entry)!r} does not run within 0 to 1")
    if first < 0 or last < 0:
        raise ValueError(f"a weight of the ramp {list(entry)!r} is negative")
    return name, Ramp(start, end, first, last)
