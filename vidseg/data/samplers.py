"""Which record is drawn when: a pure function of the seed and the number of the draw.

Nothing here remembers where it stopped. A run resumed at any iteration, with any number of loader
processes, sees the draws that the uninterrupted run would have seen; a run on more ranks splits the
same batches among them.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Draw", "DrawPlan", "draw_rng", "share_by_length"]

_BLOCK = 4096  # steps whose data sets are drawn at once

# First words of the seeds, so that the streams of different purposes never meet.
_SCHEDULE, _ORDER, _SAMPLE = 1, 2, 3


@dataclass(frozen=True)
class Draw:
    """One sample to make.

    Args:
        number: of the draw, counted over all batches and ranks from 0.
        dataset: number of the data set.
        record: number of the record in it.
    """

    number: int
    dataset: int
    record: int


class DrawPlan:
    """Tells the draws of every training step.

    Each step draws one data set, then a batch of it; every data set is gone through in random
    order, again and again.

    Args:
        sizes: number of records of every data set.
        ratios: how often each is drawn, relative.
        batch_size: samples per step over all ranks.
        seed: non-negative; the same seed gives the same plan.

    Raises:
        ValueError: if a size or the batch size is not positive, or the ratios are no weights.
    """

    def __init__(
        self, sizes: Sequence[int], ratios: Sequence[float], *, batch_size: int, seed: int
    ) -> None:
        weights = np.asarray(ratios, dtype=np.float64)
        if len(sizes) != len(weights) or not sizes or min(sizes) < 1 or batch_size < 1:
            raise ValueError(f"cannot plan draws from sizes {sizes}, batch size {batch_size}")
        if (weights < 0).any() or not weights.sum() > 0:
            raise ValueError(f"ratios must not be negative or all zero: {list(ratios)}")
        self.sizes = list(sizes)
        self.weights = weights / weights.sum()
        self.batch_size = batch_size
        self.seed = seed
        # Caches only: what they hold can be computed again from the seed.
        self._blocks: list[tuple[np.ndarray, np.ndarray]] = []
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    def batch(self, step: int) -> list[Draw]:
        """Gives the draws of one step."""
        dataset, batch_number = self._dataset(step)
        first = batch_number * self.batch_size
        return [
            Draw(step * self.batch_size + place, dataset, self._record(dataset, first + place))
            for place in range(self.batch_size)
        ]

    def _dataset(self, step: int) -> tuple[int, int]:
        """Gives the data set of a step, and how many earlier steps had the same one."""
        if len(self.sizes) == 1:
            return 0, step
        block, offset = divmod(step, _BLOCK)
        while len(self._blocks) <= block:
            self._add_block()
        choices, before = self._blocks[block]
        dataset = int(choices[offset])
        return dataset, int(before[dataset] + np.count_nonzero(choices[:offset] == dataset))

    def _add_block(self) -> None:
        rng = np.random.default_rng((_SCHEDULE, self.seed, len(self._blocks)))
        choices = rng.choice(len(self.sizes), size=_BLOCK, p=self.weights)
        before = np.zeros(len(self.sizes), dtype=np.int64)
        if self._blocks:
            last, start = self._blocks[-1]
            before = start + np.bincount(last, minlength=len(self.sizes))
        self._blocks.append((choices, before))

    def _record(self, dataset: int, position: int) -> int:
        """Gives the record at a position of the endless shuffled sequence of a data set."""
        epoch, offset = divmod(position, self.sizes[dataset])
        known = self._orders.get(dataset)
        if known is None or known[0] != epoch:
            rng = np.random.default_rng((_ORDER, self.seed, dataset, epoch))
            known = (epoch, rng.permutation(self.sizes[dataset]))
            self._orders[dataset] = known
        return int(known[1][offset])


def draw_rng(seed: int, number: int, attempt: int = 0) -> np.random.Generator:
    """Gives the generator of one draw; ``attempt`` counts the records tried for it."""
    return np.random.default_rng((_SAMPLE, seed, number, attempt))


def share_by_length(lengths: Sequence[int], rank: int, world_size: int) -> list[int]:
    """Gives the items that a rank handles, so that all ranks have about the same work.

    The longest items are dealt out first, each to the rank with the least work so far (Graham,
    "Bounds on multiprocessing timing anomalies", 1969). Every item goes to one rank.

    Args:
        lengths: work of every item.
        rank: whose items.
        world_size: number of ranks.

    Returns:
        Numbers of items, ascending.
    """
    # Of equal loads the highest rank's comes first: rank 0 has the results to write besides.
    loads = [(0, -number) for number in range(world_size)]
    heapq.heapify(loads)
    mine = []
    for item in sorted(range(len(lengths)), key=lambda item: -lengths[item]):
        load, least = heapq.heappop(loads)
        heapq.heappush(loads, (load + lengths[item], least))
        if least == -rank:
            mine.append(item)
    return sorted(mine)
